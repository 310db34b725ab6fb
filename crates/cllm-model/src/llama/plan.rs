//! From the rows of a batch to slots of caches.
//!
//! A batch names what a row sees by cache prefix and earlier rows; attention wants ranges
//! of slots. The pending rows of a sequence lie behind its settled entries in the order
//! they have in the batch, so a range of peers is a range of slots.

use std::ops::Range;

use cllm_decode::Batch;

/// Where each row's key and value go, and which slots each row sees.
#[derive(Debug, Default)]
pub(super) struct Plan {
    slots: Vec<usize>,
    /// One per distinct attention window among the layers.
    views: Vec<View>,
}

/// The spans of all rows under one attention window.
#[derive(Debug, Default)]
struct View {
    window: Option<usize>,
    spans: Vec<Range<usize>>,
    /// `spans[ends[i - 1]..ends[i]]` are the slots of row i.
    ends: Vec<usize>,
}

impl Plan {
    /// Plans a validated batch. `cached` holds the cache length of each sequence,
    /// `windows` the attention window of each layer.
    pub(super) fn new(batch: &Batch, cached: &[usize], windows: &[Option<usize>]) -> Self {
        let mut next = cached.to_vec();
        let slots: Vec<usize> = batch
            .rows()
            .iter()
            .map(|row| {
                let slot = next[row.sequence];
                next[row.sequence] += 1;
                slot
            })
            .collect();
        let mut views: Vec<View> = Vec::new();
        for &window in windows {
            if views.iter().all(|view| view.window != window) {
                views.push(View::new(batch, &slots, window));
            }
        }
        Self { slots, views }
    }

    /// The slot of each row in its sequence's cache.
    pub(super) fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// The slots that row `i` sees in a layer with this window, in logical order.
    pub(super) fn span(&self, i: usize, window: Option<usize>) -> &[Range<usize>] {
        let view = self.views.iter().find(|view| view.window == window);
        let view = view.expect("every window of the layers was planned");
        let start = if i == 0 { 0 } else { view.ends[i - 1] };
        &view.spans[start..view.ends[i]]
    }
}

impl View {
    fn new(batch: &Batch, slots: &[usize], window: Option<usize>) -> Self {
        let mut view = Self { window, ..Self::default() };
        for (i, row) in batch.rows().iter().enumerate() {
            let first = view.spans.len();
            // A key is in the window if `row.position - key.position < window`.
            let oldest = window.map_or(0, |w| (row.position + 1).saturating_sub(w));
            view.extend(first, oldest.min(row.prefix)..row.prefix);
            for peers in batch.peers(i) {
                let seen = |&peer: &usize| batch.rows()[peer].position >= oldest;
                for peer in peers.clone().filter(seen) {
                    view.extend(first, slots[peer]..slots[peer] + 1);
                }
            }
            view.extend(first, slots[i]..slots[i] + 1);
            view.ends.push(view.spans.len());
        }
        view
    }

    /// Appends slots to the row whose spans begin at `first`, joining adjacent ranges.
    fn extend(&mut self, first: usize, slots: Range<usize>) {
        if slots.is_empty() {
            return;
        }
        match self.spans[first..].last_mut() {
            Some(last) if last.end == slots.start => last.end = slots.end,
            _ => self.spans.push(slots),
        }
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "spans of one range are what is tested")]
mod tests {
    use super::*;
    use cllm_decode::{Row, Want};

    fn row(sequence: usize, position: usize, prefix: usize) -> Row {
        Row { sequence, token: 0, position, prefix, want: Want::Nothing, adapter: None }
    }

    #[test]
    fn a_causal_block_sees_one_range() {
        let mut batch = Batch::new();
        batch.push_causal(0, 5, [0; 3], |_| Want::Argmax);
        let plan = Plan::new(&batch, &[5], &[None]);
        assert_eq!(plan.slots(), [5, 6, 7]);
        for i in 0..3 {
            assert_eq!(plan.span(i, None), [0..6 + i]);
        }
    }

    #[test]
    fn sequences_interleave_and_prefixes_may_be_shorter_than_the_cache() {
        let mut batch = Batch::new();
        batch.push(row(0, 4, 4), &[]);
        batch.push(row(1, 2, 2), &[]);
        batch.push(row(0, 5, 3), &[0..1]);
        let plan = Plan::new(&batch, &[4, 2], &[None]);
        assert_eq!(plan.slots(), [4, 2, 5]);
        assert_eq!(plan.span(0, None), [0..5]);
        assert_eq!(plan.span(1, None), [0..3]);
        assert_eq!(plan.span(2, None), [0..3, 4..6]);
    }

    #[test]
    fn a_window_hides_old_keys_wherever_they_are() {
        let mut batch = Batch::new();
        batch.push_causal(0, 4, [0; 4], |_| Want::Nothing);
        let plan = Plan::new(&batch, &[4], &[Some(3), None, Some(3)]);
        assert_eq!(plan.span(0, Some(3)), [2..5]);
        assert_eq!(plan.span(3, Some(3)), [5..8]);
        assert_eq!(plan.span(3, None), [0..8]);
    }
}
