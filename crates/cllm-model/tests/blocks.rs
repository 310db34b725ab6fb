//! Dequantisation against ggml's formulas, bit for bit: the goldens of `goldens/blocks.py`.

use std::fs;
use std::path::Path;

use cllm_model::weights::{DType, TensorView};

/// Reads rows `rows` of the golden blocks, laid out as a tensor of `rows_total` rows.
fn check(dtype: DType, rows_total: usize) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/blocks");
    let data = fs::read(dir.join(format!("{dtype}.blocks"))).expect("stored bytes");
    let expected = fs::read(dir.join(format!("{dtype}.f32"))).expect("their values");
    let expected: Vec<u32> =
        expected.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    assert!(expected.len() >= 256, "{dtype}: a golden of {} values", expected.len());

    let shape = vec![rows_total, expected.len() / rows_total];
    let tensor = TensorView { name: "golden", dtype, shape, data: &data };
    for start in 0..rows_total {
        let mut out = vec![f32::NAN; (rows_total - start) * tensor.row_len()];
        tensor.read_f32(start..rows_total, &mut out);
        let found: Vec<u32> = out.iter().map(|v| v.to_bits()).collect();
        for (i, (e, f)) in expected[start * tensor.row_len()..].iter().zip(&found).enumerate() {
            assert_eq!(
                e,
                f,
                "{dtype}, rows {start}.., value {i}: {} and {}",
                f32::from_bits(*e),
                f32::from_bits(*f)
            );
        }
    }
}

#[test]
fn every_type_in_one_row() {
    for dtype in DType::ALL {
        check(dtype, 1);
    }
}

#[test]
fn every_type_row_by_row() {
    for dtype in DType::ALL {
        check(dtype, 8);
    }
}
