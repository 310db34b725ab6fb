//! The driver: several sequences, each with its decoder, one forward.
//!
//! A [`Stream`] is one request under way: its sequence, its decoder, its observer, its
//! answer so far. [`Driver::step`] asks every unfinished stream for rows (a piece of the
//! prompt, or what its decoder proposes), runs them as one forward, and hands each its
//! share of the result. As no row's result depends on the others, a stream's answer
//! does not depend on its companions: that is what a server's scheduler and the
//! collection of trajectories build on.
//!
//! Left out: which streams run when. A scheduler decides that by what it passes in.

use std::borrow::BorrowMut;
use std::ops::Range;

use crate::batch::{Batch, Want};
use crate::decoder::{Decoder, Verdict};
use crate::lm::{CausalLm, KvCache, LmError, Output, Token};
use crate::observe::{Iteration, Observer, Phase};
use crate::request::{Answer, Finish, Growing, Request, Stats};
use crate::sampling::Sampler;
use crate::sequence::Sequence;

/// Prompt rows per forward unless told otherwise: enough for the weights' traffic to
/// vanish beside the arithmetic, few enough for scratch memory to stay in megabytes.
pub const DEFAULT_PREFILL_CHUNK: usize = 512;

/// One request under way. Sequence, decoder and observer are owned or borrowed:
/// `S` is a `Sequence<C>` or a `&mut Sequence<C>`, `D` a decoder, `&mut` or `Box` of one,
/// `O` likewise. Streams of different kinds travel together as `Box<dyn ..>`.
#[derive(Debug)]
pub struct Stream<S, D, O> {
    sequence: S,
    decoder: D,
    observer: O,
    stop_tokens: Vec<Token>,
    /// The prompt and the answer so far.
    text: Vec<Token>,
    prompt_len: usize,
    answer: Growing,
    /// `None` if the model's argmax is what is asked.
    sampler: Option<Sampler>,
    /// Its rows in the forward under way.
    rows: Range<usize>,
}

impl<S, D: Decoder, O: Observer> Stream<S, D, O> {
    /// Starts `request`. What `sequence` shares with the prompt will not be read again.
    ///
    /// # Errors
    /// [`LmError::EmptyPrompt`], [`LmError::PromptTooLong`], [`LmError::UnknownToken`].
    pub fn new<L: CausalLm>(
        lm: &L,
        mut sequence: S,
        mut decoder: D,
        request: Request,
        observer: O,
    ) -> Result<Self, LmError>
    where
        S: BorrowMut<Sequence<L::Cache>>,
    {
        let answer = Growing::new(&request, lm)?;
        if answer.finish.is_none() {
            sequence.borrow_mut().align(&request.prompt);
        }
        decoder.begin();
        let sampler = Growing::sampler(&request);
        let Request { prompt: text, stop_tokens, .. } = request;
        let prompt_len = text.len();
        let rows = 0..0;
        Ok(Self {
            sequence,
            decoder,
            observer,
            stop_tokens,
            text,
            prompt_len,
            answer,
            sampler,
            rows,
        })
    }

    /// Why the answer ended, if it has.
    pub fn finish(&self) -> Option<Finish> {
        self.answer.finish
    }

    /// The answer so far.
    pub fn tokens(&self) -> &[Token] {
        &self.answer.tokens
    }

    /// What it has cost so far.
    pub fn stats(&self) -> Stats {
        self.answer.stats
    }

    /// Gives everything back, and the answer if it has ended. The sequence holds the
    /// prompt and all of the answer but its last token, or what was read of it so far.
    pub fn into_parts(self) -> (S, D, O, Option<Answer>) {
        (self.sequence, self.decoder, self.observer, self.answer.into_answer())
    }

    fn phase(&self) -> Phase {
        if self.answer.tokens.is_empty() { Phase::Prefill } else { Phase::Decode }
    }

    /// Pushes the rows of the next forward: at most `prompt_rows` of the prompt, or what
    /// the decoder proposes for at most `max_room` tokens.
    fn propose<C: KvCache>(
        &mut self,
        prompt_rows: usize,
        max_room: usize,
        sequence: usize,
        batch: &mut Batch,
    ) where
        S: BorrowMut<Sequence<C>>,
    {
        let first = batch.len();
        match self.phase() {
            _ if self.answer.finish.is_some() => {}
            Phase::Prefill => {
                let read = self.sequence.borrow_mut().len();
                let now = prompt_rows.min(self.text.len() - read);
                let tokens = self.text[read..read + now].iter().copied();
                let last = self.text.len() - 1 - read;
                batch.push_causal(sequence, read, tokens, |i| {
                    if i == last { Want::Argmax } else { Want::Nothing }
                });
            }
            Phase::Decode => {
                let room = self.answer.room().min(max_room);
                self.decoder.propose(&self.text, room, sequence, batch);
                assert!(batch.len() > first, "a decoder proposes at least one row");
            }
        }
        self.rows = first..batch.len();
        if self.sampler.is_some() {
            batch.want_logits(self.rows.clone());
        }
    }

    /// Chooses the tokens of its rows, if that is not for the model to do. Decoders read
    /// them as argmax and need not know.
    fn draw(&mut self, batch: &Batch, output: &mut Output) {
        let Some(sampler) = &mut self.sampler else { return };
        for i in self.rows.clone() {
            let row = batch.rows()[i];
            if row.want == Want::Logits {
                let settled = &self.text[..row.prefix];
                let token = sampler.draw(output.logits(i), settled, batch.tokens(i));
                output.set_argmax(i, token);
            }
        }
    }

    /// Tells the decoder what a forward cost that carried its rows and no others.
    fn took(&mut self, cost: f64) {
        if self.phase() == Phase::Decode {
            self.decoder.took(cost);
        }
    }

    /// Takes its share of a forward.
    fn absorb<C: KvCache>(&mut self, batch: &Batch, output: &Output)
    where
        S: BorrowMut<Sequence<C>>,
    {
        let (phase, start, rows) = (self.phase(), self.answer.tokens.len(), self.rows.len());
        let sequence = self.sequence.borrow_mut();
        let all: Vec<usize>;
        let first;
        let verdict = match phase {
            Phase::Prefill => {
                all = (0..rows).collect();
                let done = sequence.len() + rows == self.prompt_len;
                first = done.then(|| output.argmax(self.rows.end - 1));
                let settled = first.as_slice();
                Verdict { settled, keep: &all, draft: &[], output: settled }
            }
            Phase::Decode => {
                let verdict = self.decoder.absorb(self.rows.start, batch, output);
                assert_eq!(verdict.keep.len(), verdict.settled.len(), "one row per settled token");
                assert!(!verdict.settled.is_empty(), "every iteration settles a token");
                verdict
            }
        };
        // The row that said settled[i] is that of the token before it.
        let logprobs = |i: usize| {
            let row = match phase {
                Phase::Prefill => self.rows.end - 1,
                Phase::Decode => self.rows.start + verdict.keep[i],
            };
            self.sampler.as_ref()?.logprobs(output.logits(row), verdict.settled[i])
        };
        let settled = self.answer.settle_with(
            verdict.settled,
            &self.stop_tokens,
            &mut self.observer,
            logprobs,
        );
        self.text.extend_from_slice(&verdict.settled[..settled]);
        let keep = match phase {
            Phase::Prefill => verdict.keep,
            Phase::Decode => &verdict.keep[..settled],
        };
        sequence.keep(keep, self.rows.start, batch);
        if phase == Phase::Decode {
            self.answer.stats.decode_tokens += settled;
        }
        let Verdict { draft, output, .. } = verdict;
        self.observer.iteration(&Iteration { phase, start, draft, output, settled, rows });
    }
}

/// Runs streams. Holds the buffers of a forward, nothing else.
#[derive(Debug)]
pub struct Driver {
    prefill_chunk: usize,
    batch: Batch,
    output: Output,
}

impl Default for Driver {
    fn default() -> Self {
        Self::new(DEFAULT_PREFILL_CHUNK)
    }
}

impl Driver {
    /// A driver whose forwards carry at most `prefill_chunk` prompt rows (0 counts as 1),
    /// shared among the streams in their order: decoding streams never wait for longer
    /// than that.
    pub fn new(prefill_chunk: usize) -> Self {
        let prefill_chunk = prefill_chunk.max(1);
        Self { prefill_chunk, batch: Batch::new(), output: Output::new() }
    }

    /// Runs one forward with rows of all unfinished streams and returns how many streams
    /// are then unfinished. Without an unfinished stream it runs nothing.
    ///
    /// # Errors
    /// What the model reports. Every stream is then as it was before but for its
    /// [`Stats`]: run them one by one to learn which is at fault.
    ///
    /// [`LmError::NotFinite`] may come from a guess that would never have been text. So
    /// the forward is run again without guesses, and what happens then is the outcome: a
    /// decoder fails only where autoregressive decoding does. On a model that overflows
    /// on odd text this can cost up to two forwards a token.
    pub fn step<L, S, D, O>(
        &mut self,
        lm: &mut L,
        streams: &mut [Stream<S, D, O>],
    ) -> Result<usize, LmError>
    where
        L: CausalLm,
        S: BorrowMut<Sequence<L::Cache>>,
        D: Decoder,
        O: Observer,
    {
        let before = lm.now();
        match self.forward(lm, streams, usize::MAX) {
            Err(LmError::NotFinite { .. }) => self.forward(lm, streams, 1)?,
            other => other?,
        }
        let mut carried = (0..streams.len()).filter(|&i| !streams[i].rows.is_empty());
        let alone = carried.next().filter(|_| carried.next().is_none());
        for stream in streams.iter_mut().filter(|s| !s.rows.is_empty()) {
            stream.draw(&self.batch, &mut self.output);
        }
        if let (Some(alone), Some(before), Some(now)) = (alone, before, lm.now()) {
            streams[alone].took(now - before);
        }
        for stream in streams.iter_mut().filter(|s| !s.rows.is_empty()) {
            stream.absorb(&self.batch, &self.output);
        }
        Ok(streams.iter().filter(|s| s.finish().is_none()).count())
    }

    /// Fills the batch and runs it.
    fn forward<L, S, D, O>(
        &mut self,
        lm: &mut L,
        streams: &mut [Stream<S, D, O>],
        max_room: usize,
    ) -> Result<(), LmError>
    where
        L: CausalLm,
        S: BorrowMut<Sequence<L::Cache>>,
        D: Decoder,
        O: Observer,
    {
        self.batch.clear();
        let mut prompt_rows = self.prefill_chunk;
        let mut caches = Vec::with_capacity(streams.len());
        for stream in streams {
            let phase = stream.phase();
            stream.propose(prompt_rows, max_room, caches.len(), &mut self.batch);
            let rows = stream.rows.len();
            if rows == 0 {
                continue;
            }
            if phase == Phase::Prefill {
                prompt_rows -= rows;
            }
            stream.answer.stats.count(phase, rows, 0);
            caches.push(&mut stream.sequence.borrow_mut().cache);
        }
        if caches.is_empty() {
            return Ok(());
        }
        lm.forward(&self.batch, &mut caches, &mut self.output)
    }
}

/// Answers one request with `decoder`. `chunk` is the most prompt tokens one forward reads,
/// [`DEFAULT_PREFILL_CHUNK`] unless there is a reason. What `sequence` shares with the
/// prompt is not read again; afterwards it holds the prompt and all of the answer but
/// its last token.
///
/// # Errors
/// [`LmError::EmptyPrompt`], [`LmError::PromptTooLong`], [`LmError::UnknownToken`], or what
/// the model reports; the sequence then holds what was read and settled so far.
pub fn generate<L: CausalLm>(
    lm: &mut L,
    sequence: &mut Sequence<L::Cache>,
    decoder: &mut dyn Decoder,
    request: &Request,
    observer: &mut dyn Observer,
    chunk: usize,
) -> Result<Answer, LmError> {
    let mut streams = [Stream::new(lm, sequence, decoder, request.clone(), observer)?];
    let mut driver = Driver::new(chunk);
    while driver.step(lm, &mut streams)? > 0 {}
    let [stream] = streams;
    Ok(stream.into_parts().3.expect("the loop ends when the answer does"))
}
