//! RMSNorm: `y_i = g_i x_i / sqrt(mean(x^2) + eps)` (Zhang and Sennrich 2019,
//! arXiv 1910.07467). The mean is taken in the canonical order of [`crate::lanes`].

use crate::isa::multiversion;
use crate::lanes::dot;

multiversion! {
    /// Normalises each row of `x`, shape `(R, D)`, by `gain`, shape `(D,)`, into `out`,
    /// shape `(R, D)`.
    pub fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
        let d = gain.len();
        for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)) {
            let scale = inverse(x, eps);
            for ((y, &x), &g) in out.iter_mut().zip(x).zip(gain) {
                *y = (x * scale) * g;
            }
        }
    }
}

multiversion! {
    /// Normalises consecutive pieces of length D of `x` in place by `gain`, shape `(D,)`:
    /// the query and key heads of Qwen3.
    pub fn rms_norm_in_place(x: &mut [f32], gain: &[f32], eps: f32) {
        for x in x.chunks_exact_mut(gain.len()) {
            let scale = inverse(x, eps);
            for (x, &g) in x.iter_mut().zip(gain) {
                *x = (*x * scale) * g;
            }
        }
    }
}

multiversion! {
    /// What the norm multiplies a row by, besides the gains: `1 / sqrt(mean(x^2) + eps)`.
    pub(crate) fn inverse_rms(x: &[f32], eps: f32) -> f32 {
        inverse(x, eps)
    }
}

#[inline(always)]
fn inverse(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn agrees_with_the_formula_in_f64_and_between_instruction_sets() {
        for d in [1, 5, 16, 64, 77] {
            let x: Vec<f32> = (0..2 * d).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
            let gain: Vec<f32> = (0..d).map(|i| 1.0 + (i as f32).cos() * 0.1).collect();
            let mut first = None;
            for isa in Isa::available() {
                let mut out = vec![0.0; 2 * d];
                rms_norm(isa, &x, &gain, 1e-5, &mut out);
                let mut same = x.clone();
                rms_norm_in_place(isa, &mut same, &gain, 1e-5);
                assert_eq!(out, same);
                for (row, y) in x.chunks(d).zip(out.chunks(d)) {
                    let mean = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / d as f64;
                    for i in 0..d {
                        let want = f64::from(row[i]) / (mean + 1e-5).sqrt() * f64::from(gain[i]);
                        assert!((f64::from(y[i]) - want).abs() < 2e-6 * (1.0 + want.abs()));
                    }
                }
                assert_eq!(*first.get_or_insert_with(|| out.clone()), out, "{isa}");
            }
        }
    }
}
