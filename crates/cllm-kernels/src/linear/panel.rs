//! How packed weights lie in memory.
//!
//! Sixteen outputs form a *panel*, the unit of work: the lanes of an AVX-512 register.
//! Within it, the weights of as many consecutive inputs as one instruction takes stand
//! together for each output, so that a kernel loads 64 bytes, one cache line, and needs no
//! sum across lanes. Inputs come in groups of 32, each followed by its scales and minima:
//!
//! ```text
//! f32    [32][16]     f32
//! bf16   [16][16][2]  bf16   inputs 2j, 2j+1
//! w8     [8][16][4]   u8     inputs 4j .. 4j+4              [16] f16 scales, perhaps [16] f16 minima
//! w4     [4][16][4]   u4 x 2 low nibble: inputs 8j .. 8j+4, [16] f16 scales, [16] f16 minima
//!                            high: 8j+4 .. 8j+8
//! ```
//!
//! A panel is one run of memory that a kernel reads from front to back. (With the scales
//! behind all weights of a panel, one row took three times as long: the second stream
//! keeps the processor from reading ahead.) Outputs and inputs beyond the end are zero.
//!
//! Eight-bit weights are *symmetric* if the minimum of each group is -128 times its scale, as in
//! Q8_0. Then minima need not be kept: a group is 544 bytes and not 576, and half of its lines
//! lie across two of the cache's, which costs less than reading the minima does.

use half::f16;

use super::Format;
use super::load::Quantized;
use crate::activations::GROUP;
use crate::activations::round_to_bf16;
use crate::memory::Lines;

/// Outputs of a panel: the lanes of an AVX-512 register.
pub(super) const PANEL: usize = 16;

/// Bytes of a group in a panel, by format.
pub(super) const F32_GROUP: usize = 4 * GROUP * PANEL;
pub(super) const BF16_GROUP: usize = 2 * GROUP * PANEL;
pub(super) const W8_GROUP: usize = GROUP * PANEL + 4 * PANEL;
/// Of symmetric weights.
pub(super) const W8_SYMMETRIC_GROUP: usize = GROUP * PANEL + 2 * PANEL;
pub(super) const W4_GROUP: usize = GROUP * PANEL / 2 + 4 * PANEL;

impl Format {
    /// Bytes of a group in a panel.
    pub(super) const fn group_bytes(self, symmetric: bool) -> usize {
        match self {
            Self::F32 => F32_GROUP,
            Self::Bf16 => BF16_GROUP,
            Self::W8 if symmetric => W8_SYMMETRIC_GROUP,
            Self::W8 => W8_GROUP,
            Self::W4 => W4_GROUP,
        }
    }

    /// Bytes of a group's weights, behind which scales and minima lie.
    pub(super) const fn weight_bytes(self) -> usize {
        match self {
            Self::W8 => GROUP * PANEL,
            Self::W4 => GROUP * PANEL / 2,
            Self::F32 | Self::Bf16 => self.group_bytes(false),
        }
    }
}

/// A matrix in panels.
#[derive(Debug)]
pub(super) struct Panels {
    format: Format,
    len: usize,
    groups: usize,
    lines: Lines,
    symmetric: bool,
}

impl Panels {
    /// All-zero panels for `outputs` outputs of `inputs` inputs. Only [`Format::W8`] may be
    /// `symmetric`.
    pub(super) fn zeros(format: Format, symmetric: bool, outputs: usize, inputs: usize) -> Self {
        let lines = Lines::zeros(bytes_for(format, symmetric, outputs, inputs));
        let (len, groups) = (outputs.div_ceil(PANEL), inputs.div_ceil(GROUP));
        Self { format, len, groups, lines, symmetric }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    /// Whether these are eight-bit weights around 128, whose minima are not kept.
    pub(super) fn symmetric(&self) -> bool {
        self.symmetric
    }

    /// Number of panels.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Cache lines of a group.
    pub(super) fn group_lines(&self) -> usize {
        self.format.group_bytes(self.symmetric).div_ceil(64)
    }

    /// Bytes of all panels.
    pub(super) fn bytes(&self) -> usize {
        self.lines.len()
    }

    /// Bytes of one panel.
    pub(super) fn panel_bytes(&self) -> usize {
        self.groups * self.format.group_bytes(self.symmetric)
    }

    /// All bytes, panel after panel.
    pub(super) fn all(&self) -> &[u8] {
        &self.lines
    }

    /// All bytes, panel after panel.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.lines
    }

    /// The groups of one panel.
    pub(super) fn panel(&self, index: usize) -> &[u8] {
        &self.lines[index * self.panel_bytes()..][..self.panel_bytes()]
    }

    /// The weights of one output as f32, shape `(K,)`.
    pub(super) fn read_output(&self, output: usize, row: &mut [f32]) {
        let (panel, lane) = (self.panel(output / PANEL), output % PANEL);
        let bytes = self.format.group_bytes(self.symmetric);
        for (group, row) in panel.chunks_exact(bytes).zip(row.chunks_mut(GROUP)) {
            let (scale, minimum) = match self.format {
                Format::W8 | Format::W4 => {
                    let scales = &group[self.format.weight_bytes()..];
                    let scale = half_at(scales, lane);
                    let symmetric = self.symmetric.then_some(-128.0 * scale);
                    (scale, symmetric.unwrap_or_else(|| half_at(scales, PANEL + lane)))
                }
                Format::F32 | Format::Bf16 => (0.0, 0.0),
            };
            for (k, w) in row.iter_mut().enumerate() {
                *w = match self.format {
                    Format::F32 => f32::from_le_bytes(bytes_at(group, 4 * (k * PANEL + lane))),
                    Format::Bf16 => {
                        let narrow = u16::from_le_bytes(bytes_at(group, bf16_byte(k, lane)));
                        f32::from_bits(u32::from(narrow) << 16)
                    }
                    Format::W8 => f32::from(group[w8_byte(k, lane)]) * scale + minimum,
                    Format::W4 => {
                        let (byte, shift) = w4_byte(k, lane);
                        f32::from((group[byte] >> shift) & 15) * scale + minimum
                    }
                };
            }
        }
    }
}

/// Bytes of `outputs x inputs` weights.
pub(super) fn bytes_for(format: Format, symmetric: bool, outputs: usize, inputs: usize) -> usize {
    outputs.div_ceil(PANEL) * inputs.div_ceil(GROUP) * format.group_bytes(symmetric)
}

/// Writes f32 weights, shape `(K,)`, as output `lane` of an f32 or bf16 panel.
pub(super) fn pack_floats(format: Format, panel: &mut [u8], lane: usize, weights: &[f32]) {
    let groups = panel.chunks_exact_mut(format.group_bytes(false));
    for (group, weights) in groups.zip(weights.chunks(GROUP)) {
        for (k, &w) in weights.iter().enumerate() {
            if format == Format::F32 {
                group[4 * (k * PANEL + lane)..][..4].copy_from_slice(&w.to_le_bytes());
            } else {
                let narrow = round_to_bf16(w).to_le_bytes();
                group[bf16_byte(k, lane)..][..2].copy_from_slice(&narrow);
            }
        }
    }
}

/// Writes integers with scales and, unless they are symmetric, minima as output `lane` of a w8 or
/// w4 panel.
pub(super) fn pack_integers(
    (format, symmetric): (Format, bool),
    panel: &mut [u8],
    lane: usize,
    weights: &Quantized,
) {
    let groups = panel.chunks_exact_mut(format.group_bytes(symmetric));
    for (g, group) in groups.enumerate() {
        for (k, &value) in weights.values[g * GROUP..][..GROUP].iter().enumerate() {
            if format == Format::W8 {
                group[w8_byte(k, lane)] = value;
            } else {
                let (byte, shift) = w4_byte(k, lane);
                group[byte] = group[byte] & !(15 << shift) | value << shift;
            }
        }
        let scales = format.weight_bytes();
        let halves = [(lane, weights.scales[g]), (PANEL + lane, weights.minima[g])];
        for (at, half) in &halves[..if symmetric { 1 } else { 2 }] {
            group[scales + 2 * at..][..2].copy_from_slice(&half.to_le_bytes());
        }
    }
}

/// Byte of the bf16 weight of input `k` of a group.
fn bf16_byte(k: usize, lane: usize) -> usize {
    (k / 2 * PANEL + lane) * 4 + k % 2 * 2
}

/// Byte of the eight-bit weight of input `k` of a group.
fn w8_byte(k: usize, lane: usize) -> usize {
    (k / 4 * PANEL + lane) * 4 + k % 4
}

/// Byte of the four-bit weight of input `k` of a group, and by how many bits it is shifted.
fn w4_byte(k: usize, lane: usize) -> (usize, u8) {
    ((k / 8 * PANEL + lane) * 4 + k % 4, if k % 8 >= 4 { 4 } else { 0 })
}

/// One f16 of a group's scales and minima.
pub(super) fn half_at(scales: &[u8], index: usize) -> f32 {
    f16::from_le_bytes(bytes_at(scales, 2 * index)).to_f32()
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    found.copy_from_slice(&bytes[at..at + N]);
    found
}
