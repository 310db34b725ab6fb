//! Integer weights in plain Rust: the definition that every other path is compared with.

use super::super::Format;
use super::super::panel::{PANEL, half_at};
use super::{EightTile, TileOutputs};
use crate::activations::GROUP;

pub(super) fn run(format: Format, panel: &[u8], tile: EightTile<'_>, outputs: &mut TileOutputs) {
    let mut weights = [[0u8; PANEL]; GROUP];
    *outputs = [[0.0; PANEL]; _];
    for (g, group) in panel.chunks_exact(format.group_bytes(tile.symmetric)).enumerate() {
        let (integers, scales) = group.split_at(format.weight_bytes());
        unpack(format, integers, &mut weights);
        for (r, outputs) in outputs.iter_mut().enumerate().take(tile.rows) {
            let at = g * tile.rows + r;
            let mut dots = [if tile.symmetric { tile.offsets[at] } else { 0 }; PANEL];
            for (weights, &v) in weights.iter().zip(&tile.values[at]) {
                for (dot, &w) in dots.iter_mut().zip(weights) {
                    *dot += i32::from(w) * i32::from(v);
                }
            }
            for (lane, (y, dot)) in outputs.iter_mut().zip(dots).enumerate() {
                *y = (dot as f32).mul_add(half_at(scales, lane) * tile.scales[at], *y);
                if !tile.symmetric {
                    *y = half_at(scales, PANEL + lane).mul_add(tile.shifts[at], *y);
                }
            }
        }
    }
}

/// The integers of a group, `(32, 16)`.
fn unpack(format: Format, bytes: &[u8], out: &mut [[u8; PANEL]; GROUP]) {
    for (i, &byte) in bytes.iter().enumerate() {
        let (line, lane, k) = (i / (4 * PANEL), i / 4 % PANEL, i % 4);
        if format == Format::W8 {
            out[line * 4 + k][lane] = byte;
        } else {
            out[line * 8 + k][lane] = byte & 15;
            out[line * 8 + 4 + k][lane] = byte >> 4;
        }
    }
}
