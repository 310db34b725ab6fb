//! Lookahead decoding (Fu et al. 2024, arXiv 2402.02057): Jacobi iteration as a source of
//! n-grams, and a branch that verifies them.
//!
//! The state is a window of W columns and N - 1 levels: the last N - 1 iterates of a Jacobi
//! iteration, the oldest at level 0. Column i of level l stands i + l positions after the last
//! settled token, which is column 0 of level 0:
//!
//! ```text
//! position    0   1   2   3   4          W = 4, N = 4
//! level 0     t   a1  a2  a3             causal: a2 sees t a1
//! level 1         b0  b1  b2  b3         b1 sees t a1, itself
//! level 2             c0  c1  c2  c3     c1 sees t a1 b1, itself
//! output                  d0  d1  d2 d3
//! ```
//!
//! Each column reads `a_i b_i c_i d_i`: an n-gram of N tokens, made by the model, of which W
//! enter the pool each forward under their first token. Then the levels move down by one, d
//! becomes the last level. The pool's latest G continuations of the last settled token are
//! verified in the same forward.
//!
//! Rows: `(W + G)(N - 1)`, less what coincides. Everything here is a tree below t: level 0 is
//! a chain, columns hang from it, guesses hang from t. So [`tree`](crate::tree) does the masks, merges
//! rows that see the same, and finds the longest right path; the window itself settles tokens
//! when its level 0 is right, which the paper leaves unused.
//!
//! Departures: when more than one token settles, the levels move down once for each, as
//! llama.cpp's example does, and the last level repeats the one before. The window starts
//! with tokens of the text by (seed, position). The pool also takes prompt and answer, which the
//! paper reports to help.

use crate::batch::Batch;
use crate::decoder::{Decoder, Verdict};
use crate::draft::Draft;
use crate::lm::{LmError, Output, Token};
use crate::ngram::NgramPool;
use crate::tree::Tree;

/// The three numbers of lookahead decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LookaheadOptions {
    /// W, columns of the window.
    pub w: usize,
    /// N, tokens of an n-gram; at least 2.
    pub n: usize,
    /// G, n-grams verified in a forward.
    pub g: usize,
}

impl Default for LookaheadOptions {
    /// The small setting of the paper for 7B models; W = G = 15 is its large one.
    fn default() -> Self {
        Self { w: 7, n: 5, g: 7 }
    }
}

/// The state of one decode.
#[derive(Debug, Clone)]
pub struct Lookahead {
    options: LookaheadOptions,
    seed: u64,
    pool: NgramPool,
    /// `levels[l][i]`, shape `(N - 1, W)`; empty before the first proposal.
    levels: Vec<Vec<Token>>,
    /// The node of each, `None` where there was no room for it.
    nodes: Vec<Vec<Option<usize>>>,
    tree: Tree,
}

impl Lookahead {
    /// A decoder. `seed` is for the window's first tokens.
    ///
    /// # Errors
    /// [`LmError::EmptyBlock`] for W = 0 or N below 2.
    pub fn new(options: LookaheadOptions, seed: u64) -> Result<Self, LmError> {
        if options.w == 0 || options.n < 2 {
            return Err(LmError::EmptyBlock);
        }
        let pool = NgramPool::new(1, options.n - 1, options.g);
        let (levels, nodes, tree) = (Vec::new(), Vec::new(), Tree::default());
        Ok(Self { options, seed, pool, levels, nodes, tree })
    }

    /// Moves the levels down by one, with `last` as the new last one.
    fn shift(&mut self, last: Vec<Token>) {
        self.levels.remove(0);
        self.levels.push(last);
    }
}

impl Decoder for Lookahead {
    fn begin(&mut self) {
        self.pool.clear();
        self.levels.clear();
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        let LookaheadOptions { w, n, g } = self.options;
        self.pool.read(text);
        if self.levels.is_empty() {
            let guess = |i| Draft::Context.guess(self.seed, text, &vec![0; i]);
            self.levels = (0..n - 1).map(|l| (l..l + w).map(guess).collect()).collect();
        }
        let last = text[text.len() - 1];
        self.levels[0][0] = last;
        self.tree.begin(last, room);

        // Guesses first: among equals the likelier chain is the observer's.
        if g > 0 {
            for guess in self.pool.continuations(text, &[]).take(g) {
                self.tree.chain(Tree::ROOT, guess.iter().copied());
            }
        }
        self.nodes.clear();
        let mut level: Vec<Option<usize>> = vec![Some(Tree::ROOT)];
        for &token in &self.levels[0][1..] {
            let before = level[level.len() - 1];
            level.push(before.and_then(|node| self.tree.child(node, token)));
        }
        self.nodes.push(level);
        for tokens in &self.levels[1..] {
            let above = &self.nodes[self.nodes.len() - 1];
            let below = above.iter().zip(tokens);
            let level = below.map(|(node, &token)| self.tree.child((*node)?, token)).collect();
            self.nodes.push(level);
        }
        self.tree.push(text.len(), sequence, batch);
    }

    fn absorb(&mut self, first_row: usize, _batch: &Batch, output: &Output) -> Verdict<'_> {
        self.tree.absorb(first_row, output);
        let last = self.nodes.len() - 1;
        // Where there was no room, the column stays as it is.
        let new: Vec<Token> = self.nodes[last]
            .iter()
            .zip(&self.levels[last])
            .map(|(node, &old)| node.map_or(old, |node| self.tree.output(node)))
            .collect();
        for (i, &token) in new.iter().enumerate() {
            let mut ngram: Vec<Token> = self.levels.iter().map(|level| level[i]).collect();
            ngram.push(token);
            self.pool.insert(&ngram[..1], &ngram[1..]);
        }
        self.shift(new);
        for _ in 1..self.tree.settled().len() {
            let repeated = self.levels[last].clone();
            self.shift(repeated);
        }
        self.tree.verdict()
    }
}
