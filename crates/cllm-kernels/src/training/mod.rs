//! What a training step needs beyond a forward: products of two changing matrices,
//! attention over segments with its gradient, and the gradients of the elementwise parts.
//!
//! Nothing here is row-invariant: decoding never comes this way.

pub mod attention;
pub mod elementwise;
pub mod matmul;

pub use attention::{Heads, Segment, attend, attend_backward};
pub use matmul::{Matrix, matmul};
