//! A tree of guesses in one forward: what every decoder with branches verifies with.
//!
//! The root carries the last settled token; a node sees the settled text, its ancestors and
//! itself, so it is the row of one possible continuation. After the forward the right one is
//! a walk: the root's output is the next token, because the root has only settled text
//! before it; if a child carries that token, its output is the one after, and so on. Greedy
//! or sampled, a row's output is a function of what it sees, so nothing is ever accepted
//! that one token a forward would not give.
//!
//! Chains with a common beginning share its rows: two rows with the same token and the same
//! ancestors would give the same. A chain never gets deeper than the answer has room.

use std::ops::Range;

use crate::batch::{Batch, Row, Want};
use crate::decoder::Verdict;
use crate::lm::{Output, Token};

/// One guess.
#[derive(Debug, Clone)]
struct Node {
    token: Token,
    parent: usize,
    /// How many ancestors it has.
    depth: usize,
    /// Its first child and the next child of its parent, 0 for none.
    child: usize,
    sibling: usize,
}

/// The rows of one iteration. Node 0 is the root, and node i the i-th row.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: Vec<Node>,
    /// What the forward gave for each node.
    output: Vec<Token>,
    settled: Vec<Token>,
    keep: Vec<usize>,
    draft: Vec<Token>,
    said: Vec<Token>,
    /// Depth that nodes must stay below.
    room: usize,
}

impl Tree {
    /// The root's index.
    pub const ROOT: usize = 0;

    /// Starts a tree at `last`, the last settled token, for an answer that may get `room`
    /// more tokens.
    pub fn begin(&mut self, last: Token, room: usize) {
        self.nodes.clear();
        self.nodes.push(Node { token: last, parent: 0, depth: 0, child: 0, sibling: 0 });
        self.output.clear();
        self.room = room;
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has not even a root: before the first [`begin`](Self::begin).
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The child of `parent` with `token`, which is there or is added; `None` if a row there
    /// could only speak about tokens that the answer has no room for.
    pub fn child(&mut self, parent: usize, token: Token) -> Option<usize> {
        if let Some(found) = self.find(parent, token) {
            return Some(found);
        }
        let depth = self.nodes[parent].depth + 1;
        if depth >= self.room {
            return None;
        }
        let node = self.nodes.len();
        self.nodes.push(Node { token, parent, depth, child: 0, sibling: 0 });
        // At the end of the list: the first child is the first guess.
        match self.children(parent).last() {
            None => self.nodes[parent].child = node,
            Some(last) => self.nodes[last].sibling = node,
        }
        Some(node)
    }

    /// Adds `tokens` as a chain below `parent`, as far as there is room. Returns the last of
    /// its nodes.
    pub fn chain(&mut self, parent: usize, tokens: impl IntoIterator<Item = Token>) -> usize {
        let mut node = parent;
        for token in tokens {
            match self.child(node, token) {
                Some(child) => node = child,
                None => break,
            }
        }
        node
    }

    fn children(&self, parent: usize) -> impl Iterator<Item = usize> + '_ {
        let some = |node: usize| (node > 0).then_some(node);
        let first = some(self.nodes[parent].child);
        std::iter::successors(first, move |&node| some(self.nodes[node].sibling))
    }

    fn find(&self, parent: usize, token: Token) -> Option<usize> {
        self.children(parent).find(|&node| self.nodes[node].token == token)
    }

    /// Pushes the rows. `settled` is the number of settled tokens.
    pub fn push(&self, settled: usize, sequence: usize, batch: &mut Batch) {
        let prefix = settled - 1;
        let first_row = batch.len();
        let mut peers: Vec<Range<usize>> = Vec::new();
        for (i, node) in self.nodes.iter().enumerate() {
            peers.clear();
            let mut at = i;
            while at > 0 {
                at = self.nodes[at].parent;
                match peers.last_mut() {
                    Some(last) if last.start == first_row + at + 1 => last.start -= 1,
                    _ => peers.push(first_row + at..first_row + at + 1),
                }
            }
            peers.reverse();
            let (token, position) = (node.token, prefix + node.depth);
            let want = Want::Argmax;
            batch.push(Row { sequence, token, position, prefix, want, adapter: None }, &peers);
        }
    }

    /// Reads what the rows gave, the first of which is `first_row`, and finds the right path.
    pub fn absorb(&mut self, first_row: usize, output: &Output) {
        self.output.clear();
        self.output.extend((0..self.nodes.len()).map(|i| output.argmax(first_row + i)));
        for list in [&mut self.settled, &mut self.draft, &mut self.said] {
            list.clear();
        }
        self.keep.clear();
        let mut next = Some(Self::ROOT);
        let mut node = Self::ROOT;
        while let Some(right) = next {
            node = right;
            self.keep.push(node);
            self.settled.push(self.output[node]);
            next = self.find(node, self.output[node]);
        }
        // For the observer, the path and what follows it, each first guess.
        self.draft.extend(self.keep[1..].iter().map(|&i| self.nodes[i].token));
        self.said.extend_from_slice(&self.settled);
        while self.nodes[node].child > 0 {
            node = self.nodes[node].child;
            self.draft.push(self.nodes[node].token);
            self.said.push(self.output[node]);
        }
    }

    /// The tokens that have settled.
    pub fn settled(&self) -> &[Token] {
        &self.settled
    }

    /// What the rows of the right path said and then those below it, first guesses only: what
    /// stands behind the settled tokens is a guess at what comes next.
    pub fn said(&self) -> &[Token] {
        &self.said
    }

    /// What the forward said at a node.
    pub fn output(&self, node: usize) -> Token {
        self.output[node]
    }

    /// What [`Decoder::absorb`](crate::Decoder::absorb) returns.
    pub fn verdict(&self) -> Verdict<'_> {
        Verdict { settled: &self.settled, keep: &self.keep, draft: &self.draft, output: &self.said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_share_their_beginning_and_the_right_path_wins() {
        let mut tree = Tree::default();
        tree.begin(9, 4);
        tree.chain(Tree::ROOT, [1, 2, 3, 4, 5]);
        tree.chain(Tree::ROOT, [1, 7, 8]);
        tree.chain(Tree::ROOT, [6]);
        assert_eq!(tree.len(), 1 + 3 + 2 + 1, "three below the root is all there is room for");
        let mut batch = Batch::new();
        tree.push(11, 0, &mut batch);
        assert_eq!(batch.validate(&[10], 20, 14), Ok(()));
        assert_eq!(batch.tokens(5).collect::<Vec<_>>(), [9, 1, 7, 8]);
        assert_eq!(batch.peers(5), [0..2, 4..5]);
        assert_eq!(batch.rows()[5].position, 13);

        // 9 -> 1 -> 7 -> 0: the second chain was right but for its last token.
        let mut output = Output::new();
        output.reset(7, 20);
        for (row, token) in [1, 7, 4, 4, 0, 5, 3].into_iter().enumerate() {
            output.set_argmax(row, token);
        }
        tree.absorb(0, &output);
        let verdict = tree.verdict();
        assert_eq!((verdict.settled, verdict.keep), (&[1, 7, 0][..], &[0, 1, 4][..]));
        assert_eq!((verdict.draft, verdict.output), (&[1, 7, 8][..], &[1, 7, 0, 5][..]));
    }
}
