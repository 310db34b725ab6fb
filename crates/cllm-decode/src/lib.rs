//! Decoding a causal language model several tokens a forward, exactly.
//!
//! This crate is the method and nothing else. It does no I/O, reads no clock and
//! keeps no global random state, so every decoder is a deterministic function of a
//! model, a prompt and a seed, and can be tested on fake models in milliseconds.
//!
//! The map:
//!
//! * [`lm`]: the seam to a model, [`CausalLm`]: rows in, logits or argmax out.
//! * [`batch`]: what one forward computes: rows, each with its own attention span.
//! * [`ar`]: autoregressive decoding, the oracle every decoder is held to.
//! * [`decoder`]: the seam to all other ways of decoding, [`Decoder`].
//! * [`jacobi`]: Jacobi decoding with a window that refills as tokens settle.
//! * [`jacobi_pool`]: the same with an n-gram pool and candidates beside the window, and with
//!   [`blocks`] in flight instead of a window that slides.
//! * [`lookahead`]: lookahead decoding. [`prompt_lookup`]: guesses from the text alone.
//!   [`draft_model`]: guesses of a smaller model. [`oracle`]: guesses of given quality.
//! * [`auto`]: as many guesses as pay, by a [`cost`] model.
//! * [`spec`]: decoders by name.
//! * [`tree`]: verifying a tree of guesses. [`ngram`]: a pool of them. [`history`]: earlier
//!   answers.
//! * [`draft`]: where the window's first guesses come from.
//! * [`stream`]: the driver: several sequences, each with its decoder, one forward.
//! * [`sequence`]: a KV cache with the tokens it holds, so that a chat re-uses its history.
//! * [`request`]: what to decode and when to stop; what came out.
//! * [`sampling`]: temperature, filters, penalties: as a function of a row, so that it
//!   changes nothing for a decoder.
//! * [`observe`]: watching a decode: tokens as they settle, iterations as they run.
//! * [`trajectory`]: the states of a block on its way to the fixed point.
//! * [`collect`]: trajectories of many prompts in wide forwards; [`naive`] the definition.
//! * [`fixed_point`]: the mathematics on its own: Jacobi and Gauss-Seidel iteration
//!   on triangular systems (Song et al. 2021).
//! * [`fake`]: small deterministic models that punish mistakes, for tests.
//!
//! The whole of it, on a model that says the token four back:
//!
//! ```
//! use cllm_decode::fake::{Fake, Kind};
//! use cllm_decode::{CausalLm, DEFAULT_PREFILL_CHUNK, Draft, Jacobi, Request, Sequence};
//! use cllm_decode::{ar, stream};
//!
//! # fn main() -> Result<(), cllm_decode::LmError> {
//! let mut lm = Fake::new(Kind::Copy(4), 10, 100);
//! let request = Request { prompt: vec![3, 8, 5, 4], max_new_tokens: 25, ..Request::default() };
//!
//! let mut sequence = Sequence::new(lm.new_cache());
//! let slow = ar::generate(&mut lm, &mut sequence, &request, &mut (), DEFAULT_PREFILL_CHUNK)?;
//!
//! let mut sequence = Sequence::new(lm.new_cache());
//! let mut jacobi = Jacobi::new(8, Draft::NGram, 0)?;
//! let chunk = DEFAULT_PREFILL_CHUNK;
//! let fast = stream::generate(&mut lm, &mut sequence, &mut jacobi, &request, &mut (), chunk)?;
//!
//! assert_eq!(fast.tokens, slow.tokens);
//! assert_eq!((slow.stats.decode_forwards, fast.stats.decode_forwards), (24, 3));
//! # Ok(())
//! # }
//! ```

pub mod ar;
pub mod auto;
pub mod batch;
pub mod blocks;
pub mod collect;
pub mod cost;
pub mod counter;
pub mod decoder;
pub mod draft;
pub mod draft_model;
pub mod fake;
pub mod fixed_point;
pub mod history;
pub mod jacobi;
pub mod jacobi_pool;
pub mod lm;
pub mod lookahead;
pub mod naive;
pub mod ngram;
pub mod observe;
pub mod oracle;
pub mod prompt_lookup;
pub mod request;
pub mod sampling;
pub mod sequence;
pub mod spec;
pub mod stream;
pub mod trajectory;
pub mod tree;
pub mod window;

pub use auto::Auto;
pub use batch::{AdapterId, Batch, Row, Want};
pub use blocks::InFlight;
pub use cost::CostModel;
pub use decoder::{Decoder, Verdict};
pub use draft::Draft;
pub use draft_model::DraftModel;
pub use history::History;
pub use jacobi::Jacobi;
pub use jacobi_pool::{JacobiPool, PoolOptions};
pub use lm::{CausalLm, KvCache, LmError, Output, Token};
pub use lookahead::{Lookahead, LookaheadOptions};
pub use observe::{Iteration, Observer, Phase, RecordedIteration, Recorder};
pub use oracle::Oracle;
pub use prompt_lookup::PromptLookup;
pub use request::{Answer, Finish, Request, Stats};
pub use sampling::{Logprobs, Sampler, Sampling};
pub use sequence::Sequence;
pub use spec::{DecoderList, DecoderSpec};
pub use stream::{DEFAULT_PREFILL_CHUNK, Driver, Stream};
