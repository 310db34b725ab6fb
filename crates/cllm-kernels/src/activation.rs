//! SwiGLU's elementwise part: `silu(gate) * up` (Shazeer 2020, arXiv 2002.05202), and
//! residual addition.

use crate::isa::multiversion;
use crate::math::exp;

multiversion! {
    /// For each row: `out_i = silu(g_i) u_i` with `silu(g) = g / (1 + e^-g)`. `gate_up` has
    /// shape `(R, 2F)`, a row's gates before its ups; `out` has shape `(R, F)`.
    pub fn swiglu(gate_up: &[f32], f: usize, out: &mut [f32]) {
        for (gate_up, out) in gate_up.chunks_exact(2 * f).zip(out.chunks_exact_mut(f)) {
            let (gate, up) = gate_up.split_at(f);
            for ((y, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                *y = g / (1.0 + exp(-g)) * u;
            }
        }
    }
}

multiversion! {
    /// `x += y`, element by element.
    pub fn add(x: &mut [f32], y: &[f32]) {
        for (x, &y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn swiglu_agrees_with_the_formula_and_between_instruction_sets() {
        let f = 37;
        let gate_up: Vec<f32> = (0..4 * f).map(|i| (i as f32 * 0.61).sin() * 20.0).collect();
        let mut first = None;
        for isa in Isa::available() {
            let mut out = vec![0.0; 2 * f];
            swiglu(isa, &gate_up, f, &mut out);
            for (row, y) in gate_up.chunks(2 * f).zip(out.chunks(f)) {
                for i in 0..f {
                    let g = f64::from(row[i]);
                    let want = g / (1.0 + (-g).exp()) * f64::from(row[f + i]);
                    assert!((f64::from(y[i]) - want).abs() <= 1e-6 * (1.0 + want.abs()));
                }
            }
            assert_eq!(*first.get_or_insert_with(|| out.clone()), out, "{isa}");
        }
    }

    #[test]
    fn swiglu_survives_extreme_gates() {
        let mut out = [0.0; 2];
        swiglu(Isa::PORTABLE, &[-1e30, 1e30, 1.0, 1.0], 2, &mut out);
        assert_eq!(out, [0.0, 1e30]);
    }
}
