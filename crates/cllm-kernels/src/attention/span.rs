//! What the spans of neighbouring rows have in common.
//!
//! The rows of a block see nearly the same keys: one long range, often with a few keys of
//! their own around it. Only the long range pays for being shared.

use std::ops::Range;

/// Which side of the common range a piece of a span lies on, in logical order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// A span seen as its longest range and the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span<'a> {
    ranges: &'a [Range<usize>],
    /// The index of the longest range, the first among equals.
    pivot: usize,
}

impl<'a> Span<'a> {
    pub(super) fn new(ranges: &'a [Range<usize>]) -> Self {
        let mut pivot = 0;
        for (i, range) in ranges.iter().enumerate() {
            if range.len() > ranges[pivot].len() {
                pivot = i;
            }
        }
        Self { ranges, pivot }
    }

    /// Keys in the span.
    pub(super) fn len(self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// The longest range.
    pub(super) fn longest(self) -> Range<usize> {
        self.ranges.get(self.pivot).cloned().unwrap_or(0..0)
    }

    /// The logical index of the first key of the longest range.
    pub(super) fn start(self) -> usize {
        self.ranges[..self.pivot].iter().map(Range::len).sum()
    }

    /// Calls `visit(side, slots, logical index of the first)` for every part of the span
    /// outside `inner`, which must be a part of the longest range, or be empty.
    pub(super) fn around(
        self,
        inner: &Range<usize>,
        mut visit: impl FnMut(Side, Range<usize>, usize),
    ) {
        let mut logical = 0;
        let mut emit = |side, slots: Range<usize>, logical| {
            if !slots.is_empty() {
                visit(side, slots, logical);
            }
        };
        for (i, range) in self.ranges.iter().enumerate() {
            if i == self.pivot && !inner.is_empty() {
                emit(Side::Before, range.start..inner.start, logical);
                emit(Side::After, inner.end..range.end, logical + inner.end - range.start);
            } else {
                let side = if i <= self.pivot { Side::Before } else { Side::After };
                emit(side, range.clone(), logical);
            }
            logical += range.len();
        }
    }
}

/// The slots that are in the longest range of every span; empty if there are none.
pub(super) fn common<'a>(mut spans: impl Iterator<Item = Span<'a>>) -> Range<usize> {
    let first = spans.next().map_or(0..0, Span::longest);
    let both = spans.map(Span::longest).fold(first, |a, b| a.start.max(b.start)..a.end.min(b.end));
    if both.is_empty() { 0..0 } else { both }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_around_the_common_range_come_in_logical_order() {
        let (a, b) = ([2..4, 10..30, 40..41], [12..35, 0..1]);
        let (a, b) = (Span::new(&a), Span::new(&b));
        let inner = common([a, b].into_iter());
        assert_eq!((inner.clone(), a.start(), b.start(), a.len()), (12..30, 2, 0, 23));
        let parts = |span: Span<'_>, inner: &Range<usize>| {
            let mut parts = Vec::new();
            span.around(inner, |side, slots, logical| parts.push((side, slots, logical)));
            parts
        };
        let (before, after) = (Side::Before, Side::After);
        assert_eq!(parts(a, &inner), [(before, 2..4, 0), (before, 10..12, 2), (after, 40..41, 22)]);
        assert_eq!(parts(b, &inner), [(after, 30..35, 18), (after, 0..1, 23)]);
        assert_eq!(
            parts(a, &(0..0)),
            [(before, 2..4, 0), (before, 10..30, 2), (after, 40..41, 22)]
        );
    }

    #[test]
    fn disjoint_and_empty_spans_have_nothing_in_common() {
        let (a, b) = ([0..4, 9..9], [4..6, 0..1]);
        assert_eq!(common([Span::new(&a), Span::new(&b)].into_iter()), 0..0);
        assert_eq!(common([Span::new(&a), Span::new(&[])].into_iter()), 0..0);
        assert_eq!(common(std::iter::empty()), 0..0);
    }
}
