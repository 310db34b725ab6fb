//! What tests against goldens share.

/// The largest difference, in standard deviations of `expected`; NaN if anything is.
pub(crate) fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let mean = expected.iter().sum::<f32>() / expected.len() as f32;
    let variance = expected.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / expected.len() as f32;
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    worst.fold(0.0, |m: f32, x| if x.is_nan() || x > m { x } else { m }) / variance.sqrt()
}
