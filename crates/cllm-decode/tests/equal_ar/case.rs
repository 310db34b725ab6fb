//! One question to one model, and what is seen of the answer.

use std::ops::ControlFlow;

use cllm_decode::fake::Fake;
use cllm_decode::{
    Answer, Finish, LmError, Logprobs, Observer, Recorder, Request, Sampler, Sampling, Token,
};
use proptest::prelude::*;

use crate::common::{kinds, samplings};

/// Breaks at the given token of the answer, and records.
#[derive(Default)]
pub(crate) struct Watcher {
    pub(crate) break_at: Option<usize>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) logprobs: Vec<Logprobs>,
    pub(crate) recorder: Recorder,
}

impl Observer for Watcher {
    fn token(&mut self, token: Token) -> ControlFlow<()> {
        self.tokens.push(token);
        if self.break_at == Some(self.tokens.len()) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn logprobs(&mut self, logprobs: &Logprobs) {
        self.logprobs.push(logprobs.clone());
    }

    fn iteration(&mut self, iteration: &cllm_decode::Iteration<'_>) {
        self.recorder.iteration(iteration);
    }
}

/// One question to one model.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) fake: Fake,
    pub(crate) request: Request,
    pub(crate) break_at: Option<usize>,
    pub(crate) chunk: usize,
}

/// How a decode ended: tokens and reason, or the error.
pub(crate) type Outcome = Result<(Vec<Token>, Finish), LmError>;

pub(crate) fn outcome(result: &Result<Answer, LmError>) -> Outcome {
    result.clone().map(|answer| (answer.tokens, answer.finish))
}

impl Case {
    /// The outcome by definition: no rows, no caches, no driver.
    pub(crate) fn expected(&self) -> Outcome {
        let (prompt, context) = (&self.request.prompt, self.fake.context);
        if prompt.is_empty() {
            return Err(LmError::EmptyPrompt);
        }
        if prompt.len() >= context {
            return Err(LmError::PromptTooLong { prompt: prompt.len(), context });
        }
        let mut text = prompt.clone();
        let mut finish = (self.request.max_new_tokens == 0).then_some(Finish::MaxNewTokens);
        while finish.is_none() {
            if self.fake.nan_at == Some(text.len() - 1) {
                return Err(LmError::NotFinite { position: text.len() - 1 });
            }
            let token = self.choose(&text);
            text.push(token);
            let len = text.len() - prompt.len();
            if self.request.stop_tokens.contains(&token) {
                finish = Some(Finish::StopToken);
            } else if self.break_at == Some(len) {
                finish = Some(Finish::Observer);
            } else if len == self.request.max_new_tokens {
                finish = Some(Finish::MaxNewTokens);
            } else if text.len() == context {
                finish = Some(Finish::Context);
            }
        }
        Ok((text.split_off(prompt.len()), finish.expect("just set")))
    }

    /// The token after `text`.
    fn choose(&self, text: &[Token]) -> Token {
        let sampling = &self.request.sampling;
        if sampling.is_off() {
            return self.fake.next(text);
        }
        let mut sampler = Sampler::new(sampling.clone(), self.request.prompt.len());
        sampler.draw(&self.fake.logits(text), text, std::iter::empty())
    }

    pub(crate) fn watcher(&self) -> Watcher {
        Watcher { break_at: self.break_at, ..Watcher::default() }
    }
}

prop_compose! {
    pub(crate) fn cases()(
        vocab in prop_oneof![1..4u32, 4..40u32],
    )(
        kind in kinds(vocab),
        context in prop_oneof![1 => 1..50usize, 4 => 50..120usize],
        nan_at in prop::option::weighted(0.1, 0..90usize),
        prompt in prop::collection::vec(0..vocab, 0..50),
        max_new_tokens in prop_oneof![0..8usize, 8..100usize, Just(usize::MAX)],
        stop_tokens in prop_oneof![
            4 => Just(vec![]),
            2 => prop::collection::vec(0..vocab, 1..3),
        ],
        break_at in prop::option::weighted(0.2, 1..40usize),
        chunk in prop_oneof![1..9usize, Just(512usize)],
        sampling in prop_oneof![Just(Sampling::default()), samplings(vocab)],
        vocab in Just(vocab as usize),
    ) -> Case {
        let fake = Fake { nan_at, ..Fake::new(kind, vocab, context) };
        let request = Request { prompt, max_new_tokens, stop_tokens, sampling };
        Case { fake, request, break_at, chunk }
    }
}
