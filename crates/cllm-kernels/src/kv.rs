//! Keys and values of one layer and one sequence.
//!
//! A store is an array of slots. Which slots are settled, which belong to the running
//! forward and which are free is the model's business; the store only knows how a slot
//! is laid out, so that a layout can change together with the attention that reads it.

/// Keys and values by slot.
#[derive(Debug, Clone)]
pub struct KvStore {
    /// Elements of a slot, all key heads: `kv_heads * head_dim`.
    width: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KvStore {
    /// An empty store for slots of `width` elements.
    pub fn new(width: usize) -> Self {
        Self { width, keys: Vec::new(), values: Vec::new() }
    }

    /// Makes sure that slots `0..slots` exist; keeps what they hold.
    pub fn reserve(&mut self, slots: usize) {
        let len = slots * self.width;
        if len > self.keys.len() {
            self.keys.resize(len, 0.0);
            self.values.resize(len, 0.0);
        }
    }

    /// Writes a slot: rotated key and value, shape `(width,)` each.
    pub fn write(&mut self, slot: usize, key: &[f32], value: &[f32]) {
        let range = slot * self.width..(slot + 1) * self.width;
        self.keys[range.clone()].copy_from_slice(key);
        self.values[range].copy_from_slice(value);
    }

    /// Copies slot `from` over slot `to`.
    pub fn copy(&mut self, from: usize, to: usize) {
        let range = from * self.width..(from + 1) * self.width;
        self.keys.copy_within(range.clone(), to * self.width);
        self.values.copy_within(range, to * self.width);
    }

    /// Bytes that one slot takes, for slots of `width` elements.
    pub fn slot_bytes(width: usize) -> usize {
        2 * width * size_of::<f32>()
    }

    /// All keys, shape `(slots, width)`.
    pub(crate) fn keys(&self) -> &[f32] {
        &self.keys
    }

    /// All values, shape `(slots, width)`.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_written_copied_and_kept_when_the_store_grows() {
        let mut kv = KvStore::new(2);
        kv.reserve(3);
        kv.write(2, &[1.0, 2.0], &[3.0, 4.0]);
        kv.copy(2, 0);
        kv.reserve(10);
        kv.reserve(1);
        assert_eq!(kv.keys()[..6], [1.0, 2.0, 0.0, 0.0, 1.0, 2.0]);
        assert_eq!(kv.values()[..6], [3.0, 4.0, 0.0, 0.0, 3.0, 4.0]);
        assert_eq!(kv.keys().len(), 20);
    }
}
