//! One forward of a training step: rows, what each sees, and what each is scored against.
//!
//! Several texts travel in one row dimension. A **segment** is a run of rows that follow
//! each other in a text; it sees whole ranges of earlier rows and itself causally. This is
//! enough for all that is trained here:
//!
//! | segment | sees |
//! |---|---|
//! | prompt | nothing |
//! | clean answer | its prompt |
//! | noisy block b (Kou et al. 2024) | its prompt, the clean answer before block b |
//! | noisy block b (Jacobi Forcing, arXiv 2512.14681) | its prompt, the noisy blocks before b |
//! | second question on one long prompt | the shared part of the prompt |
//!
//! A batch is several examples one after another: no padding, and no second dimension.

use std::ops::Range;

use cllm_decode::Token;

/// A run of rows with one attention rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Rows of the segment.
    pub rows: Range<usize>,
    /// Earlier rows that every row of the segment sees: ascending, disjoint, non-empty, all
    /// before `rows.start`. Each row also sees the segment's own rows up to itself.
    pub sees: Vec<Range<usize>>,
}

/// A row scored against a token: cross-entropy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenTarget {
    /// The row whose next-token distribution is scored.
    pub row: usize,
    /// The token that should come next.
    pub token: Token,
    /// What the row's cross-entropy in nats is multiplied by in the loss.
    pub weight: f32,
}

/// A row scored against the distribution of another row of the same forward, whose
/// gradient is stopped: forward KL divergence at temperature 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowTarget {
    /// The row whose distribution is scored: of a noisy state.
    pub student: usize,
    /// The row whose distribution it should have: of the fixed point (global consistency) or
    /// of the next state (local consistency).
    pub teacher: usize,
    /// What the KL divergence in nats is multiplied by in the loss.
    pub weight: f32,
}

/// Rows of one forward with their targets. `T` is the number of rows.
///
/// The loss is the plain sum over targets of weight times nats: whoever packs a batch
/// divides by counts and multiplies by coefficients.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Packed {
    /// Token of each row, `(T,)`.
    pub tokens: Vec<Token>,
    /// Position in its text of each row, `(T,)`.
    pub positions: Vec<usize>,
    /// All rows, in order.
    pub segments: Vec<Segment>,
    /// Rows scored against tokens (AR loss, SFT).
    pub tokens_scored: Vec<TokenTarget>,
    /// Rows scored against rows (consistency loss).
    pub rows_scored: Vec<RowTarget>,
}

impl Packed {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Adds a segment of `tokens` at positions from `position` on, which sees `sees`.
    /// Returns its rows.
    pub fn push(
        &mut self,
        tokens: &[Token],
        position: usize,
        sees: &[Range<usize>],
    ) -> Range<usize> {
        let rows = self.len()..self.len() + tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(position..position + tokens.len());
        let sees = sees.iter().filter(|range| !range.is_empty()).cloned().collect();
        self.segments.push(Segment { rows: rows.clone(), sees });
        rows
    }

    /// Checks what the numerics rely on.
    ///
    /// # Errors
    /// The first broken rule, in words.
    pub fn validate(&self, vocab_size: usize) -> Result<(), String> {
        let t = self.len();
        if self.positions.len() != t {
            return Err(format!("{t} tokens but {} positions", self.positions.len()));
        }
        if let Some(row) = self.tokens.iter().position(|&token| token as usize >= vocab_size) {
            let token = self.tokens[row];
            return Err(format!("row {row}: token {token} of a vocabulary of {vocab_size}"));
        }
        let mut next = 0;
        for segment in &self.segments {
            if segment.rows.start != next || segment.rows.end < next {
                return Err(format!("segment {:?} where row {next} was expected", segment.rows));
            }
            let mut seen = 0;
            for range in &segment.sees {
                if range.start < seen || range.is_empty() || range.end > segment.rows.start {
                    return Err(format!("segment {:?} sees {:?}", segment.rows, segment.sees));
                }
                seen = range.end;
            }
            next = segment.rows.end;
        }
        if next != t {
            return Err(format!("segments end at row {next} of {t}"));
        }
        let weight_ok = |weight: f32| weight.is_finite() && weight >= 0.0;
        for target in &self.tokens_scored {
            if target.row >= t || target.token as usize >= vocab_size || !weight_ok(target.weight) {
                return Err(format!("{target:?} with {t} rows, vocabulary {vocab_size}"));
            }
        }
        for target in &self.rows_scored {
            if target.student >= t || target.teacher >= t || !weight_ok(target.weight) {
                return Err(format!("{target:?} with {t} rows"));
            }
        }
        Ok(())
    }
}
