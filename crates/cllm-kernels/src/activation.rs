//! SwiGLU's elementwise part: `silu(gate) * up` (Shazeer 2020, arXiv 2002.05202).

use crate::activations::GROUP;
use crate::isa::multiversion;
use crate::lanes::LANES;
use crate::math::exp_not_positive;

multiversion! {
    /// `out_i = silu(gate_i) up_i` for some rows of a group, whose gates and ups come in
    /// halves of sixteen, `[half][row]`.
    ///
    /// `silu(g) = g / (1 + e^-g)`, which is `g e^g / (1 + e^g)`: of the two, the one whose
    /// exponent is not positive.
    pub(crate) fn silu_times(
        gates: [&[[f32; LANES]]; 2],
        ups: [&[[f32; LANES]]; 2],
        out: &mut [[f32; GROUP]],
    ) {
        for (i, out) in out.iter_mut().enumerate() {
            let (halves, _) = out.as_chunks_mut::<LANES>();
            for (half, out) in halves.iter_mut().enumerate() {
                let (gate, up) = (&gates[half][i], &ups[half][i]);
                for ((y, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                    let e = exp_not_positive(-g.abs());
                    let numerator = if g < 0.0 { g * e } else { g };
                    *y = numerator / (1.0 + e) * u;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    fn one(isa: Isa, gate: &[f32; GROUP], up: &[f32; GROUP]) -> [f32; GROUP] {
        let mut out = [[0.0; GROUP]];
        let halves = |v: &[f32; GROUP]| [[v.as_chunks().0[0]], [v.as_chunks().0[1]]];
        let (gates, ups) = (halves(gate), halves(up));
        silu_times(isa, [&gates[0], &gates[1]], [&ups[0], &ups[1]], &mut out);
        out[0]
    }

    #[test]
    fn agrees_with_the_formula_and_between_instruction_sets() {
        for seed in 0..20 {
            let value = |i: usize| ((i + 100 * seed) as f32 * 0.61).sin() * 20.0;
            let (gate, up) = (std::array::from_fn(value), std::array::from_fn(|i| value(i + 50)));
            let first = one(Isa::PORTABLE, &gate, &up);
            for isa in Isa::available() {
                let out = one(isa, &gate, &up);
                for i in 0..GROUP {
                    let (g, u) = (f64::from(gate[i]), f64::from(up[i]));
                    let want = g / (1.0 + (-g).exp()) * u;
                    assert!((f64::from(out[i]) - want).abs() <= 1e-6 * (1.0 + want.abs()));
                }
                assert_eq!(first, out, "{isa}");
            }
        }
    }

    #[test]
    fn survives_extreme_gates() {
        let mut gate = [0.0; GROUP];
        (gate[0], gate[1]) = (-1e30, 1e30);
        let out = one(Isa::PORTABLE, &gate, &[1.0; GROUP]);
        assert_eq!(out[..3], [0.0, 1e30, 0.0]);
    }
}
