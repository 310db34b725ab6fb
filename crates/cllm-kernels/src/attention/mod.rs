//! Attention of rows over the keys each may see.
//!
//! The keys of a row form one logical list: cache prefix, peers, itself. They are named
//! by ranges of *slots* in the sequence's key and value store, where the rows of the
//! running forward lie behind the settled ones. For each head:
//!
//! ```text
//! s_j = sum over d of (q_d / sqrt(head_dim)) k_jd      d ascending, fused multiply-adds
//! w_j = exp(s_j - max s)
//! W   = sum of w_j                                     the 16 lanes of `crate::lanes`
//! o_d = (sum over j of w_j v_jd) / W                   j ascending, fused multiply-adds
//! ```
//!
//! j is the index in the logical list. No operation depends on where a key lies, on other
//! rows, or on tiles and threads: prefill in any chunks gives the same bits, on every
//! instruction set.
//!
//! Speed comes from doing sixteen keys (or sixteen elements of a value) in one vector,
//! up to six queries against four such vectors in registers (`tile.rs`), and all queries
//! that share a key head against the same keys while these are in cache (`piece.rs`).
//! Rows of one store that stand side by side and see the same long range share it.
//!
//! The softmax has two passes over a buffer of scores, not the online form (Milakov and
//! Gimelshein 2018) of one pass that rescales its sums. A score costs 2 `head_dim`
//! multiply-adds to make and to use, and 8 bytes of cache traffic to keep; rescaling
//! costs more arithmetic than that and ties the bits to a tile size. The buffer is 4
//! bytes per key and query: 0.8 MB for a piece of 24 queries at 8,192 keys.

mod piece;
mod span;
#[cfg(test)]
mod tests;
mod tile;

use std::cell::RefCell;
use std::ops::Range;

use crate::coming::Coming;
use crate::isa::Isa;
use crate::kv::KvStore;
use crate::pool::{self, Pool};
use crate::shared::Shared;
use piece::{Piece, Scratch};
use tile::TILE;

/// The most queries in a piece: four register tiles.
const PIECE: usize = 4 * TILE;

/// How a row of queries, keys or values is divided into heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads, H; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads in turn.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
}

/// One row's queries and what they look at.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Rotated queries, shape `(H, head_dim)`.
    pub q: &'a [f32],
    /// The keys and values of its sequence in this layer.
    pub kv: &'a KvStore,
    /// The slots it sees, in logical order; at least one.
    pub span: &'a [Range<usize>],
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Attention of all rows: `out = softmax(q K^T / sqrt(head_dim)) V` per head; `out` has
/// shape `(R, H, head_dim)`. Neighbouring rows of one store share the work of reading it. What is
/// `coming` is asked for in the meantime.
///
/// # Panics
/// If a shape differs from `shape`, or a slot does not exist.
pub fn attention(
    isa: Isa,
    pool: &mut Pool,
    shape: HeadShape,
    rows: &[Query<'_>],
    coming: Coming<'_>,
    out: &mut [f32],
) {
    let HeadShape { heads, kv_heads, head_dim } = shape;
    assert_eq!(out.len(), rows.len() * heads * head_dim, "elements of the output");
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads) && head_dim > 0, "{shape:?}");
    for row in rows {
        assert_eq!(row.q.len(), heads * head_dim, "elements of a row's queries");
        assert_eq!(row.kv.shape(), (kv_heads, head_dim), "shape of the keys");
        let end = row.span.iter().map(|range| range.end).max().unwrap_or(0);
        assert!(end <= row.kv.slots(), "slot {end} of {}", row.kv.slots());
    }
    let threads = pool.threads();
    let pieces = pieces(shape, rows, threads);
    let width = heads * head_dim;
    let out = Shared::new(out);
    let work = |(first_row, piece): &(usize, Piece<'_>)| {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.ahead.enter(coming, (pool::current(), threads));
            let write = |row: usize, head: usize, result: &[f32]| {
                let start = (first_row + row) * width + head * head_dim;
                // SAFETY: each head of each row is in one piece, and each piece is worked
                // on by one thread.
                #[expect(unsafe_code, reason = "threads write heads of their own")]
                unsafe { out.slice(start, head_dim) }.copy_from_slice(result);
            };
            // SAFETY: an `Isa` proves that the machine has it; shapes and slots were
            // checked above.
            #[expect(unsafe_code, reason = "runs code compiled for an instruction set")]
            unsafe {
                #[cfg(target_arch = "x86_64")]
                if isa.has_avx512() {
                    return piece.run::<crate::simd::Avx512>(scratch, write);
                } else if isa.has_avx2() {
                    return piece.run::<crate::simd::Avx2>(scratch, write);
                }
                let _ = isa;
                piece.run::<crate::simd::Portable>(scratch, write);
            }
        });
    };
    pool.run(pieces.len(), &|i| work(&pieces[i]));
}

/// Cuts the work into pieces, each with its first row. Threads take the next piece when
/// they are free, so pieces get smaller towards the end: none is longer than what is left
/// for each thread.
fn pieces<'a>(shape: HeadShape, rows: &'a [Query<'a>], threads: usize) -> Vec<(usize, Piece<'a>)> {
    let group = shape.heads / shape.kv_heads;
    let cost = |rows: &[Query<'_>]| -> usize {
        rows.iter().map(|row| row.span.iter().map(Range::len).sum::<usize>()).sum()
    };
    // Costs are in keys times queries.
    let mut left = cost(rows) * shape.heads;
    // With much to do, pieces below a register tile would waste more than they balance.
    let smallest = if rows.len() * shape.heads >= PIECE * threads { TILE } else { 1 };
    let mut pieces = Vec::new();
    let mut first_row = 0;
    for rows in rows.chunk_by(|a, b| std::ptr::eq(a.kv, b.kv)) {
        let queries = rows.len() * group;
        let each = (cost(rows) / rows.len()).max(1);
        for kv_head in 0..shape.kv_heads {
            let mut first = 0;
            while first < queries {
                let share = left.div_ceil(threads * each).max(smallest).min(PIECE);
                let share = if share > TILE { share - share % TILE } else { share };
                let share = share.min(queries - first);
                pieces.push((first_row, Piece { shape, rows, kv_head, first, queries: share }));
                first += share;
                left = left.saturating_sub(share * each);
            }
        }
        first_row += rows.len();
    }
    pieces
}
