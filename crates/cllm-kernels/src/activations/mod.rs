//! The input of a linear layer, as its kernels take it.
//!
//! A layer's format says how activations are stored: f32, bf16, or eight bits with a scale
//! per row and group of 32. They are written once per layer, by whatever makes them (a norm,
//! SwiGLU, attention), straight into the order in which a kernel reads them: rows are
//! divided into *tiles* of up to twelve, which pass over the weights together, and
//! within a tile the rows of a group stand next to each other:
//!
//! ```text
//! values  [tile][group][row][32]        scales, shifts, offsets  [tile][group][row]
//! ```
//!
//! So a kernel needs one pointer that only moves forward, however many rows it has.
//! The numbers of a row are the same in any tile.

mod quantize;
mod rows;

use std::ops::Range;

use crate::isa::Isa;
use crate::linear::Format;
use crate::pool::Pool;
use crate::shared::Shared;

pub(crate) use quantize::round_to_bf16;
pub use rows::Rows;

/// Elements that share a scale, in activations and in weights.
pub const GROUP: usize = 32;

/// The most rows of a tile: their sums fill the registers of AVX-512.
pub(crate) const TILE_ROWS: usize = 12;

/// Elements per piece when rows are written in parallel: below this a step costs more
/// than it saves.
const PIECE: usize = 2048;

/// Rows of activations, shape `(R, K)`, ready for a linear layer.
#[derive(Debug)]
pub struct Activations {
    rows: usize,
    inputs: usize,
    store: Store,
}

/// The module's picture, in each of the forms.
#[derive(Debug)]
pub(crate) enum Store {
    /// For f32 weights.
    F32(Vec<[f32; GROUP]>),
    /// For bf16 weights: the upper halves of f32, rounded to nearest even.
    Bf16(Vec<[u16; GROUP]>),
    /// For weights of four and eight bits.
    Eight(Eight),
}

/// Eight-bit activations: a value stands for `scale * value`.
#[derive(Debug, Default)]
pub(crate) struct Eight {
    /// From -127 to 127; zero beyond the end of a row.
    pub(crate) values: Vec<[i8; GROUP]>,
    pub(crate) scales: Vec<f32>,
    /// `scale * sum`, which a weight's minimum is multiplied by.
    pub(crate) shifts: Vec<f32>,
    /// -128 times the sum of a group's values: what an integer sum of weights around 128 begins
    /// with.
    pub(crate) offsets: Vec<i32>,
}

impl Default for Activations {
    fn default() -> Self {
        Self { rows: 0, inputs: 0, store: Store::F32(Vec::new()) }
    }
}

impl Activations {
    /// Makes room for `rows` rows of `inputs` elements for weights of `format`. What it
    /// holds afterwards is unspecified until rows are written.
    pub fn reset(&mut self, format: Format, rows: usize, inputs: usize) {
        (self.rows, self.inputs) = (rows, inputs);
        let len = rows * self.groups();
        match (format, &mut self.store) {
            (Format::F32, Store::F32(v)) => v.resize(len, [0.0; GROUP]),
            (Format::F32, store) => *store = Store::F32(vec![[0.0; GROUP]; len]),
            (Format::Bf16, Store::Bf16(v)) => v.resize(len, [0; GROUP]),
            (Format::Bf16, store) => *store = Store::Bf16(vec![[0; GROUP]; len]),
            (Format::W8 | Format::W4, store) => {
                if !matches!(store, Store::Eight(_)) {
                    *store = Store::Eight(Eight::default());
                }
                if let Store::Eight(eight) = store {
                    eight.values.resize(len, [0; GROUP]);
                    eight.scales.resize(len, 0.0);
                    eight.shifts.resize(len, 0.0);
                    eight.offsets.resize(len, 0);
                }
            }
        }
    }

    /// Fills it with rows for weights of `format`.
    ///
    /// Threads share groups of inputs, not rows: what one writes lies side by side, and they do
    /// not take each other's cache lines away. A norm's sum over a row is cheap enough for each to
    /// make it for itself.
    pub fn fill(&mut self, isa: Isa, pool: &mut Pool, format: Format, rows: Rows<'_>) {
        self.reset(format, rows.len(), rows.width());
        let (tiles, groups) = (self.tiles(), self.groups());
        if rows.is_empty() {
            return;
        }
        let most = (rows.len() * rows.width() / PIECE).clamp(1, groups);
        let parts = pool.threads().div_ceil(tiles.len()).min(most);
        let writer = self.writer();
        pool.run_near(tiles.len() * parts, &|piece| {
            let (tile, part) = (piece / parts, piece % parts);
            let mut buffer = [[0.0; GROUP]; TILE_ROWS];
            let buffer = &mut buffer[..tiles.rows(tile).len()];
            let taken = rows.tile(isa, tiles.rows(tile));
            for group in groups * part / parts..groups * (part + 1) / parts {
                rows.group(isa, &taken, group, buffer);
                // SAFETY: each group of each tile belongs to one piece, and each piece to one
                // thread.
                #[expect(unsafe_code, reason = "threads write groups of their own")]
                unsafe {
                    writer.write_rows(isa, tile, group, buffer);
                }
            }
        });
    }

    /// Number of rows, R.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row, K.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Groups of a row.
    pub(crate) fn groups(&self) -> usize {
        self.inputs.div_ceil(GROUP)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// How the rows are divided.
    pub(crate) fn tiles(&self) -> Tiles {
        Tiles::new(self.rows)
    }

    /// For writing groups from several threads.
    pub(crate) fn writer(&mut self) -> Writer<'_> {
        let (tiles, groups) = (self.tiles(), self.groups());
        let store = match &mut self.store {
            Store::F32(values) => SharedStore::F32(Shared::new(values)),
            Store::Bf16(values) => SharedStore::Bf16(Shared::new(values)),
            Store::Eight(eight) => SharedStore::Eight(SharedEight {
                values: Shared::new(&mut eight.values),
                scales: Shared::new(&mut eight.scales),
                shifts: Shared::new(&mut eight.shifts),
                offsets: Shared::new(&mut eight.offsets),
            }),
        };
        Writer { tiles, groups, store }
    }
}

/// Rows divided into nearly equal tiles: 16 rows as 8 + 8, not as 12 + 4.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tiles {
    rows: usize,
    count: usize,
}

impl Tiles {
    fn new(rows: usize) -> Self {
        Self { rows, count: rows.div_ceil(TILE_ROWS) }
    }

    /// Number of tiles.
    pub(crate) fn len(self) -> usize {
        self.count
    }

    /// The rows of a tile. The first tiles are a row longer if rows do not divide evenly.
    pub(crate) fn rows(self, tile: usize) -> Range<usize> {
        let (short, longer) = (self.rows / self.count, self.rows % self.count);
        let start = |tile: usize| tile * short + tile.min(longer);
        start(tile)..start(tile + 1)
    }
}

/// Writes activations from several threads.
pub(crate) struct Writer<'a> {
    tiles: Tiles,
    groups: usize,
    store: SharedStore<'a>,
}

enum SharedStore<'a> {
    F32(Shared<'a, [f32; GROUP]>),
    Bf16(Shared<'a, [u16; GROUP]>),
    Eight(SharedEight<'a>),
}

impl Writer<'_> {
    /// Writes one group of all rows of a tile.
    ///
    /// # Safety
    /// No other thread writes this group of this tile at the same time.
    #[expect(unsafe_code, reason = "the caller promises disjoint places")]
    pub(crate) unsafe fn write_rows(
        &self,
        isa: Isa,
        tile: usize,
        group: usize,
        x: &[[f32; GROUP]],
    ) {
        let rows = self.tiles.rows(tile);
        assert!(x.len() == rows.len() && group < self.groups);
        // SAFETY: places of different groups and tiles are different.
        unsafe { self.store.write(isa, rows.start * self.groups + group * rows.len(), x) };
    }
}

impl SharedStore<'_> {
    /// Writes consecutive places from `place` on.
    ///
    /// # Safety
    /// No other thread writes them at the same time.
    #[expect(unsafe_code, reason = "the caller promises disjoint places")]
    unsafe fn write(&self, isa: Isa, place: usize, x: &[[f32; GROUP]]) {
        let len = x.len();
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(to) => to.slice(place, len).copy_from_slice(x),
                Self::Bf16(to) => quantize::to_bf16(isa, x, to.slice(place, len)),
                Self::Eight(to) => {
                    let places = quantize::Groups {
                        values: to.values.slice(place, len),
                        scales: to.scales.slice(place, len),
                        shifts: to.shifts.slice(place, len),
                        offsets: to.offsets.slice(place, len),
                    };
                    quantize::quantize(isa, x, places);
                }
            }
        }
    }
}

/// The arrays of [`Eight`], for several threads.
struct SharedEight<'a> {
    values: Shared<'a, [i8; GROUP]>,
    scales: Shared<'a, f32>,
    shifts: Shared<'a, f32>,
    offsets: Shared<'a, i32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_nearly_equal_and_hold_every_row_once() {
        for rows in 1..200 {
            let tiles = Tiles::new(rows);
            let mut next = 0;
            for tile in 0..tiles.len() {
                let range = tiles.rows(tile);
                assert_eq!(range.start, next);
                assert!((1..=TILE_ROWS).contains(&range.len()));
                next = range.end;
            }
            assert_eq!(next, rows);
        }
        assert_eq!(Tiles::new(16).rows(0), 0..8);
    }
}
