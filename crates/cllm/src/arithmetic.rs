//! How fast this machine multiplies: the ceiling of a forward of many rows.
//!
//! Measured through the engine's own kernels, so it says what a layer reaches when it
//! waits for nothing else, not what a data sheet promises: a layer that stays in the
//! second-level cache is applied to full tiles of rows again and again, and the best time
//! counts. A kernel that becomes faster raises this ceiling with it.

use std::time::{Duration, Instant};

use cllm_kernels::{Activations, Format, Isa, Linear, Pool, Rows};
use serde::Serialize;

/// Inputs of the layer: a tile of twelve rows stays in the first-level cache, in f32 too.
const INPUTS: usize = 512;
/// Outputs for each thread: 256 KiB of weights in f32, a quarter of that in eight bits.
const OUTPUTS: usize = 128;
/// Eight tiles of twelve rows, the most that pass over the weights together.
const ROWS: usize = 96;
/// How long to measure, all formats together.
const TIME: Duration = Duration::from_millis(240);

/// Multiplications and additions a second with all threads, by what the weights are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Arithmetic {
    /// Eight-bit weights times eight-bit activations; four-bit weights become eight bits
    /// on their way.
    pub(crate) integers: f64,
    /// bf16 times bf16, added up in f32.
    pub(crate) bf16: f64,
    /// f32.
    pub(crate) f32: f64,
}

impl Arithmetic {
    /// Measures with `threads` threads.
    pub(crate) fn measure(isa: Isa, threads: usize) -> std::io::Result<Self> {
        Ok(Self::measure_for(isa, &mut Pool::new(threads.max(1))?, TIME))
    }

    fn measure_for(isa: Isa, pool: &mut Pool, time: Duration) -> Self {
        let formats = [Format::W8, Format::Bf16, Format::F32];
        let mut trials = formats.map(|format| Trial::new(isa, pool, format));
        let started = Instant::now();
        // In turns, so that a neighbour on the machine does not spoil one format alone. At
        // least twice: the first time fetches the layer.
        for round in 0.. {
            trials.iter_mut().for_each(|trial| trial.run(isa, pool));
            if round > 0 && started.elapsed() >= time {
                break;
            }
        }
        let [integers, bf16, f32] = trials.map(|trial| trial.speed());
        Self { integers, bf16, f32 }
    }

    /// The peak of a model with matrices in these formats: that of the fastest, so that
    /// the time it allows is one nothing can beat.
    pub(crate) fn peak(self, formats: &[Format]) -> f64 {
        let of = |format: &Format| match format {
            Format::W4 | Format::W8 => self.integers,
            Format::Bf16 => self.bf16,
            Format::F32 => self.f32,
        };
        formats.iter().map(of).fold(0.0, f64::max)
    }

    /// The larger of two measurements, format by format: noise only ever slows down.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            integers: self.integers.max(other.integers),
            bf16: self.bf16.max(other.bf16),
            f32: self.f32.max(other.f32),
        }
    }

    /// In units of 10^9.
    pub(crate) fn giga(self) -> Self {
        let Self { integers, bf16, f32 } = self;
        Self { integers: integers / 1e9, bf16: bf16 / 1e9, f32: f32 / 1e9 }
    }
}

/// A layer of one format and its fastest application so far.
struct Trial {
    layer: Linear,
    x: Activations,
    out: Vec<f32>,
    best: Duration,
}

impl Trial {
    fn new(isa: Isa, pool: &mut Pool, format: Format) -> Self {
        let outputs = OUTPUTS * pool.threads();
        // Anything but zeros, which a processor multiplies with less power.
        let weights: Vec<f32> = (0..outputs * INPUTS).map(|i| (i % 251) as f32 - 125.0).collect();
        let layer = Linear::from_f32(outputs, INPUTS, &weights, format);
        let mut x = Activations::default();
        x.fill(isa, pool, format, Rows::all(&weights[..INPUTS], INPUTS).only(&[0; ROWS]));
        Self { layer, x, out: vec![0.0; ROWS * outputs], best: Duration::MAX }
    }

    fn run(&mut self, isa: Isa, pool: &mut Pool) {
        let started = Instant::now();
        self.layer.apply(isa, pool, &self.x, &mut self.out);
        self.best = self.best.min(started.elapsed());
    }

    /// Multiplications and additions a second.
    fn speed(&self) -> f64 {
        let operations = 2 * self.out.len() * INPUTS;
        operations as f64 / self.best.max(Duration::from_nanos(1)).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_speed() {
        let isa = Isa::detect().unwrap();
        let mut pool = Pool::new(2).unwrap();
        let Arithmetic { integers, bf16, f32 } =
            Arithmetic::measure_for(isa, &mut pool, Duration::ZERO);
        assert!([integers, bf16, f32].iter().all(|speed| speed.is_finite() && *speed > 0.0));
    }

    #[test]
    fn mixed_formats_have_the_peak_of_the_fastest() {
        let arithmetic = Arithmetic { integers: 4e9, bf16: 2e9, f32: 1e9 };
        assert_eq!(arithmetic.peak(&[Format::F32]), 1e9);
        assert_eq!(arithmetic.peak(&[Format::Bf16, Format::F32]), 2e9);
        assert_eq!(arithmetic.peak(&[Format::W4, Format::W8]), 4e9);
        assert_eq!(arithmetic.peak(&[Format::F32, Format::W8]), 4e9);
        let other = Arithmetic { integers: 1e9, bf16: 3e9, f32: 1e9 };
        let expected = Arithmetic { integers: 4.0, bf16: 3.0, f32: 1.0 };
        assert_eq!(arithmetic.max(other).giga(), expected);
    }
}
