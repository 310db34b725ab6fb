//! Speculative decoding with a draft model (Leviathan et al. 2023, arXiv 2211.17192; Chen et
//! al. 2023, arXiv 2302.01318): a smaller model says k tokens one by one, the large one
//! verifies them in one forward.
//!
//! The papers accept a drafted token with probability `min(1, p/q)` and draw again otherwise,
//! which keeps the *distribution*. Here the large model's token is a function of its row (see
//! [`sampling`](crate::sampling)) and a draft is right if it is that token, which keeps the
//! *text*. So that a draft is often right under sampling too, the draft model draws with the same
//! noise: where both models nearly agree on the logits, the same token wins.
//!
//! The driver knows nothing of a second model: it lives behind `propose`, with a cache of its
//! own that is cut back to what the texts share each time. If it fails, at the end of its
//! context or with broken weights, there are no more drafts for this request, and decoding is
//! autoregressive.
//!
//! Left out: drafts for several sequences in one forward. Each decoder runs its own model.

use crate::batch::{Batch, Want};
use crate::decoder::{Decoder, Verdict};
use crate::lm::{CausalLm, LmError, Output, Token};
use crate::sampling::{Sampler, Sampling};
use crate::sequence::Sequence;
use crate::stream::DEFAULT_PREFILL_CHUNK;
use crate::tree::Tree;

/// A decoder whose guesses are another model's. `L` may be a `&mut` of a model.
#[derive(Debug)]
pub struct DraftModel<L: CausalLm> {
    lm: L,
    sequence: Sequence<L::Cache>,
    tokens: usize,
    /// Of the model that verifies: no other tokens may be guessed.
    vocab: usize,
    sampling: Sampling,
    /// Made at the first proposal of a request, which shows how long the prompt is.
    sampler: Option<Sampler>,
    /// Set when the model has failed, until the next request.
    failed: bool,
    batch: Batch,
    output: Output,
    tree: Tree,
}

impl<L: CausalLm> DraftModel<L> {
    /// A decoder that has `lm` draft `tokens` tokens for a model with `vocab` tokens.
    /// `sampling` is that of the requests it will be given: it decides how often drafts are
    /// right, nothing else.
    ///
    /// # Errors
    /// [`LmError::BadSampling`] and its like if `sampling` is not valid.
    pub fn new(lm: L, tokens: usize, vocab: usize, sampling: Sampling) -> Result<Self, LmError> {
        sampling.validate(vocab)?;
        let sequence = Sequence::new(lm.new_cache());
        let (batch, output, tree) = (Batch::new(), Output::new(), Tree::default());
        let (sampler, failed) = (None, false);
        Ok(Self { lm, sequence, tokens, vocab, sampling, sampler, failed, batch, output, tree })
    }

    /// Drafts up to `count` tokens after `text`, onto the tree.
    fn draft(&mut self, text: &[Token], count: usize) -> Result<(), LmError> {
        self.sequence.align(text);
        let mut drafted: Vec<Token> = Vec::with_capacity(count);
        while drafted.len() < count {
            let held = self.sequence.len();
            let unread = if held < text.len() {
                &text[held..text.len().min(held + DEFAULT_PREFILL_CHUNK)]
            } else {
                &drafted[held - text.len()..]
            };
            let rows = unread.len();
            let asked = held + rows == text.len() + drafted.len();
            let want = match &self.sampler {
                _ if !asked => Want::Nothing,
                None => Want::Argmax,
                Some(_) => Want::Logits,
            };
            self.batch.clear();
            self.batch.push_causal(0, held, unread.iter().copied(), |i| {
                if i + 1 == rows { want } else { Want::Nothing }
            });
            self.lm.forward(&self.batch, &mut [&mut self.sequence.cache], &mut self.output)?;
            self.sequence.keep(&(0..rows).collect::<Vec<_>>(), 0, &self.batch);
            if !asked {
                continue;
            }
            let token = match &mut self.sampler {
                None => self.output.argmax(rows - 1),
                Some(sampler) => {
                    sampler.draw(self.output.logits(rows - 1), text, drafted.iter().copied())
                }
            };
            let parent = self.tree.len() - 1;
            if token as usize >= self.vocab || self.tree.child(parent, token).is_none() {
                break;
            }
            drafted.push(token);
        }
        Ok(())
    }
}

impl<L: CausalLm> Decoder for DraftModel<L> {
    fn begin(&mut self) {
        self.sampler = None;
        self.failed = false;
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        self.tree.begin(text[text.len() - 1], room);
        if self.sampler.is_none() && !self.sampling.is_greedy() {
            // Prefill gives the first token of the answer, the first proposal follows it.
            self.sampler = Some(Sampler::new(self.sampling.clone(), text.len() - 1));
        }
        let count = self.tokens.min(room - 1);
        if count > 0 && !self.failed {
            self.failed = self.draft(text, count).is_err();
        }
        self.tree.push(text.len(), sequence, batch);
    }

    fn absorb(&mut self, first_row: usize, _batch: &Batch, output: &Output) -> Verdict<'_> {
        self.tree.absorb(first_row, output);
        self.tree.verdict()
    }
}
