//! What a scored row weighs in its optimizer step.
//!
//! The loss of a step is `w_c * mean KL + w_ar * mean cross-entropy`, each mean over the
//! scored rows of all its forwards together: a token counts the same in a long example and
//! in a short one, and accumulating over two forwards is the same as one forward of both.

use crate::packed::Packed;

/// Coefficients of the two losses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficients {
    /// Of the mean KL divergence of noisy rows.
    pub consistency: f64,
    /// Of the mean cross-entropy of answer tokens.
    pub ar: f64,
}

/// Gives every target of a step its weight.
pub fn weigh(forwards: &mut [Packed], coefficients: Coefficients) {
    let rows: usize = forwards.iter().map(|forward| forward.rows_scored.len()).sum();
    let tokens: usize = forwards.iter().map(|forward| forward.tokens_scored.len()).sum();
    let share = |coefficient: f64, count: usize| (coefficient / count.max(1) as f64) as f32;
    let (of_row, of_token) =
        (share(coefficients.consistency, rows), share(coefficients.ar, tokens));
    for forward in forwards {
        forward.rows_scored.iter_mut().for_each(|target| target.weight = of_row);
        forward.tokens_scored.iter_mut().for_each(|target| target.weight = of_token);
    }
}
