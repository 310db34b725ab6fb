//! The stopwatch: forwards of chosen shapes on a cache that is filled once.

use std::time::{Duration, Instant};

use cllm_decode::{Batch, CausalLm, DEFAULT_PREFILL_CHUNK, KvCache, LmError, Output, Token, Want};

/// What is the same in every forward of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Tokens in each sequence's cache.
    pub(crate) context: usize,
    /// Sequences that travel together.
    pub(crate) sequences: usize,
    /// Whether every row asks for the argmax, or only the last of each sequence.
    pub(crate) all_rows: bool,
}

/// A model with its caches filled, ready to be timed again and again.
pub(crate) struct Bench<'a, L: CausalLm> {
    lm: &'a mut L,
    shape: Shape,
    caches: Vec<L::Cache>,
    batch: Batch,
    output: Output,
}

impl<'a, L: CausalLm> Bench<'a, L> {
    /// Fills the caches.
    pub(crate) fn new(lm: &'a mut L, shape: Shape) -> Result<Self, LmError> {
        let vocab = lm.vocab_size();
        let (mut batch, mut output) = (Batch::new(), Output::new());
        let mut caches = Vec::with_capacity(shape.sequences);
        for sequence in 0..shape.sequences {
            let mut cache = lm.new_cache();
            while cache.len() < shape.context {
                let read = cache.len();
                let chunk = (shape.context - read).min(DEFAULT_PREFILL_CHUNK);
                let tokens = (read..read + chunk).map(|i| token(sequence, i, vocab));
                batch.clear();
                batch.push_causal(0, read, tokens, |_| Want::Nothing);
                lm.forward(&batch, &mut [&mut cache], &mut output)?;
                cache.keep(&(0..chunk).collect::<Vec<_>>());
            }
            caches.push(cache);
        }
        Ok(Self { lm, shape, caches, batch, output })
    }

    /// The time of one forward of `rows` rows in every sequence. The caches are then as
    /// before.
    pub(crate) fn time(&mut self, rows: usize) -> Result<Duration, LmError> {
        let Shape { context, sequences, all_rows } = self.shape;
        let vocab = self.lm.vocab_size();
        let want = |row| if all_rows || row + 1 == rows { Want::Argmax } else { Want::Nothing };
        self.batch.clear();
        for sequence in 0..sequences {
            let tokens = (context..context + rows).map(|i| token(sequence, i, vocab));
            self.batch.push_causal(sequence, context, tokens, want);
        }
        let mut caches: Vec<_> = self.caches.iter_mut().collect();
        let started = Instant::now();
        self.lm.forward(&self.batch, &mut caches, &mut self.output)?;
        let time = started.elapsed();
        caches.into_iter().for_each(|cache| cache.truncate(context));
        Ok(time)
    }
}

/// Which tokens they are does not matter to the time; these spread over the vocabulary.
fn token(sequence: usize, position: usize, vocab: usize) -> Token {
    (position.wrapping_mul(7919).wrapping_add(sequence.wrapping_mul(104_729)) % vocab) as Token
}

/// Times every row count of every model `repeat` times, as `times[model][row count]`. All
/// take turns, so that a machine that slows down slows all of them; one round before the
/// first is not counted.
pub(crate) fn measure<L: CausalLm>(
    benches: &mut [Bench<'_, L>],
    rows: &[usize],
    repeat: usize,
) -> Result<Vec<Vec<Vec<Duration>>>, LmError> {
    let mut times = vec![vec![Vec::with_capacity(repeat); rows.len()]; benches.len()];
    for round in 0..=repeat {
        for (bench, times) in benches.iter_mut().zip(&mut times) {
            for (&n, times) in rows.iter().zip(times) {
                let time = bench.time(n)?;
                if round > 0 {
                    times.push(time);
                }
            }
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use cllm_decode::fake::{Fake, Kind};

    use super::*;

    fn shape(context: usize, sequences: usize) -> Shape {
        Shape { context, sequences, all_rows: true }
    }

    #[test]
    fn every_model_and_row_count_is_measured_on_full_caches() {
        let fake = || Fake::new(Kind::ContextHash(3), 97, 1200);
        let mut lms = [fake(), fake()];
        let mut benches: Vec<_> =
            lms.iter_mut().map(|lm| Bench::new(lm, shape(1100, 2)).unwrap()).collect();
        let times = measure(&mut benches, &[1, 4, 100], 3).unwrap();
        assert_eq!(times.len(), 2);
        assert!(times.iter().all(|model| model.iter().map(Vec::len).eq([3, 3, 3])));
        drop(benches);
        let prefill = 2 * 1100usize.div_ceil(DEFAULT_PREFILL_CHUNK);
        for lm in &lms {
            assert_eq!(lm.forwards, prefill + 4 * 3, "prefill and one uncounted round");
        }
    }

    #[test]
    fn the_context_is_the_limit() {
        let mut lm = Fake::new(Kind::ContextHash(3), 97, 1200);
        let mut bench = Bench::new(&mut lm, shape(1101, 1)).unwrap();
        assert!(bench.time(99).is_ok());
        assert!(matches!(bench.time(100), Err(LmError::ContextFull { .. })));
    }

    #[test]
    fn the_rows_asked_are_the_rows_answered() {
        let mut lm = Fake::new(Kind::ContextHash(3), 97, 64);
        let last = Shape { context: 8, sequences: 2, all_rows: false };
        let mut bench = Bench::new(&mut lm, last).unwrap();
        bench.time(3).unwrap();
        let wants: Vec<_> = bench.batch.rows().iter().map(|row| row.want == Want::Argmax).collect();
        assert_eq!(wants, [false, false, true, false, false, true]);
    }
}
