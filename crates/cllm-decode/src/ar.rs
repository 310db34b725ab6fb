//! Autoregressive decoding: one token a forward, greedily `y_i = argmax p(. | y_<i, x)`, or
//! as the request's [`Sampling`](crate::Sampling) has it.
//!
//! This is the oracle every other decoder is held to, so it is a plain loop that shares
//! nothing with the driver in [`stream`](crate::stream) but the rules for when an answer
//! ends. Running it there too is [`Jacobi`](crate::Jacobi) with n = 1.

use crate::batch::{Batch, Want};
use crate::lm::{CausalLm, LmError, Output};
use crate::observe::{Iteration, Observer, Phase};
use crate::request::{Answer, Growing, Request};
use crate::sequence::Sequence;

/// Answers `request` token by token. `chunk` is the most prompt tokens one forward reads
/// (0 counts as 1). What `sequence` shares with the prompt is not read again; afterwards it
/// holds the prompt and all of the answer but its last token.
///
/// # Errors
/// [`LmError::EmptyPrompt`], [`LmError::PromptTooLong`], [`LmError::UnknownToken`], or what
/// the model reports.
pub fn generate<L: CausalLm>(
    lm: &mut L,
    sequence: &mut Sequence<L::Cache>,
    request: &Request,
    observer: &mut dyn Observer,
    chunk: usize,
) -> Result<Answer, LmError> {
    let mut answer = Growing::new(request, lm)?;
    let mut sampler = Growing::sampler(request);
    let want = if sampler.is_some() { Want::Logits } else { Want::Argmax };
    let (mut batch, mut output) = (Batch::new(), Output::new());
    if answer.finish.is_none() {
        sequence.align(&request.prompt);
    }
    while answer.finish.is_none() {
        let start = answer.tokens.len();
        let (phase, tokens) = match answer.tokens.last() {
            None => {
                let unread = &request.prompt[sequence.len()..];
                (Phase::Prefill, &unread[..unread.len().min(chunk.max(1))])
            }
            Some(last) => (Phase::Decode, std::slice::from_ref(last)),
        };
        let rows = tokens.len();
        // The last row of all that is known says what comes next.
        let asked = sequence.len() + rows == request.prompt.len() + start;
        batch.clear();
        batch.push_causal(0, sequence.len(), tokens.iter().copied(), |i| {
            if asked && i + 1 == rows { want } else { Want::Nothing }
        });
        lm.forward(&batch, &mut [&mut sequence.cache], &mut output)?;
        sequence.keep(&(0..rows).collect::<Vec<_>>(), 0, &batch);

        let next = asked.then(|| match &mut sampler {
            None => output.argmax(rows - 1),
            // What the sequence holds now is the prompt and the answer so far.
            Some(sampler) => {
                sampler.draw(output.logits(rows - 1), &sequence.tokens, std::iter::empty())
            }
        });
        let logprobs = |i: usize| {
            let token = *next.as_slice().get(i)?;
            sampler.as_ref()?.logprobs(output.logits(rows - 1), token)
        };
        let stops = &request.stop_tokens;
        let settled = answer.settle_with(next.as_slice(), stops, observer, logprobs);
        answer.stats.count(phase, rows, settled);
        let output = next.as_slice();
        observer.iteration(&Iteration { phase, start, draft: &[], output, settled, rows });
    }
    Ok(answer.into_answer().expect("the loop ends when the answer does"))
}
