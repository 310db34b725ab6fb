//! The arithmetic of a transformer on a CPU: slices in, slices out.
//!
//! This crate knows no model, no tokenizer and no file format. It is the only one that
//! may say `unsafe`: SIMD dispatch, the thread pool and memory maps live here, each in
//! one small file with its argument.

pub mod mmap;
