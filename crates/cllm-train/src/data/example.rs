//! One example: a prompt, its answer, and the trajectories of the answer's blocks.

use cllm_decode::Token;

/// A block of an answer with its states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    start: usize,
    len: usize,
    /// The states before y*, shape `(k, n)`.
    states: Vec<Token>,
    /// The same with some wrong tokens set right, shape `(k, n)`; empty if there are none.
    augmented: Vec<Token>,
    /// The first wrong position of each, `(k,)`.
    first_wrong: Vec<usize>,
}

impl Block {
    /// Index in the answer of the block's first token.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// n, its number of tokens.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// k, the number of states before y*.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.first_wrong.len()
    }

    /// The first wrong position of state j; n for y*.
    #[must_use]
    pub fn first_wrong(&self, j: usize) -> usize {
        self.first_wrong.get(j).copied().unwrap_or(self.len)
    }

    /// State j < k, shape `(n,)`; its augmented copy if asked for and there is one.
    ///
    /// # Panics
    /// If j is not below k.
    #[must_use]
    pub fn state(&self, j: usize, augmented: bool) -> &[Token] {
        let states = if augmented && self.has_augmented() { &self.augmented } else { &self.states };
        &states[j * self.len..(j + 1) * self.len]
    }

    /// Whether there are augmented states.
    #[must_use]
    pub fn has_augmented(&self) -> bool {
        !self.augmented.is_empty()
    }
}

/// A prompt and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub(crate) prompt: Vec<Token>,
    /// The stop token last.
    pub(crate) answer: Vec<Token>,
    /// The data's own answer, where it is another one.
    pub(crate) reference: Option<Vec<Token>>,
    pub(crate) blocks: Vec<Block>,
}

impl Example {
    /// An example to fine-tune on.
    ///
    /// # Errors
    /// An empty prompt or answer.
    pub fn new(prompt: Vec<Token>, answer: Vec<Token>) -> Result<Self, String> {
        if prompt.is_empty() || answer.is_empty() {
            let which = if prompt.is_empty() { "prompt" } else { "answer" };
            return Err(format!("expected a prompt and an answer, found an empty {which}"));
        }
        Ok(Self { prompt, answer, reference: None, blocks: Vec::new() })
    }

    /// Adds trajectories, `[block][state][position]`, y* the last state of each; and
    /// augmented states, `[block][state][position]` without y*, or none at all.
    ///
    /// # Errors
    /// States of differing lengths, or blocks whose fixed points are not the answer.
    pub fn with_trajectories(
        mut self,
        trajectories: &[Vec<Vec<Token>>],
        augmented: &[Vec<Vec<Token>>],
    ) -> Result<Self, String> {
        if !augmented.is_empty() && augmented.len() != trajectories.len() {
            return Err(format!(
                "expected augmented states for {} blocks, found {}",
                trajectories.len(),
                augmented.len()
            ));
        }
        let mut start = 0;
        for (b, states) in trajectories.iter().enumerate() {
            let block = self
                .block(start, states, augmented.get(b).map_or(&[], Vec::as_slice))
                .map_err(|what| format!("block {}: {what}", b + 1))?;
            start += block.len;
            self.blocks.push(block);
        }
        if start != self.answer.len() {
            return Err(format!(
                "expected blocks of {} tokens as the answer has, found {start}",
                self.answer.len()
            ));
        }
        Ok(self)
    }

    /// Adds windows of a sliding-window decode as blocks, wherever each starts:
    /// `[window][state][position]`, the part of the answer it stands for the last state.
    ///
    /// # Errors
    /// States of differing lengths, or a window that is not of the answer.
    pub fn with_windows(
        mut self,
        starts: &[usize],
        windows: &[Vec<Vec<Token>>],
    ) -> Result<Self, String> {
        if starts.len() != windows.len() {
            return Err(format!("expected {} starts, found {}", windows.len(), starts.len()));
        }
        for (w, (&start, states)) in starts.iter().zip(windows).enumerate() {
            let window = self
                .block(start, states, &[])
                .map_err(|what| format!("window {}: {what}", w + 1))?;
            self.blocks.push(window);
        }
        Ok(self)
    }

    /// Adds the data's own answer, its stop token last.
    #[must_use]
    pub fn with_reference(mut self, reference: Vec<Token>) -> Self {
        self.reference = (!reference.is_empty() && reference != self.answer).then_some(reference);
        self
    }

    /// Most positions that a text of this example has.
    #[must_use]
    pub fn positions(&self) -> usize {
        let reference = self.reference.as_ref().map_or(0, Vec::len);
        self.prompt.len() + self.answer.len().max(reference)
    }

    /// The prompt's tokens.
    #[must_use]
    pub fn prompt(&self) -> &[Token] {
        &self.prompt
    }

    /// The answer's tokens.
    #[must_use]
    pub fn answer(&self) -> &[Token] {
        &self.answer
    }

    fn block(
        &self,
        start: usize,
        states: &[Vec<Token>],
        augmented: &[Vec<Token>],
    ) -> Result<Block, String> {
        let Some((fixed, before)) = states.split_last() else {
            return Err("no states".into());
        };
        let len = fixed.len();
        let end = start.checked_add(len);
        if len == 0 || end.and_then(|end| self.answer.get(start..end)) != Some(fixed) {
            return Err("its last state is not this part of the answer".into());
        }
        if !augmented.is_empty() && augmented.len() != before.len() {
            return Err(format!(
                "expected {} augmented states, found {}",
                before.len(),
                augmented.len()
            ));
        }
        let mut first_wrong = Vec::with_capacity(before.len());
        for (j, state) in before.iter().enumerate() {
            let lengths = [state.len(), augmented.get(j).map_or(len, Vec::len)];
            if let Some(found) = lengths.into_iter().find(|&found| found != len) {
                return Err(format!("state {j}: expected {len} tokens, found {found}"));
            }
            let wrong = |state: &[Token]| state.iter().zip(fixed).position(|(a, b)| a != b);
            let Some(wrong_at) = wrong(state) else {
                return Err(format!("state {j}: it is the fixed point before the last state"));
            };
            if augmented.get(j).is_some_and(|state| wrong(state) != Some(wrong_at)) {
                return Err(format!("augmented state {j}: another first wrong position"));
            }
            first_wrong.push(wrong_at);
        }
        Ok(Block {
            start,
            len,
            states: before.concat(),
            augmented: augmented.concat(),
            first_wrong,
        })
    }
}
