//! Training on a CPU, on our own kernels.
//!
//! burn keeps the tape and the LoRA gradients' bookkeeping; what costs time runs as custom
//! operations with a backward pass of their own ([`operation`]): frozen linear layers whose
//! weights are packed twice, as stored and transposed ([`linear`]), attention over segments
//! ([`attention`]), norms and SwiGLU ([`elementwise`]), and the LM head with both losses
//! ([`head`]). AdamW runs in place ([`optimizer`]). The plain-burn forms of the same stay as definition and as the way of GPUs.

pub(super) mod attention;
pub(super) mod elementwise;
pub(super) mod head;
pub(super) mod linear;
pub(super) mod operation;
pub(super) mod optimizer;

use std::sync::{Arc, Mutex, MutexGuard};

use cllm_kernels::{Format, Isa, Pool};

/// The machine, and how frozen weights are stored on it.
#[derive(Debug, Clone)]
pub(super) struct Cpu {
    pub(super) isa: Isa,
    pub(super) format: Format,
    pool: Arc<Mutex<Pool>>,
}

impl Cpu {
    pub(super) fn new(format: Format) -> Result<Self, String> {
        let pool = Pool::new(Pool::default_threads()).map_err(|e| format!("threads: {e}"))?;
        Ok(Self { isa: Isa::detect()?, format, pool: Arc::new(Mutex::new(pool)) })
    }

    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().expect("a kernel that panicked has stopped training")
    }
}

/// Pieces of work on `(T, D)` data: about 16,000 elements each.
fn piece_of(columns: usize) -> usize {
    (16_384 / columns.max(1)).max(1) * columns
}
