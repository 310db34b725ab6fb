//! The definition, in plain Rust: what every other path is compared with.

use super::panel::{Bits, PANEL, Panel, half_at};
use super::{PanelOutputs, TILE_ROWS};
use crate::quant::{ActivationRow, GROUP};

pub(super) fn run(
    bits: Bits,
    panel: Panel<'_>,
    rows: &[ActivationRow<'_>],
    outputs: &mut [PanelOutputs; TILE_ROWS],
) {
    let mut weights = [[0i8; PANEL]; GROUP];
    for outputs in outputs.iter_mut() {
        *outputs = [0.0; PANEL];
    }
    for g in 0..panel.scales.len() {
        unpack(bits, panel.weights, g, &mut weights);
        for (row, outputs) in rows.iter().zip(outputs.iter_mut()) {
            let mut dots = [0i32; PANEL];
            for (weights, &v) in weights.iter().zip(&row.values[g]) {
                for (dot, &w) in dots.iter_mut().zip(weights) {
                    *dot += i32::from(w) * i32::from(v);
                }
            }
            let a = row.scales[g];
            for lane in 0..PANEL {
                let y = &mut outputs[lane];
                *y = (dots[lane] as f32).mul_add(half_at(&panel.scales[g], lane) * a, *y);
                if bits == Bits::Four {
                    *y = half_at(&panel.minima[g], lane).mul_add(a * row.sums[g] as f32, *y);
                }
            }
        }
    }
}

/// The integers of a group, `(32, 16)`.
fn unpack(bits: Bits, weights: &[u8], group: usize, out: &mut [[i8; PANEL]; GROUP]) {
    match bits {
        Bits::Eight => {
            let bytes = &weights[group * GROUP * PANEL..][..GROUP * PANEL];
            for (i, &byte) in bytes.iter().enumerate() {
                let (quad, lane, k) = (i / (4 * PANEL), i / 4 % PANEL, i % 4);
                out[quad * 4 + k][lane] = (byte ^ 0x80) as i8;
            }
        }
        Bits::Four => {
            let bytes = &weights[group * GROUP * PANEL / 2..][..GROUP * PANEL / 2];
            for (i, &byte) in bytes.iter().enumerate() {
                let (quads, lane, k) = (i / (4 * PANEL), i / 4 % PANEL, i % 4);
                out[quads * 8 + k][lane] = (byte & 15) as i8;
                out[quads * 8 + 4 + k][lane] = (byte >> 4) as i8;
            }
        }
    }
}
