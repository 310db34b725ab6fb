//! TensorBoard's event files: protocol buffers in TFRecords, the few fields scalars need.
//!
//! ```text
//! TFRecord: length u64 | masked CRC of it u32 | bytes | masked CRC of them u32
//! Event:    1 wall_time double | 2 step int64 | 3 file_version string | 5 summary
//! Summary:  1 value, repeated: 1 tag string | 2 simple_value float
//! ```
//!
//! A masked CRC is a CRC-32C turned right by 15 bits plus 0xa282ead8.

/// The first record of a file, at `now` seconds since 1970.
#[must_use]
pub fn header(now: f64) -> Vec<u8> {
    let mut event = Vec::new();
    double(&mut event, 1, now);
    bytes(&mut event, 3, b"brain.Event:2");
    record(&event)
}

/// A record with scalars of a step.
#[must_use]
pub fn scalars(now: f64, step: u64, values: &[(String, f32)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut one = Vec::new();
        bytes(&mut one, 1, tag.as_bytes());
        one.push(2 << 3 | 5);
        one.extend(value.to_le_bytes());
        bytes(&mut summary, 1, &one);
    }
    let mut event = Vec::new();
    double(&mut event, 1, now);
    event.push(2 << 3);
    varint(&mut event, step);
    bytes(&mut event, 5, &summary);
    record(&event)
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

fn masked(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn double(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that TensorBoard's own writer and reader agree on: see
    /// `fixtures/tensorboard.py`, which made the file.
    #[test]
    fn bytes_are_those_of_tensorboard() {
        let expected = include_bytes!("../../fixtures/events.bin");
        let values = [("train/loss".to_owned(), 1.5f32), ("train/epoch".to_owned(), 0.25)];
        let found = [header(1.5), scalars(2.25, 300, &values)].concat();
        assert_eq!(found, expected);
    }
}
