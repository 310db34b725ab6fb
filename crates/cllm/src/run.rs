//! One answer, with a clock beside it: what every command that decodes goes through.
//!
//! The decode crate reads no clock. Here its observer gets one, so that each forward
//! carries the time at which it was done. Every forward is recorded: beside a forward
//! that costs nothing, and a trace, a colouring and a table are then read from one record.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use cllm_decode::{
    Answer, CausalLm, DEFAULT_PREFILL_CHUNK, Iteration, LmError, Observer, Phase,
    RecordedIteration, Request, Sequence, Token, ar, stream,
};

use crate::decoder::DecoderSpec;

/// An answer, every forward that made it, and how long they took.
#[derive(Debug)]
pub(crate) struct Run {
    /// What came out.
    pub(crate) answer: Answer,
    /// Every forward, with the time since the start at which it was done.
    pub(crate) forwards: Vec<(RecordedIteration, Duration)>,
    /// Until the last prefill forward was done.
    pub(crate) prefill: Duration,
    /// Until the answer ended.
    pub(crate) total: Duration,
}

impl Run {
    /// For every token of the answer, how many tokens its forward settled. Prefill gives
    /// the first token, so that one counts 1.
    pub(crate) fn settled_together(&self) -> Vec<usize> {
        let counts = self.forwards.iter().map(|(forward, _)| forward.settled);
        counts.flat_map(|settled| std::iter::repeat_n(settled, settled)).collect()
    }
}

/// Answers `request` with `decoder`. `on_token` is told each token as it settles; `Break`
/// ends the answer with that token.
pub(crate) fn run<L: CausalLm>(
    lm: &mut L,
    sequence: &mut Sequence<L::Cache>,
    decoder: DecoderSpec,
    seed: u64,
    request: &Request,
    on_token: &mut dyn FnMut(Token) -> ControlFlow<()>,
) -> Result<Run, LmError> {
    run_watched(lm, sequence, decoder, seed, request, on_token, &mut |_| {})
}

/// The same; `on_forward` is told each forward, after its tokens. The time it takes is not
/// the answer's.
pub(crate) fn run_watched<L: CausalLm>(
    lm: &mut L,
    sequence: &mut Sequence<L::Cache>,
    decoder: DecoderSpec,
    seed: u64,
    request: &Request,
    on_token: &mut dyn FnMut(Token) -> ControlFlow<()>,
    on_forward: &mut dyn FnMut(&Iteration<'_>),
) -> Result<Run, LmError> {
    let started = Instant::now();
    let (forwards, prefill, away) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    let mut watch = Watch { started, away, forwards, prefill, on_token, on_forward };
    let chunk = DEFAULT_PREFILL_CHUNK;
    let answer = match decoder.build(seed)? {
        None => ar::generate(lm, sequence, request, &mut watch, chunk)?,
        Some(mut decoder) => {
            stream::generate(lm, sequence, &mut *decoder, request, &mut watch, chunk)?
        }
    };
    let total = started.elapsed() - watch.away;
    Ok(Run { answer, forwards: watch.forwards, prefill: watch.prefill, total })
}

struct Watch<'a> {
    started: Instant,
    /// Time spent in `on_forward`.
    away: Duration,
    forwards: Vec<(RecordedIteration, Duration)>,
    prefill: Duration,
    on_token: &'a mut dyn FnMut(Token) -> ControlFlow<()>,
    on_forward: &'a mut dyn FnMut(&Iteration<'_>),
}

impl Observer for Watch<'_> {
    fn token(&mut self, token: Token) -> ControlFlow<()> {
        (self.on_token)(token)
    }

    fn iteration(&mut self, iteration: &Iteration<'_>) {
        let until = self.started.elapsed();
        let now = until - self.away;
        if iteration.phase == Phase::Prefill {
            self.prefill = now;
        }
        self.forwards.push((iteration.into(), now));
        (self.on_forward)(iteration);
        self.away += self.started.elapsed() - until;
    }
}
