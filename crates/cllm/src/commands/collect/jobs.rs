//! From records to jobs.

use cllm_decode::collect::Job;
use cllm_decode::{CausalLm, LmError, Token};
use cllm_model::{Message, Model};

use super::CollectArgs;
use crate::collect::record::Record;
use crate::prompt::Prompt;
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

/// The tokens of the data's answer, up to the first stop token: what the chat template
/// puts after the prompt, or the text and the end-of-text token.
fn answer_tokens(session: &Session, prompt: &Prompt, answer: &str) -> anyhow::Result<Vec<Token>> {
    let Model { tokenizer, chat, stop_tokens, .. } = &session.model;
    if let (Prompt::Chat(messages), Some(chat)) = (prompt, chat) {
        let before = chat.render(messages, true, &serde_json::Map::new())?;
        let mut all = messages.clone();
        all.push(Message::new("assistant", answer));
        let whole = chat.render(&all, false, &serde_json::Map::new())?;
        if let Some(rest) = whole.strip_prefix(&before) {
            let mut tokens = tokenizer.encode(rest, false)?;
            if let Some(end) = tokens.iter().position(|token| stop_tokens.contains(token)) {
                tokens.truncate(end + 1);
                return Ok(tokens);
            }
        }
    }
    let mut tokens = tokenizer.encode(answer, false)?;
    tokens.extend(tokenizer.eos().or(stop_tokens.first().copied()));
    Ok(tokens)
}

/// Why a prompt cannot be used, if it is the prompt's fault.
pub(super) fn reason(error: anyhow::Error) -> anyhow::Result<&'static str> {
    match error.downcast_ref::<LmError>() {
        Some(LmError::PromptTooLong { .. }) => Ok("prompt_too_long"),
        Some(LmError::ContextFull { .. }) => Ok("answer_too_long"),
        _ => Err(error),
    }
}
