//! Collecting trajectories block by block: the definition.
//!
//! A block starts as a guess after the settled text, all of it is updated by a forward of
//! n rows until a forward changes nothing, then it is settled text and the next block
//! starts (Kou et al. 2024). [`collect`](crate::collect) gives the same trajectories from
//! much wider forwards; this is what it is tested against and measured against, with
//! settled text in a KV cache or, as the reference does it, without one.

use crate::batch::{Batch, Want};
use crate::collect::{Collected, Job, Settings, first_guess, job_seed, of_blocks};
use crate::lm::{CausalLm, KvCache, LmError, Output, Token};
use crate::request::{Growing, Request};
use crate::trajectory::Trajectory;

/// What stays in the KV cache from one forward to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Settled text.
    Text,
    /// Nothing: every forward reads prompt and answer again (the code of Kou et al. 2024).
    Nothing,
}

/// The trajectories of one prompt. A given answer replaces what the model says where the
/// text so far is the given one.
///
/// # Errors
/// As [`Collector::push`](crate::collect::Collector::push), or what the model reports.
pub fn collect<L: CausalLm>(
    lm: &mut L,
    settings: &Settings,
    job: &Job,
    memory: Memory,
) -> Result<Collected, LmError> {
    if settings.block == 0 {
        return Err(LmError::EmptyBlock);
    }
    let Job { id, request, given } = job;
    let mut answer = Growing::new(request, lm)?;
    request.sampling.require_greedy()?;
    let (mut cache, mut output) = (lm.new_cache(), Output::new());
    let Request { prompt, stop_tokens, .. } = request;
    let mut text = prompt.clone();
    if memory == Memory::Text {
        forward(lm, &mut cache, &prompt[..prompt.len() - 1], Want::Nothing, &mut output)?;
        cache.keep(&(0..prompt.len() - 1).collect::<Vec<_>>());
    }

    let mut trajectories = Vec::new();
    loop {
        let start = text.len() - prompt.len();
        let room = match given {
            Some(given) => given.len() - start,
            None if answer.finish.is_some() => 0,
            None => answer.room(),
        };
        let n = settings.block.min(room);
        if n == 0 {
            break;
        }
        let guess = first_guess(settings.draft, job_seed(settings, *id), &text, n);
        let mut states: Vec<Vec<Token>> = vec![guess];
        loop {
            let state = &states[states.len() - 1];
            let rows = [&text[cache.len()..], &state[..n - 1]].concat();
            forward(lm, &mut cache, &rows, Want::Argmax, &mut output)?;
            let first = rows.len() - n;
            let mut next: Vec<Token> = (0..n).map(|i| output.argmax(first + i)).collect();
            if let Some(given) = given {
                let given = &given[start..];
                let right = state.iter().zip(given).take_while(|(a, b)| a == b).count();
                next[..n.min(right + 1)].copy_from_slice(&given[..n.min(right + 1)]);
            }
            if next == *state {
                break;
            }
            states.push(next);
        }
        if memory == Memory::Text {
            cache.keep(&(0..n).collect::<Vec<_>>());
        }
        let mut fixed = states[states.len() - 1].clone();
        if given.is_none() {
            // What stands after a stop token is no part of the answer, nor of a state.
            fixed.truncate(answer.settle(&fixed, stop_tokens, &mut ()));
        }
        let mut trajectory = Trajectory::new(start, fixed.clone());
        for state in &states {
            if trajectory.push(&state[..fixed.len()]).is_none() {
                break;
            }
        }
        trajectories.push(trajectory);
        text.extend(fixed);
    }
    let answer = text.split_off(prompt.len());
    let (trajectories, measures) = of_blocks(trajectories.into_iter());
    Ok(Collected { id: *id, prompt: text, answer, trajectories, measures })
}

/// Rows with `tokens`, each seeing the cache and all before it.
fn forward<L: CausalLm>(
    lm: &mut L,
    cache: &mut L::Cache,
    tokens: &[Token],
    want: Want,
    output: &mut Output,
) -> Result<(), LmError> {
    if tokens.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    batch.push_causal(0, cache.len(), tokens.iter().copied(), |_| want);
    lm.forward(&batch, &mut [cache], output)
}
