//! The mathematics on its own: fixed-point iteration on triangular systems.
//!
//! Song et al. 2021, "Accelerating Feedforward Computation via Parallel Nonlinear Equation
//! Solving" (arXiv 2002.03629): a feed-forward computation, an autoregressive answer
//! among them, is a triangular system
//!
//! ```text
//! x_i = f_i(x_0, .., x_{i-1}),   i = 0 .. n-1
//! ```
//!
//! Its solution is unique, and any order of substitution that goes on long enough finds
//! it, in at most n rounds. The orders differ in how much can be done at once:
//!
//! | schedule | a round | rounds at most |
//! |---|---|---|
//! | Jacobi | all unknowns at once, from the last state | n |
//! | Gauss-Seidel | the next unknown, from the ones just computed | n |
//! | GS-Jacobi | blocks in turn, Jacobi inside the current one | n |
//! | Jacobi-GS | all blocks at once, Gauss-Seidel inside each | number of blocks |
//!
//! Autoregressive decoding is Gauss-Seidel. The block decoding of consistency LLMs is
//! GS-Jacobi with blocks of n; [`jacobi`](crate::jacobi) lets the block slide along with
//! what has settled instead of jumping when all of it has.
//!
//! Where we depart from the paper: it stops at a tolerance, we stop when the solution is
//! proven, and spend nothing to confirm it. Equation i gives the solution's x_i as soon as
//! everything it read was the solution's. So after a round, the settled unknowns grow by
//! one and by as many more as the round found unchanged right behind them. Values are
//! compared with `==`; as `f` is deterministic that is exact for floats too, and a NaN,
//! equal to nothing, costs rounds but not the end.

use std::num::NonZeroUsize;
use std::ops::Range;

/// The functions of a triangular system.
pub trait TriangularSystem {
    /// What the unknowns are.
    type Value: Clone + PartialEq;

    /// `f_i(x_0, .., x_{i-1})` with `i = before.len()`. That it is handed no more makes the
    /// system triangular.
    fn evaluate(&self, before: &[Self::Value]) -> Self::Value;
}

/// The order of substitution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// All unknowns from the last state.
    Jacobi,
    /// One after another.
    GaussSeidel,
    /// Blocks of this many unknowns in turn, Jacobi inside.
    GsJacobi {
        /// Unknowns in a block.
        block: NonZeroUsize,
    },
    /// This many blocks at once, Gauss-Seidel inside.
    JacobiGs {
        /// Number of blocks.
        blocks: NonZeroUsize,
    },
}

/// A solved system and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution<V> {
    /// The solution.
    pub x: Vec<V>,
    /// Rounds, as in the table above.
    pub iterations: usize,
    /// Evaluations of some `f_i`, the total work.
    pub evaluations: usize,
    /// Evaluations that had to wait for one another: the time with a processor for each
    /// unknown. Equal to `iterations` but for Jacobi-GS.
    pub depth: usize,
}

/// Solves `system` for `initial.len()` unknowns, from that state.
pub fn solve<S: TriangularSystem>(
    system: &S,
    initial: Vec<S::Value>,
    schedule: Schedule,
) -> Solution<S::Value> {
    let n = initial.len();
    let mut solution = Solution { x: initial, iterations: 0, evaluations: 0, depth: 0 };
    match schedule {
        Schedule::Jacobi => rounds(system, &mut solution, 0..n, 1),
        Schedule::GaussSeidel => blocks_in_turn(system, &mut solution, 1),
        Schedule::GsJacobi { block } => blocks_in_turn(system, &mut solution, block.get()),
        Schedule::JacobiGs { blocks } => {
            rounds(system, &mut solution, 0..n, n.div_ceil(blocks.get()).max(1));
        }
    }
    solution
}

/// Gauss-Seidel over blocks of `block` unknowns, Jacobi inside each.
fn blocks_in_turn<S: TriangularSystem>(
    system: &S,
    solution: &mut Solution<S::Value>,
    block: usize,
) {
    let n = solution.x.len();
    for start in (0..n).step_by(block) {
        rounds(system, solution, start..n.min(start.saturating_add(block)), 1);
    }
}

/// Jacobi over the pieces of `width` unknowns that make up `range`, Gauss-Seidel inside
/// each. All unknowns before `range` are settled.
fn rounds<S: TriangularSystem>(
    system: &S,
    solution: &mut Solution<S::Value>,
    range: Range<usize>,
    width: usize,
) {
    let mut settled = range.start;
    while settled < range.end {
        let last = solution.x.clone();
        let pieces = (settled..range.end).step_by(width);
        for start in pieces.clone() {
            // What a piece reads: the last state before it, its own new values inside.
            let mut before = last[..start].to_vec();
            for _ in start..range.end.min(start + width) {
                let value = system.evaluate(&before);
                before.push(value);
                solution.evaluations += 1;
            }
            solution.x.splice(start..before.len(), before.drain(start..));
        }
        solution.iterations += 1;
        solution.depth += width.min(range.end - settled);
        // The first piece read settled values only, so it has settled. The next one has
        // if the piece before it had not changed, and so on.
        let unchanged = pieces
            .map(|start| start..range.end.min(start + width))
            .take_while(|piece| solution.x[piece.clone()] == last[piece.clone()])
            .count();
        settled = range.end.min(settled + (unchanged + 1) * width);
    }
}
