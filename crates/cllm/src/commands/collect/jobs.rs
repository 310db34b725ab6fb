//! From records to jobs.

use cllm_decode::collect::Job;
use cllm_decode::{CausalLm, LmError};

use super::CollectArgs;
use crate::answer_tokens::answer_tokens;
use crate::record::Record;
use crate::session::Session;

/// The job of a record: its request, and its own answer if that is to be taken.
pub(super) fn job(
    arguments: &CollectArgs,
    session: &Session,
    index: usize,
    record: &Record,
) -> anyhow::Result<Job> {
    let request = session.request(&record.prompt, Some(arguments.max_new_tokens))?;
    let given = match &record.answer {
        Some(answer) if arguments.use_answers => {
            let given = answer_tokens(session, &record.prompt, answer)?;
            let context = session.model.lm.context_length();
            let position = request.prompt.len() + given.len();
            if position > context || given.len() > arguments.max_new_tokens.get() {
                return Err(LmError::ContextFull { position, context }.into());
            }
            Some(given)
        }
        _ => None,
    };
    Ok(Job { id: index as u64, request, given })
}

/// Why a prompt cannot be used, if it is the prompt's fault.
pub(super) fn reason(error: anyhow::Error) -> anyhow::Result<&'static str> {
    match error.downcast_ref::<LmError>() {
        Some(LmError::PromptTooLong { .. }) => Ok("prompt_too_long"),
        Some(LmError::ContextFull { .. }) => Ok("answer_too_long"),
        _ => Err(error),
    }
}
