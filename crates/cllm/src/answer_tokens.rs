//! An answer of the data as the tokens a model would have answered with.

use cllm_decode::Token;
use cllm_model::{Message, Model};

use crate::prompt::Prompt;
use crate::session::Session;

/// The tokens of the data's answer, up to the first stop token: what the chat template
/// puts after the prompt, or the text and the end-of-text token.
pub(crate) fn answer_tokens(
    session: &Session,
    prompt: &Prompt,
    answer: &str,
) -> anyhow::Result<Vec<Token>> {
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
