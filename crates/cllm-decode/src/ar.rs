//! Autoregressive decoding: one token a forward, `y_i = argmax p(. | y_<i, x)`, or drawn.
//!
//! This is the oracle every other decoder is held to, so it is a plain loop that shares
//! nothing with the driver in [`stream`](crate::stream) but the rules for when an answer
//! ends. Running it there too is [`Jacobi`](crate::Jacobi) with n = 1.

use crate::batch::{Batch, Want};
use crate::lm::{CausalLm, LmError, Output};
use crate::observe::{Iteration, Observer, Phase};
use crate::request::{Answer, Growing, Request};
use crate::sampling::Sampler;
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
    let (mut batch, mut output) = (Batch::new(), Output::new());
    let mut sampler = Sampler::new(&request.sampling, request.prompt.len());
    let mut text = request.prompt.clone();
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
        batch.push_causal(0, sequence.len(), tokens.iter().copied(), |i| match &sampler {
            _ if !asked || i + 1 < rows => Want::Nothing,
            None => Want::Argmax,
            Some(_) => Want::Logits,
        });
        lm.forward(&batch, &mut [&mut sequence.cache], &mut output)?;
        sequence.keep(&(0..rows).collect::<Vec<_>>(), 0, &batch);

        if let Some(sampler) = sampler.as_mut().filter(|_| asked) {
            sampler.choose(&text, rows - 1..rows, &batch, &mut output);
        }
        let next = asked.then(|| output.argmax(rows - 1));
        let settled = answer.settle(next.as_slice(), &request.stop_tokens, observer);
        text.extend_from_slice(&next.as_slice()[..settled]);
        if let (Some(sampler), Some(token)) = (&sampler, next)
            && let Some(logprobs) = sampler.logprobs(rows - 1, token, &output)
        {
            observer.logprobs(&logprobs);
        }
        answer.stats.count(phase, rows, settled);
        let output = next.as_slice();
        observer.iteration(&Iteration { phase, start, draft: &[], output, settled, rows });
    }
    Ok(answer.into_answer().expect("the loop ends when the answer does"))
}
