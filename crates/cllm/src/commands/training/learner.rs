//! The network in training: the one place where the loop meets the numerics.

use std::path::Path;

use anyhow::bail;
use cllm_train::config::Config;
use cllm_train::learner::Learner;
use cllm_train::train::Decoded;

use crate::session::Session;

/// The learner of a run: the model at `path` with the parameters that `config` trains.
pub(crate) fn learner(path: &Path, config: &Config) -> anyhow::Result<Box<dyn Learner>> {
    bail!(
        "{}: training ({:?}) is not built yet: only the loop around it is",
        path.display(),
        config.finetuning_type
    )
}

/// Answers held-out prompts with the parameters as they are; `None` while nothing can.
pub(crate) fn measure(
    _session: &mut Session,
    _learner: &dyn Learner,
) -> Result<Option<Decoded>, String> {
    Ok(None)
}
