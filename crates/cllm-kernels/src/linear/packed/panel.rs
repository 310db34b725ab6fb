//! How packed weights lie in memory.
//!
//! Sixteen outputs form a *panel*, the unit of work. Within it, the weights of four
//! consecutive inputs stand together for each output, because that is what one lane of
//! an integer dot instruction takes:
//!
//! ```text
//! eight bits   [G][8][16][4]   u8 = weight + 128
//! four bits    [G][4][16][4]   low nibble: inputs 8j .. 8j+4, high: 8j+4 .. 8j+8
//! scales       [G][16] f16     after the weights of the panel
//! minima       [G][16] f16     four bits only
//! ```
//!
//! So a kernel loads 64 bytes, one cache line, for 16 outputs and 4 (or 8) inputs, and
//! needs no sum across lanes. A panel is contiguous and read from front to back. Outputs
//! and inputs beyond the end are zero.

use half::f16;

use crate::memory::Lines;
use crate::quant::GROUP;

/// Outputs of a panel: the lanes of an AVX-512 register.
pub(in crate::linear) const PANEL: usize = 16;

/// Bits of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::linear) enum Bits {
    /// 0 to 15, with scale and minimum.
    Four,
    /// -127 to 127, with scale.
    Eight,
}

impl Bits {
    /// Bytes of the weights of a group in a panel.
    const fn group_bytes(self) -> usize {
        match self {
            Self::Four => GROUP * PANEL / 2,
            Self::Eight => GROUP * PANEL,
        }
    }

    /// Bytes of a group's scales (and minima) in a panel.
    const fn scale_bytes(self) -> usize {
        match self {
            Self::Four => 2 * PANEL * 2,
            Self::Eight => PANEL * 2,
        }
    }
}

/// A matrix in panels.
#[derive(Debug)]
pub(in crate::linear) struct Panels {
    bits: Bits,
    groups: usize,
    lines: Lines,
}

/// The parts of one panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panel<'a> {
    /// `(G, group_bytes)`
    pub(super) weights: &'a [u8],
    /// `(G, 16)`, as little-endian f16.
    pub(super) scales: &'a [[u8; 2 * PANEL]],
    /// `(G, 16)`, as little-endian f16; empty for eight bits.
    pub(super) minima: &'a [[u8; 2 * PANEL]],
}

/// The weights of one output on their way into a panel.
#[derive(Debug, Default)]
pub(in crate::linear) struct Quantized {
    /// `(G * 32,)`: -127 to 127, or 0 to 15.
    pub(in crate::linear) values: Vec<i8>,
    /// `(G,)`
    pub(in crate::linear) scales: Vec<f16>,
    /// `(G,)`; unused for eight bits.
    pub(in crate::linear) minima: Vec<f16>,
}

impl Quantized {
    /// Room for `groups` groups, all zero.
    pub(in crate::linear) fn new(groups: usize) -> Self {
        Self {
            values: vec![0; groups * GROUP],
            scales: vec![f16::ZERO; groups],
            minima: vec![f16::ZERO; groups],
        }
    }

    /// Quantises one output's weights, shape `(K,)`, group by group.
    pub(in crate::linear) fn fill(&mut self, bits: Bits, weights: &[f32]) {
        for (g, group) in weights.chunks(GROUP).enumerate() {
            let values = &mut self.values[g * GROUP..][..group.len()];
            let (scale, minimum) = match bits {
                Bits::Eight => {
                    let largest = group.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    (f16::from_f32(largest / 127.0), f16::ZERO)
                }
                Bits::Four => {
                    let low = group.iter().copied().fold(f32::INFINITY, f32::min);
                    let high = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    (f16::from_f32((high - low) / 15.0), f16::from_f32(low))
                }
            };
            // Rounding to the stored scale and minimum, not to the exact ones, keeps their
            // own rounding from adding up over the group.
            let (s, m) = (scale.to_f32(), minimum.to_f32());
            let (least, most) = if bits == Bits::Four { (0.0, 15.0) } else { (-127.0, 127.0) };
            for (value, &w) in values.iter_mut().zip(group) {
                let steps = if s == 0.0 { 0.0 } else { (w - m) / s };
                *value = steps.round_ties_even().clamp(least, most) as i8;
            }
            // A group that is not finite has to stay so: NaN in the scale reaches the output.
            let broken = group.iter().any(|w| !w.is_finite()) || !s.is_finite();
            self.scales[g] = if broken { f16::NAN } else { scale };
            self.minima[g] = minimum;
        }
    }
}

impl Panels {
    /// All-zero panels for `outputs` outputs of `inputs` inputs.
    pub(in crate::linear) fn zeros(bits: Bits, outputs: usize, inputs: usize) -> Self {
        let lines = Lines::zeros(Self::bytes_for(bits, outputs, inputs));
        Self { bits, groups: inputs.div_ceil(GROUP), lines }
    }

    /// Bytes of `outputs x inputs` weights.
    pub(in crate::linear) fn bytes_for(bits: Bits, outputs: usize, inputs: usize) -> usize {
        panel_bytes(bits, inputs.div_ceil(GROUP)) * outputs.div_ceil(PANEL)
    }

    pub(in crate::linear) fn bits(&self) -> Bits {
        self.bits
    }

    pub(in crate::linear) fn groups(&self) -> usize {
        self.groups
    }

    /// Bytes of all panels.
    pub(in crate::linear) fn bytes(&self) -> usize {
        self.lines.len()
    }

    /// Bytes of one panel.
    pub(in crate::linear) fn panel_bytes(&self) -> usize {
        panel_bytes(self.bits, self.groups)
    }

    /// All bytes, panel after panel.
    pub(in crate::linear) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.lines
    }

    pub(super) fn panel(&self, index: usize) -> Panel<'_> {
        let bytes = &self.lines[index * self.panel_bytes()..][..self.panel_bytes()];
        let (weights, rest) = bytes.split_at(self.groups * self.bits.group_bytes());
        let (scales, minima) = rest.split_at(self.groups * 2 * PANEL);
        let minima = if self.bits == Bits::Four { &minima[..self.groups * 2 * PANEL] } else { &[] };
        Panel {
            weights,
            scales: scales_of(scales, self.groups),
            minima: scales_of(minima, self.groups),
        }
    }

    /// The weights of one output as f32, shape `(K,)`.
    pub(in crate::linear) fn read_output(&self, output: usize, row: &mut [f32]) {
        let (panel, lane) = (self.panel(output / PANEL), output % PANEL);
        for (k, w) in row.iter_mut().enumerate() {
            let group = k / GROUP;
            let at = |scales: &[[u8; 2 * PANEL]]| half_at(&scales[group], lane);
            *w = match self.bits {
                Bits::Eight => {
                    (f32::from(panel.weights[eight(k, lane)]) - 128.0) * at(panel.scales)
                }
                Bits::Four => {
                    let (byte, high) = four(k, lane);
                    let q = (panel.weights[byte] >> (4 * u8::from(high))) & 15;
                    f32::from(q) * at(panel.scales) + at(panel.minima)
                }
            };
        }
    }
}

/// Writes output `lane` of a panel.
pub(in crate::linear) fn pack(bits: Bits, panel: &mut [u8], lane: usize, quantized: &Quantized) {
    let groups = quantized.scales.len();
    for (k, &value) in quantized.values.iter().enumerate() {
        match bits {
            Bits::Eight => panel[eight(k, lane)] = (i16::from(value) + 128) as u8,
            Bits::Four => {
                let (byte, high) = four(k, lane);
                let shift = 4 * u8::from(high);
                panel[byte] = panel[byte] & !(15 << shift) | (value as u8) << shift;
            }
        }
    }
    let scales = groups * bits.group_bytes();
    let minima = scales + groups * 2 * PANEL;
    for g in 0..groups {
        let at = (g * PANEL + lane) * 2;
        panel[scales + at..][..2].copy_from_slice(&quantized.scales[g].to_le_bytes());
        if bits == Bits::Four {
            panel[minima + at..][..2].copy_from_slice(&quantized.minima[g].to_le_bytes());
        }
    }
}

/// Byte of the eight-bit weight of input `k`.
fn eight(k: usize, lane: usize) -> usize {
    (k / 4 * PANEL + lane) * 4 + k % 4
}

/// Byte of the four-bit weight of input `k`, and whether it is in the high nibble.
fn four(k: usize, lane: usize) -> (usize, bool) {
    ((k / 8 * PANEL + lane) * 4 + k % 4, k % 8 >= 4)
}

fn panel_bytes(bits: Bits, groups: usize) -> usize {
    // Panels begin on cache lines.
    (groups * (bits.group_bytes() + bits.scale_bytes())).next_multiple_of(64)
}

fn scales_of(bytes: &[u8], groups: usize) -> &[[u8; 2 * PANEL]] {
    &bytes.as_chunks().0[..groups.min(bytes.len() / (2 * PANEL))]
}

/// One f16 of a group's scales or minima.
pub(super) fn half_at(group: &[u8; 2 * PANEL], lane: usize) -> f32 {
    f16::from_le_bytes([group[2 * lane], group[2 * lane + 1]]).to_f32()
}
