//! Jacobi decoding with an n-gram pool: the window of [`Jacobi`](crate::Jacobi), refilled from
//! the pool, and beside it *candidates*, other continuations in the same forward.
//!
//! ```text
//! rows      t    g_1  g_2 ... g_{n-1}      the window, as in `jacobi`
//!           |
//!           +--  c_1  c_2 ..               candidates from the pool: each sees
//!           +--  d_1  d_2 ..               settled text, t and itself
//! ```
//!
//! A wrong g_1 wastes the whole window: its outputs are for another text. It is also the most
//! frequent failure, as g_1 is the output behind the last wrong guess. A candidate that
//! starts with the right token then settles as many tokens as it has right, for a few rows
//! (4 % to 5 % of a one-row forward each on a CPU). A window and candidates with a
//! common beginning share its rows; see [`tree`](crate::tree).
//!
//! Rows are never more than the answer has room for, so that [`Auto`](crate::Auto) can give it
//! any number: the window has the first n of them, candidates what is left.
//!
//! There are two pools: of the prompt and the answer, and of what each forward said along the
//! window, most of which comes to nothing: the rejection recycling of Jacobi Forcing (arXiv
//! 2512.14681). In one pool the many wrong ones would push out what the text has shown. Candidates
//! are taken from both in turn, text first. New guesses at the window's end are what the
//! text's pool knows, else the other's, else the draft's.
//!
//! Jacobi Forcing decodes block by block, with the next one in flight when 85 % of the current one
//! has settled: [`InFlight`]. By default the window slides instead: it is as wide as ever after
//! each forward, and its right part is that next block.

use crate::batch::Batch;
use crate::blocks::{Blocks, InFlight};
use crate::decoder::{Decoder, Verdict};
use crate::draft::Draft;
use crate::lm::{LmError, Output, Token};
use crate::ngram::NgramPool;
use crate::tree::Tree;

/// Continuations the pool keeps for a key, of which the latest are used.
const WIDTH: usize = 8;

/// What a [`JacobiPool`] may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolOptions {
    /// Rows of the window: the last settled token and n - 1 guesses.
    pub n: usize,
    /// Candidates beside the window, at most.
    pub candidates: usize,
    /// Tokens of a candidate.
    pub tokens: usize,
    /// The most tokens of a key in the pool.
    pub ngram: usize,
    /// Where guesses come from that the pool does not have.
    pub draft: Draft,
    /// Whether the window is made of blocks of n tokens.
    pub in_flight: InFlight,
}

impl Default for PoolOptions {
    fn default() -> Self {
        let (draft, in_flight) = (Draft::NGram, InFlight::default());
        Self { n: 16, candidates: 2, tokens: 4, ngram: 3, draft, in_flight }
    }
}

/// The state of one decode.
#[derive(Debug, Clone)]
pub struct JacobiPool {
    options: PoolOptions,
    seed: u64,
    /// Of prompt and answer.
    known: NgramPool,
    /// Of what forwards said.
    recycled: NgramPool,
    /// The window's guesses of the next iteration, as far as the last one gave them.
    carried: Vec<Token>,
    /// Of each of those, whether the window had it in the same place before.
    again: Vec<bool>,
    blocks: Blocks,
    /// The window's nodes, of the last proposal.
    window: Vec<usize>,
    tree: Tree,
    /// The last settled tokens and then what the window said: scratch.
    said: Vec<Token>,
    /// The end of the text, for keys of what is recycled.
    tail: Vec<Token>,
}

impl JacobiPool {
    /// A decoder. With n = 1 and no candidates it is autoregressive decoding. `seed` is for
    /// [`Draft::Context`].
    ///
    /// # Errors
    /// [`LmError::EmptyBlock`] for n = 0.
    pub fn new(options: PoolOptions, seed: u64) -> Result<Self, LmError> {
        if options.n == 0 {
            return Err(LmError::EmptyBlock);
        }
        let pool = NgramPool::new(options.ngram, options.tokens, WIDTH);
        let (carried, window, said, tail) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (known, recycled, tree) = (pool.clone(), pool, Tree::default());
        let (again, blocks) = (Vec::new(), Blocks::new(options.n, options.in_flight));
        Ok(Self {
            options,
            seed,
            known,
            recycled,
            carried,
            again,
            blocks,
            window,
            tree,
            said,
            tail,
        })
    }
}

impl Decoder for JacobiPool {
    fn begin(&mut self) {
        self.known.clear();
        self.recycled.clear();
        self.carried.clear();
        self.again.clear();
        self.blocks.begin();
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        let PoolOptions { candidates, tokens, ngram, draft, .. } = self.options;
        self.known.read(text);
        self.tail.clear();
        self.tail.extend_from_slice(&text[text.len().saturating_sub(ngram)..]);

        let guesses = self.blocks.rows(text.len(), &self.again).min(room) - 1;
        let mut window = std::mem::take(&mut self.carried);
        window.truncate(guesses);
        while window.len() < guesses {
            let mut pools = [&self.known, &self.recycled].into_iter();
            match pools.find_map(|pool| pool.continuations(text, &window).next()) {
                Some(found) => {
                    let missing = guesses - window.len();
                    window.extend_from_slice(&found[..found.len().min(missing)]);
                }
                None => window.push(draft.guess(self.seed, text, &window)),
            }
        }
        self.tree.begin(text[text.len() - 1], room);
        self.window.clear();
        self.window.push(Tree::ROOT);
        for &guess in &window {
            let node = self.tree.child(self.window[self.window.len() - 1], guess);
            self.window.push(node.expect("the window is within the room"));
        }
        self.carried = window;

        // A candidate is worth rows only where it leaves the window at once: the window has
        // had more iterations to get its later guesses right.
        let mut starts: Vec<Token> = self.carried.first().copied().into_iter().collect();
        let most = starts.len() + candidates;
        let mut known = self.known.continuations(text, &[]);
        let mut recycled = self.recycled.continuations(text, &[]);
        while starts.len() < most {
            let before = starts.len();
            let sources: [&mut dyn Iterator<Item = &[Token]>; 2] = [&mut known, &mut recycled];
            for mut source in sources {
                let other = |candidate: &&[Token]| !starts.contains(&candidate[0]);
                let new = Iterator::find(&mut source, other);
                if let Some(candidate) = new.filter(|_| starts.len() < most) {
                    starts.push(candidate[0]);
                    let rows = tokens.min(room.saturating_sub(self.tree.len()));
                    self.tree.chain(Tree::ROOT, candidate.iter().copied().take(rows));
                }
            }
            if starts.len() == before {
                break;
            }
        }
        self.tree.push(text.len(), sequence, batch);
    }

    fn absorb(&mut self, first_row: usize, _batch: &Batch, output: &Output) -> Verdict<'_> {
        self.tree.absorb(first_row, output);
        let settled = self.tree.settled().len();
        self.said.clear();
        self.said.extend_from_slice(&self.tail);
        self.said.extend(self.window.iter().map(|&node| self.tree.output(node)));
        self.recycled.insert_all(&self.said, self.tail.len().saturating_sub(1));

        // The Jacobi update: what was said behind the settled tokens, on the right path as far
        // as that goes, else by the window's row for the same position.
        let before = std::mem::take(&mut self.carried);
        let path = self.tree.said();
        self.carried.extend_from_slice(&path[settled..]);
        let window = &self.said[self.tail.len()..];
        self.carried.extend_from_slice(window.get(path.len()..).unwrap_or(&[]));
        // The guess for a place was `settled` further to the right.
        let places = self.carried.iter().enumerate();
        self.again.clear();
        self.again.extend(places.map(|(i, guess)| before.get(settled + i) == Some(guess)));
        self.tree.verdict()
    }
}
