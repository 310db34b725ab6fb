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
//! w8     [8][16][4]   u8     inputs 4j .. 4j+4              [16] f16 scales, [16] f16 minima
//! w4     [4][16][4]   u4 x 2 low nibble: inputs 8j .. 8j+4, [16] f16 scales, [16] f16 minima
//!                            high: 8j+4 .. 8j+8
//! ```
//!
//! A panel is one run of memory that a kernel reads from front to back. (With the scales
//! behind all weights of a panel, one row took three times as long: the second stream
//! keeps the processor from reading ahead.) Outputs and inputs beyond the end are zero.

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
pub(super) const W4_GROUP: usize = GROUP * PANEL / 2 + 4 * PANEL;

impl Format {
    /// Bytes of a group in a panel.
    const fn group_bytes(self) -> usize {
        match self {
            Self::F32 => F32_GROUP,
            Self::Bf16 => BF16_GROUP,
            Self::W8 => W8_GROUP,
            Self::W4 => W4_GROUP,
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
    /// All-zero panels for `outputs` outputs of `inputs` inputs.
    pub(super) fn zeros(format: Format, outputs: usize, inputs: usize) -> Self {
        let lines = Lines::zeros(bytes_for(format, outputs, inputs));
        let (len, groups) = (outputs.div_ceil(PANEL), inputs.div_ceil(GROUP));
        Self { format, len, groups, lines, symmetric: false }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    /// Whether these are eight-bit weights around 128, every minimum being -128 times its scale, so
    /// that a kernel need not look at minima.
    pub(super) fn symmetric(&self) -> bool {
        self.symmetric
    }

    /// Finds that out, after weights were written.
    pub(super) fn find_symmetry(&mut self) {
        let around = |group: &[u8]| {
            let (_, scales) = group.split_at(group.len() - 4 * PANEL);
            (0..PANEL).all(|lane| half_at(scales, PANEL + lane) == -128.0 * half_at(scales, lane))
        };
        let groups = self.format.group_bytes();
        self.symmetric = self.format == Format::W8 && self.lines.chunks_exact(groups).all(around);
    }

    /// Number of panels.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Cache lines of a group.
    pub(super) fn group_lines(&self) -> usize {
        self.format.group_bytes() / 64
    }

    /// Bytes of all panels.
    pub(super) fn bytes(&self) -> usize {
        self.lines.len()
    }

    /// Bytes of one panel.
    pub(super) fn panel_bytes(&self) -> usize {
        self.groups * self.format.group_bytes()
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
        for (group, row) in panel.chunks_exact(self.format.group_bytes()).zip(row.chunks_mut(GROUP))
        {
            let (scale, minimum) = match self.format {
                Format::W8 | Format::W4 => {
                    let (_, scales) = group.split_at(group.len() - 4 * PANEL);
                    (half_at(scales, lane), half_at(scales, PANEL + lane))
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
pub(super) fn bytes_for(format: Format, outputs: usize, inputs: usize) -> usize {
    outputs.div_ceil(PANEL) * inputs.div_ceil(GROUP) * format.group_bytes()
}

/// Writes f32 weights, shape `(K,)`, as output `lane` of an f32 or bf16 panel.
pub(super) fn pack_floats(format: Format, panel: &mut [u8], lane: usize, weights: &[f32]) {
    for (group, weights) in panel.chunks_exact_mut(format.group_bytes()).zip(weights.chunks(GROUP))
    {
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

/// Writes integers with scales and minima as output `lane` of a w8 or w4 panel.
pub(super) fn pack_integers(format: Format, panel: &mut [u8], lane: usize, weights: &Quantized) {
    let groups = panel.chunks_exact_mut(format.group_bytes());
    for (g, group) in groups.enumerate() {
        for (k, &value) in weights.values[g * GROUP..][..GROUP].iter().enumerate() {
            if format == Format::W8 {
                group[w8_byte(k, lane)] = value;
            } else {
                let (byte, shift) = w4_byte(k, lane);
                group[byte] = group[byte] & !(15 << shift) | value << shift;
            }
        }
        let scales = group.len() - 4 * PANEL;
        for (at, half) in [(lane, weights.scales[g]), (PANEL + lane, weights.minima[g])] {
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
