//! The arithmetic of a transformer on a CPU: slices in, slices out.
//!
//! This crate knows no model, no tokenizer and no file format. It is the only one that
//! may say `unsafe`: SIMD dispatch, the thread pool and memory maps live here, each in
//! one small file with its argument.
//!
//! Two rules hold for every function:
//!
//! * **Row invariance.** The floating-point operations that make a row's result, and
//!   their order, depend on that row alone. Sums over a long axis use sixteen partial
//!   sums, element i going to sum i mod 16, added by a fixed tree ([`lanes`]).
//! * **The same bits on every instruction set.** One body of Rust is compiled for each
//!   ([`isa`]); multiply-adds are written as `mul_add`, and `exp` is our own ([`math`]).
//!
//! The map: [`isa`] and [`pool`] are the machine; [`linear`], [`norm`], [`rope`],
//! [`mod@attention`] (over keys and values held by [`kv`]) and [`activation`] are the
//! layers; [`mmap`] maps weight files.

pub mod activation;
pub mod activations;
pub mod attention;
pub mod coming;
pub mod heads;
pub mod isa;
pub mod kv;
pub mod lanes;
pub mod linear;
pub mod math;
mod memory;
pub mod mmap;
pub mod norm;
pub mod pool;
pub mod rope;
mod shared;
mod simd;
pub mod training;

pub use activations::{Activations, Rows};
pub use attention::{HeadShape, Query, attention};
pub use coming::Coming;
pub use isa::Isa;
pub use kv::{KvFormat, KvStore};
pub use linear::{Best, Format, Integers, Linear, Source, SwiGlu};
pub use pool::Pool;
pub use rope::RopeTable;
