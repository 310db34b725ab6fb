//! Rows on their way into activations: those of a matrix, all or some, perhaps through an
//! RMSNorm.

use super::{GROUP, TILE_ROWS};
use crate::isa::{Isa, multiversion};
use crate::norm::inverse_rms;

/// Rows of a matrix, and what they pass through.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    x: &'a [f32],
    width: usize,
    which: Option<&'a [usize]>,
    norm: Option<(&'a [f32], f32)>,
}

impl<'a> Rows<'a> {
    /// All rows of `x`, shape `(R, width)`.
    ///
    /// # Panics
    /// If `x` does not consist of whole rows.
    pub fn all(x: &'a [f32], width: usize) -> Self {
        assert!(width > 0 && x.len().is_multiple_of(width), "{} elements of {width}", x.len());
        Self { x, width, which: None, norm: None }
    }

    /// Only these of the rows, in this order.
    #[must_use]
    pub fn only(self, which: &'a [usize]) -> Self {
        Self { which: Some(which), ..self }
    }

    /// The rows after [`rms_norm`](crate::norm::rms_norm()) with these gains, shape `(width,)`.
    ///
    /// # Panics
    /// If there are more or fewer gains.
    #[must_use]
    pub fn normed(self, gain: &'a [f32], eps: f32) -> Self {
        assert_eq!(gain.len(), self.width, "gains");
        Self { norm: Some((gain, eps)), ..self }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.which.map_or(self.x.len() / self.width, <[usize]>::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Up to twelve rows from `first` on, of which groups can be had.
    pub(super) fn tile(&self, isa: Isa, rows: std::ops::Range<usize>) -> Tile<'a> {
        let mut tile = Tile { count: rows.len(), rows: [&[]; TILE_ROWS], scales: [1.0; TILE_ROWS] };
        for (i, index) in rows.enumerate() {
            let index = self.which.map_or(index, |which| which[index]);
            tile.rows[i] = &self.x[index * self.width..][..self.width];
            if let Some((_, eps)) = self.norm {
                tile.scales[i] = inverse_rms(isa, tile.rows[i], eps);
            }
        }
        tile
    }

    /// Group `g` of every row of a tile, filled up with zeros.
    pub(super) fn group(&self, isa: Isa, tile: &Tile<'a>, g: usize, out: &mut [[f32; GROUP]]) {
        let gain = self.norm.map(|(gain, _)| gain);
        take(isa, &tile.rows[..tile.count], &tile.scales, gain, g * GROUP, out);
    }
}

/// The rows of a tile and what a norm multiplies them by.
#[derive(Debug)]
pub(super) struct Tile<'a> {
    count: usize,
    rows: [&'a [f32]; TILE_ROWS],
    scales: [f32; TILE_ROWS],
}

multiversion! {
    /// The elements from `start` on of each row, times its scale and the gains.
    fn take(
        rows: &[&[f32]],
        scales: &[f32; TILE_ROWS],
        gain: Option<&[f32]>,
        start: usize,
        out: &mut [[f32; GROUP]],
    ) {
        for ((row, &scale), out) in rows.iter().zip(scales).zip(out) {
            let (row, gain) = (&row[start..], gain.map(|gain| &gain[start..]));
            match (row.first_chunk::<GROUP>(), gain.map(|gain| gain.first_chunk::<GROUP>())) {
                (Some(x), None) => *out = *x,
                (Some(x), Some(Some(gain))) => {
                    for i in 0..GROUP {
                        out[i] = (x[i] * scale) * gain[i];
                    }
                }
                _ => {
                    out[row.len()..].fill(0.0);
                    out[..row.len()].copy_from_slice(row);
                    for (out, &gain) in out.iter_mut().zip(gain.unwrap_or(&[])) {
                        *out = (*out * scale) * gain;
                    }
                }
            }
        }
    }
}
