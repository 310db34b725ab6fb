//! Filling a layer: from floats, or from the integers of a file.

use half::f16;

use super::panel::{self, PANEL, Panels};
use super::{Format, Linear};
use crate::activations::GROUP;
use crate::pool::Pool;

/// The integer weights of one output as a file stores them: `w = q * scale + minimum` in
/// groups of 32.
#[derive(Debug)]
pub struct Integers<'a> {
    /// 0 to 15 for [`Format::W4`], 0 to 255 for [`Format::W8`]; shape `(K,)`.
    pub values: &'a mut [u8],
    /// Shape `(K / 32,)`.
    pub scales: &'a mut [f16],
    /// Shape `(K / 32,)`.
    pub minima: &'a mut [f16],
}

/// Where the weights of a layer come from; called from several threads.
pub enum Source<'a> {
    /// Writes the weights of the output with this index, shape `(K,)`.
    Float(&'a (dyn Fn(usize, &mut [f32]) + Sync)),
    /// The same, but eight bits are rounded between the extremes of a group, not around zero:
    /// finer steps, for which minima are kept.
    Fine(&'a (dyn Fn(usize, &mut [f32]) + Sync)),
    /// Writes the integers of the output with this index; for [`Format::W8`] and
    /// [`Format::W4`].
    Integers(&'a (dyn Fn(usize, Integers<'_>) + Sync)),
    /// The same for [`Format::W8`] if every minimum is -128 times the scale, as in Q8_0.
    Symmetric(&'a (dyn Fn(usize, Integers<'_>) + Sync)),
}

impl Source<'_> {
    /// Whether a layer of `format` need not keep minima.
    fn symmetric(&self, format: Format) -> bool {
        format == Format::W8 && !matches!(self, Self::Integers(_) | Self::Fine(_))
    }
}

/// The weights of one output on their way into a panel.
#[derive(Debug, Default)]
pub(super) struct Quantized {
    /// `(G * 32,)`
    pub(super) values: Vec<u8>,
    /// `(G,)`
    pub(super) scales: Vec<f16>,
    /// `(G,)`
    pub(super) minima: Vec<f16>,
}

impl Quantized {
    /// Room for `groups` groups, all zero.
    pub(super) fn new(groups: usize) -> Self {
        Self {
            values: vec![0; groups * GROUP],
            scales: vec![f16::ZERO; groups],
            minima: vec![f16::ZERO; groups],
        }
    }

    /// Quantises one output's weights, shape `(K,)`, group by group: symmetric ones as Q8_0 does,
    /// others as Q4_1.
    pub(super) fn fill(&mut self, format: Format, symmetric: bool, weights: &[f32]) {
        if symmetric {
            self.around_128(weights);
        } else {
            let most = if format == Format::W8 { 255.0 } else { 15.0 };
            self.between_extremes(most, weights);
        }
    }

    /// To integers of 1 to 255, 128 being zero.
    fn around_128(&mut self, weights: &[f32]) {
        for (g, group) in weights.chunks(GROUP).enumerate() {
            let largest = group.iter().fold(0.0f32, |largest, w| largest.max(w.abs()));
            let scale = f16::from_f32(largest / 127.0);
            let s = scale.to_f32();
            let inverse = if s == 0.0 { 0.0 } else { 1.0 / s };
            for (value, &w) in self.values[g * GROUP..].iter_mut().zip(group) {
                *value = (w * inverse).round_ties_even().clamp(-127.0, 127.0) as i8 as u8 ^ 128;
            }
            let broken = group.iter().any(|w| !w.is_finite()) || !s.is_finite();
            self.scales[g] = if broken { f16::NAN } else { scale };
            self.minima[g] = f16::from_f32(-128.0 * s);
        }
    }

    /// To integers of 0 to `most`, the smallest weight being 0.
    fn between_extremes(&mut self, most: f32, weights: &[f32]) {
        for (g, group) in weights.chunks(GROUP).enumerate() {
            let low = group.iter().copied().fold(f32::INFINITY, f32::min);
            let high = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let (scale, minimum) = (f16::from_f32((high - low) / most), f16::from_f32(low));
            // Rounding to the stored scale and minimum, not to the exact ones, keeps their
            // own rounding from adding up over the group.
            let (s, m) = (scale.to_f32(), minimum.to_f32());
            let inverse = if s == 0.0 { 0.0 } else { 1.0 / s };
            for (value, &w) in self.values[g * GROUP..].iter_mut().zip(group) {
                *value = ((w - m) * inverse).round_ties_even().clamp(0.0, most) as u8;
            }
            // A group that is not finite has to stay so: NaN in the scale reaches the output.
            let broken = group.iter().any(|w| !w.is_finite()) || !s.is_finite();
            self.scales[g] = if broken { f16::NAN } else { scale };
            self.minima[g] = minimum;
        }
    }
}

impl Linear {
    /// A layer of `outputs` outputs and `inputs` inputs, packed in parallel.
    ///
    /// # Panics
    /// If the source has integers that the format cannot hold.
    pub fn load(
        outputs: usize,
        inputs: usize,
        format: Format,
        pool: &mut Pool,
        source: &Source<'_>,
    ) -> Self {
        let (k, symmetric) = (inputs, source.symmetric(format));
        let mut panels = Panels::zeros(format, symmetric, outputs, inputs);
        let (groups, bytes) = (panels.groups(), panels.panel_bytes());
        pool.for_each_chunk(panels.bytes_mut(), bytes, &|panel, bytes| {
            let mut row = vec![0.0; k];
            let mut quantized = Quantized::new(groups);
            for lane in 0..PANEL.min(outputs - panel * PANEL) {
                let output = panel * PANEL + lane;
                match (source, format) {
                    (Source::Float(read) | Source::Fine(read), Format::F32 | Format::Bf16) => {
                        read(output, &mut row);
                        panel::pack_floats(format, bytes, lane, &row);
                    }
                    (Source::Float(read) | Source::Fine(read), Format::W8 | Format::W4) => {
                        read(output, &mut row);
                        quantized.fill(format, symmetric, &row);
                        panel::pack_integers((format, symmetric), bytes, lane, &quantized);
                    }
                    (Source::Integers(read), Format::W8 | Format::W4)
                    | (Source::Symmetric(read), Format::W8) => {
                        let integers = Integers {
                            values: &mut quantized.values[..k],
                            scales: &mut quantized.scales,
                            minima: &mut quantized.minima,
                        };
                        read(output, integers);
                        panel::pack_integers((format, symmetric), bytes, lane, &quantized);
                    }
                    (Source::Integers(_) | Source::Symmetric(_), _) => {
                        panic!("integers do not fit {format}")
                    }
                }
            }
        });
        Self { inputs, outputs, panels, bias: None }
    }
}
