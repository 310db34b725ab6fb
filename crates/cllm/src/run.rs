//! One answer, with a clock beside it: what every command that decodes goes through.
//!
//! The decode crate has no clock but the model's. Here its observer gets one, so that each forward
//! carries the time at which it was done. Every forward is recorded: beside a forward
//! that costs nothing, and a trace, a colouring and a table are then read from one record.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use cllm_decode::spec::Built;
use cllm_decode::{
    Answer, CausalLm, DEFAULT_PREFILL_CHUNK, Decoder, DraftModel, Iteration, LmError, Logprobs,
    Observer, Phase, RecordedIteration, Request, Sequence, Token, ar, stream,
};

use crate::decoder::{DecoderSpec, Making};

/// An answer, every forward that made it, and how long they took.
#[derive(Debug)]
pub(crate) struct Run {
    /// What came out.
    pub(crate) answer: Answer,
    /// Every forward, with the time since the start at which it was done.
    pub(crate) forwards: Vec<(RecordedIteration, Duration)>,
    /// Of each token of the answer, if they were asked for.
    pub(crate) logprobs: Vec<Logprobs>,
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
    making: &Making,
    request: &Request,
    on_token: &mut dyn FnMut(Token) -> ControlFlow<()>,
) -> Result<Run, LmError> {
    run_watched(lm, sequence, decoder, making, request, on_token, &mut |_| {})
}

/// Answers `request` with a decoder that is already made.
pub(crate) fn run_with<L: CausalLm>(
    lm: &mut L,
    sequence: &mut Sequence<L::Cache>,
    decoder: &mut dyn Decoder,
    request: &Request,
) -> Result<Run, LmError> {
    let (on_token, on_forward) = (&mut |_| ControlFlow::Continue(()), &mut |_: &Iteration<'_>| {});
    let mut watch = Watch::new(on_token, on_forward);
    let answer =
        stream::generate(lm, sequence, decoder, request, &mut watch, DEFAULT_PREFILL_CHUNK)?;
    Ok(watch.into_run(answer))
}

/// The same as [`run`]; `on_forward` is told each forward, after its tokens. The time it
/// takes is not the answer's.
pub(crate) fn run_watched<L: CausalLm>(
    lm: &mut L,
    sequence: &mut Sequence<L::Cache>,
    decoder: DecoderSpec,
    making: &Making,
    request: &Request,
    on_token: &mut dyn FnMut(Token) -> ControlFlow<()>,
    on_forward: &mut dyn FnMut(&Iteration<'_>),
) -> Result<Run, LmError> {
    let mut watch = Watch::new(on_token, on_forward);
    let chunk = DEFAULT_PREFILL_CHUNK;
    let answer = match making.take(decoder)? {
        Built::Ar => ar::generate(lm, sequence, request, &mut watch, chunk)?,
        Built::Decoder(mut made) => {
            let answer = stream::generate(lm, sequence, &mut *made, request, &mut watch, chunk);
            making.give_back(decoder, made);
            answer?
        }
        Built::DraftModel { tokens } => {
            let mut draft = making.draft.as_ref().ok_or(LmError::NoDraftModel)?.borrow_mut();
            let (vocab, sampling) = (lm.vocab_size(), request.sampling.clone());
            let mut decoder = DraftModel::new(&mut *draft, tokens, vocab, sampling)?;
            stream::generate(lm, sequence, &mut decoder, request, &mut watch, chunk)?
        }
    };
    Ok(watch.into_run(answer))
}

struct Watch<'a> {
    started: Instant,
    /// Time spent in `on_forward`.
    away: Duration,
    forwards: Vec<(RecordedIteration, Duration)>,
    prefill: Duration,
    logprobs: Vec<Logprobs>,
    on_token: &'a mut dyn FnMut(Token) -> ControlFlow<()>,
    on_forward: &'a mut dyn FnMut(&Iteration<'_>),
}

impl<'a> Watch<'a> {
    fn new(
        on_token: &'a mut dyn FnMut(Token) -> ControlFlow<()>,
        on_forward: &'a mut dyn FnMut(&Iteration<'_>),
    ) -> Self {
        Self {
            started: Instant::now(),
            away: Duration::ZERO,
            forwards: Vec::new(),
            prefill: Duration::ZERO,
            logprobs: Vec::new(),
            on_token,
            on_forward,
        }
    }

    fn into_run(self, answer: Answer) -> Run {
        let total = self.started.elapsed() - self.away;
        let Self { forwards, logprobs, prefill, .. } = self;
        Run { answer, forwards, logprobs, prefill, total }
    }
}

impl Observer for Watch<'_> {
    fn token(&mut self, token: Token) -> ControlFlow<()> {
        (self.on_token)(token)
    }

    fn logprobs(&mut self, logprobs: &Logprobs) {
        self.logprobs.push(logprobs.clone());
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
