//! The LM head of greedy decoding: only the best token of each row is kept, so n x V logits
//! are never written.

use super::Linear;
use super::panel::PANEL;
use super::tile::{PAIR, PanelOutputs};
use crate::activations::Activations;
use crate::isa::{Isa, multiversion};
use crate::pool::Pool;
use crate::shared::Shared;

/// The largest of a set of logits: its index, its value, and whether a NaN was among them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// Index of the largest value, the lowest among equals.
    pub index: u32,
    /// The largest value; minus infinity if there is none.
    pub value: f32,
    /// Whether any value was NaN.
    pub nan: bool,
}

impl Best {
    /// The best of nothing.
    pub const NONE: Self = Self { index: 0, value: f32::NEG_INFINITY, nan: false };

    /// The better of two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let better =
            other.value > self.value || (other.value == self.value && other.index < self.index);
        let Self { index, value, .. } = if better { other } else { self };
        Self { index, value, nan: self.nan || other.nan }
    }
}

/// The best of each lane, so that panels are compared without a look across lanes.
#[derive(Debug, Clone, Copy)]
struct LaneBest {
    value: PanelOutputs,
    panel: [u32; PANEL],
    /// Largest magnitude, as bits: they order like the numbers, with NaN on top.
    magnitude: [u32; PANEL],
}

impl LaneBest {
    const NONE: Self =
        Self { value: [f32::NEG_INFINITY; PANEL], panel: [0; PANEL], magnitude: [0; PANEL] };

    fn best(&self) -> Best {
        let lanes = (0..PANEL).map(|lane| Best {
            index: self.panel[lane] * PANEL as u32 + lane as u32,
            value: self.value[lane],
            nan: f32::from_bits(self.magnitude[lane]).is_nan(),
        });
        lanes.fold(Best::NONE, Best::or)
    }
}

multiversion! {
    /// Takes in one panel's outputs of some rows. Panels come in ascending order.
    fn offer(bests: &mut [LaneBest], panel: u32, rows: &[PanelOutputs]) {
        for (best, row) in bests.iter_mut().zip(rows) {
            for (lane, &value) in row.iter().enumerate() {
                best.magnitude[lane] = best.magnitude[lane].max(value.to_bits() & 0x7fff_ffff);
                let better = value > best.value[lane];
                best.value[lane] = if better { value } else { best.value[lane] };
                best.panel[lane] = if better { panel } else { best.panel[lane] };
            }
        }
    }
}

impl Linear {
    /// The largest output of each row of `x`, without storing the others. `best` has length R.
    ///
    /// # Panics
    /// If shapes differ, or the layer has a bias.
    pub fn argmax(&self, isa: Isa, pool: &mut Pool, x: &Activations, best: &mut [Best]) {
        let (rows, n) = (x.rows(), self.outputs);
        assert_eq!((x.inputs(), best.len()), (self.inputs, rows), "elements of a layer");
        assert!(self.bias.is_none(), "an LM head has no bias");
        // One result per range of panels and row.
        let ranges = pool.ranges(n.div_ceil(PANEL), PAIR);
        let mut partial = vec![LaneBest::NONE; ranges.len() * rows];
        let shared = Shared::new(&mut partial);
        pool.run_near(ranges.len(), &|i| {
            // SAFETY: each range has its own `rows` entries.
            #[expect(unsafe_code, reason = "threads write results of their own")]
            let best = unsafe { shared.slice(i * rows, rows) };
            self.panels(isa, x, ranges.get(i), |panel, first, outputs| {
                if (panel + 1) * PANEL <= n {
                    offer(isa, &mut best[first..], panel as u32, outputs);
                } else {
                    for (best, outputs) in best[first..].iter_mut().zip(outputs) {
                        let mut outputs = *outputs;
                        outputs[n % PANEL..].fill(f32::NEG_INFINITY);
                        offer(isa, std::slice::from_mut(best), panel as u32, &[outputs]);
                    }
                }
            });
        });
        for (row, best) in best.iter_mut().enumerate() {
            let parts = partial.chunks_exact(rows).map(|part| part[row].best());
            *best = parts.fold(Best::NONE, Best::or);
        }
    }
}
