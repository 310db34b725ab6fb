//! Elementwise parts of a training step and their gradients, some rows at a time.

use crate::isa::multiversion;
use crate::lanes::{dot, sum};
use crate::math::exp_not_positive;

multiversion! {
    /// The gradient of [`crate::norm::rms_norm`] by its input: with `s = 1 / rms(x)` and
    /// `u = g dy`, `dx = s u - s^3 x (u . x) / D`. All `(R, D)` but the gain `(D,)`.
    pub fn rms_norm_backward(x: &[f32], gain: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
        let d = gain.len();
        let rows = x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d));
        for ((x, dy), dx) in rows {
            let s = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
            for ((u, &g), &dy) in dx.iter_mut().zip(gain).zip(dy) {
                *u = g * dy;
            }
            let along = dot(dx, x) * s * s * s / d as f32;
            for (u, &x) in dx.iter_mut().zip(x) {
                *u = (-along).mul_add(x, *u * s);
            }
        }
    }
}

multiversion! {
    /// `y = silu(gate) up`.
    pub fn swiglu(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
            *y = g * sigmoid(g) * u;
        }
    }
}

multiversion! {
    /// The gradients of [`swiglu`]: `silu'(g) = s (1 + g (1 - s))`, s the sigmoid of g.
    pub fn swiglu_backward(gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        let inputs = gate.iter().zip(up).zip(dy);
        for (((&g, &u), &dy), (dg, du)) in inputs.zip(dgate.iter_mut().zip(dup)) {
            let s = sigmoid(g);
            *du = dy * g * s;
            *dg = dy * u * s * g.mul_add(1.0 - s, 1.0);
        }
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = exp_not_positive(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

multiversion! {
    /// Turns logits of one row into probabilities in place; returns the logarithm of what
    /// the exponentials summed up to, so that `ln p = z - result`.
    pub fn softmax(z: &mut [f32]) -> f32 {
        let (lanes, tail) = z.as_chunks::<16>();
        let mut top = [f32::NEG_INFINITY; 16];
        for lane in lanes {
            for (t, &z) in top.iter_mut().zip(lane) {
                *t = t.max(z);
            }
        }
        let top = top.iter().chain(tail).fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        for z in z.iter_mut() {
            *z = exp_not_positive(*z - top);
        }
        let total = sum(z);
        let scale = 1.0 / total;
        for z in z.iter_mut() {
            *z *= scale;
        }
        top + total.ln()
    }
}

multiversion! {
    /// `sum p (ln p - ln q)` of two rows of probabilities. Logarithms are taken from logits:
    /// `ln p = zp - lp`, `ln q = zq - lq` (results of [`softmax`]).
    pub fn divergence(p: &[f32], log_p: (&[f32], f32), log_q: (&[f32], f32)) -> f32 {
        let shift = log_q.1 - log_p.1;
        let mut lanes = [0.0f32; 16];
        let (ps, p_tail) = p.as_chunks::<16>();
        let (zp, zp_tail) = log_p.0.as_chunks::<16>();
        let (zq, zq_tail) = log_q.0.as_chunks::<16>();
        for ((p, a), b) in ps.iter().zip(zp).zip(zq) {
            for i in 0..16 {
                lanes[i] = p[i].mul_add(a[i] - b[i] + shift, lanes[i]);
            }
        }
        let mut total: f32 = lanes.iter().sum();
        for ((p, a), b) in p_tail.iter().zip(zp_tail).zip(zq_tail) {
            total += p * (a - b + shift);
        }
        total
    }
}

multiversion! {
    /// `ds = p (dp - sum(p dp)) scale`, the gradient of a softmax's input, into `dp`.
    pub(super) fn softmax_backward(p: &[f32], dp: &mut [f32], scale: f32) {
        let along = dot(p, dp);
        for (dp, &p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - along) * scale;
        }
    }
}

multiversion! {
    /// The sum of squares.
    pub fn square_sum(x: &[f32]) -> f32 {
        dot(x, x)
    }
}

multiversion! {
    /// AdamW's update of a parameter and its moments (Loshchilov and Hutter 2019).
    ///
    /// `gradient` comes with its factor, that of clipping. `steps`: learning rate over the
    /// first bias correction, root of the second bias correction's inverse, factor of decay.
    pub fn adamw(
        value: &mut [f32],
        moments: [&mut [f32]; 2],
        gradient: (&[f32], f32),
        betas: [f32; 2],
        epsilon: f32,
        steps: [f32; 3],
    ) {
        let ([m, v], [rate, root, keep], (gradient, clip)) = (moments, steps, gradient);
        let state = m.iter_mut().zip(v.iter_mut());
        for ((p, &g), (m, v)) in value.iter_mut().zip(gradient).zip(state) {
            let g = g * clip;
            *m = betas[0].mul_add(*m - g, g);
            *v = betas[1].mul_add(*v - g * g, g * g);
            *p = keep * *p - rate * *m / v.sqrt().mul_add(root, epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::norm::rms_norm;

    fn wave(len: usize, phase: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.61 + phase).sin() * 2.0).collect()
    }

    /// The derivative of `f . dy` by element `i` of `x`, by finite differences in steps that
    /// f32 can tell apart.
    fn slope(x: &[f32], i: usize, dy: &[f32], f: &dyn Fn(&[f32]) -> Vec<f32>) -> f64 {
        let at = |h: f32| {
            let mut x = x.to_vec();
            x[i] += h;
            let y = f(&x);
            y.iter().zip(dy).map(|(&y, &d)| f64::from(y) * f64::from(d)).sum::<f64>()
        };
        (at(1e-2) - at(-1e-2)) / 2e-2
    }

    fn check(x: &[f32], dx: &[f32], dy: &[f32], f: &dyn Fn(&[f32]) -> Vec<f32>) {
        for (i, &dx) in dx.iter().enumerate() {
            let want = slope(x, i, dy, f);
            assert!((f64::from(dx) - want).abs() < 5e-3 * (1.0 + want.abs()), "{dx} {want}");
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for isa in Isa::available() {
            let (x, dy, gain) = (wave(46, 0.3), wave(46, 1.7), wave(23, 0.9));
            let mut dx = vec![0.0; 46];
            rms_norm_backward(isa, &x, &gain, 1e-5, &dy, &mut dx);
            check(&x, &dx, &dy, &|x| {
                let mut y = vec![0.0; 46];
                rms_norm(isa, x, &gain, 1e-5, &mut y);
                y
            });
            let up = wave(46, 2.2);
            let gated = |gate: &[f32], up: &[f32]| {
                let mut y = vec![0.0; 46];
                swiglu(isa, gate, up, &mut y);
                y
            };
            let (mut dgate, mut dup) = (vec![0.0; 46], vec![0.0; 46]);
            swiglu_backward(isa, &x, &up, &dy, &mut dgate, &mut dup);
            check(&x, &dgate, &dy, &|gate| gated(gate, &up));
            check(&up, &dup, &dy, &|up| gated(&x, up));
        }
    }

    #[test]
    fn probabilities_and_divergence_agree_with_f64() {
        let (zp, zq) = (wave(37, 0.1), wave(37, 1.1));
        let exact = |z: &[f32]| {
            let total: f64 = z.iter().map(|&z| f64::from(z).exp()).sum();
            z.iter().map(|&z| f64::from(z).exp() / total).collect::<Vec<_>>()
        };
        let (ep, eq) = (exact(&zp), exact(&zq));
        let want: f64 = ep.iter().zip(&eq).map(|(p, q)| p * (p / q).ln()).sum();
        for isa in Isa::available() {
            let (mut p, mut q) = (zp.clone(), zq.clone());
            let (lp, lq) = (softmax(isa, &mut p), softmax(isa, &mut q));
            for (found, want) in p.iter().zip(&ep).chain(q.iter().zip(&eq)) {
                assert!((f64::from(*found) - want).abs() < 1e-6);
            }
            let found = divergence(isa, &p, (&zp, lp), (&zq, lq));
            assert!((f64::from(found) - want).abs() < 1e-5, "{found} {want}");
        }
    }
}
