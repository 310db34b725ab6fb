//! The forwards of an epoch.
//!
//! A forward takes bundles in their seeded order until the next one does not fit. An epoch
//! depends on nothing but the data, the settings and its number, so a position in a run is
//! (epoch, index of the forward), and a resumed run makes the same forwards.

use super::bundle::{self, Bundle};
use super::example::Example;
use super::pack::Packing;
use crate::packed::Packed;

/// How much goes into a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    /// So many examples.
    Examples(usize),
    /// As many examples as have at most so many rows together, but at least one. Up to about
    /// two thousand rows a forward is the faster, per row, the more it has.
    Rows(usize),
}

/// How examples become forwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batches {
    /// How examples become rows.
    pub packing: Packing,
    /// How much goes into a forward.
    pub size: BatchSize,
    /// Most examples that share the beginning of their prompts; 1 turns sharing off.
    pub bundle: usize,
}

/// The bundles of a forward.
pub type Forward = Vec<Bundle>;

/// Examples with the rules that make forwards of them.
#[derive(Debug, Clone)]
pub struct DataSet {
    examples: Vec<Example>,
    families: Vec<Vec<usize>>,
    batches: Batches,
}

impl DataSet {
    /// A data set.
    #[must_use]
    pub fn new(examples: Vec<Example>, batches: Batches) -> Self {
        let families = bundle::families(&examples, batches.bundle > 1);
        Self { examples, families, batches }
    }

    /// Number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are no examples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// The forwards of an epoch, in their order.
    #[must_use]
    pub fn epoch(&self, epoch: u64) -> Vec<Forward> {
        let Batches { packing, size, bundle } = self.batches;
        let most = match size {
            BatchSize::Examples(examples) => bundle.min(examples),
            BatchSize::Rows(_) => bundle,
        };
        let seed = packing.seed;
        let mut forwards: Vec<Forward> = Vec::new();
        let mut filled = 0;
        for bundle in bundle::bundles(&self.examples, &self.families, most, seed, epoch) {
            for (bundle, rows) in self.fitting(bundle, epoch) {
                let (cost, room) = match size {
                    BatchSize::Examples(room) => (bundle.members.len(), room),
                    BatchSize::Rows(room) => (rows, room),
                };
                match forwards.last_mut() {
                    Some(forward) if filled + cost <= room => {
                        forward.push(bundle);
                        filled += cost;
                    }
                    _ => {
                        forwards.push(vec![bundle]);
                        filled = cost;
                    }
                }
            }
        }
        forwards
    }

    /// A bundle with its rows; in halves, again and again, where it is too long for a forward.
    fn fitting(&self, bundle: Bundle, epoch: u64) -> Vec<(Bundle, usize)> {
        let mut rows = Packed::default();
        self.batches.packing.pack(&self.examples, &bundle, epoch, &mut rows);
        let too_long = matches!(self.batches.size, BatchSize::Rows(room) if rows.len() > room);
        if !too_long || bundle.members.len() < 2 {
            return vec![(bundle, rows.len())];
        }
        let (a, b) = bundle.members.split_at(bundle.members.len() / 2);
        let half = |members: &[usize]| {
            let shared = if members.len() > 1 { bundle.shared } else { 0 };
            self.fitting(Bundle { members: members.to_vec(), shared }, epoch)
        };
        let mut fitting = half(a);
        fitting.extend(half(b));
        fitting
    }

    /// The rows of a forward, every weight 1.
    #[must_use]
    pub fn pack(&self, forward: &Forward, epoch: u64) -> Packed {
        let mut packed = Packed::default();
        for bundle in forward {
            self.batches.packing.pack(&self.examples, bundle, epoch, &mut packed);
        }
        packed
    }
}
