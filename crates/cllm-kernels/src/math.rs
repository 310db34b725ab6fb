//! Elementary functions with the same bits everywhere.
//!
//! The C library's `expf` differs between systems and versions, and a call to it stops
//! the compiler from vectorising the loop around it. So `exp` is a polynomial here.

/// Adding 1.5 * 2^23 rounds to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;

/// e^x to within 2 units in the last place of the true value; 0 below -87.33 (where the
/// result would be subnormal) and infinity above 88.72. NaN stays NaN.
///
/// Method: x = n ln 2 + r with |r| <= ln 2 / 2, e^x = 2^n e^r, and e^r by its degree-6
/// minimax-like polynomial (coefficients of Cephes `expf`). The two-part ln 2 makes r
/// exact to about 2^-33.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Outside this range the 2^n below would overflow its exponent field.
    let clamped = x.clamp(-88.0, 88.8);
    let n = std::f32::consts::LOG2_E.mul_add(clamped, ROUND) - ROUND;
    let e = exp_reduced(clamped, n);
    // 2^n in two factors, because n reaches 128 where one would be infinite too early.
    let half = (n as i32) >> 1;
    let rest = n as i32 - half;
    let scale = |k: i32| f32::from_bits(((k + 127) << 23) as u32);
    let y = e * scale(half) * scale(rest);
    if x < -87.33 { 0.0 } else { y }
}

/// [`exp`] for arguments that are not positive, with the same bits, in two thirds of the
/// operations: 2^n needs no second factor, and the integer n is read from the mantissa
/// that it was rounded in.
#[inline(always)]
pub(crate) fn exp_not_positive(x: f32) -> f32 {
    let clamped = if x < -88.0 { -88.0 } else { x };
    let rounded = std::f32::consts::LOG2_E.mul_add(clamped, ROUND);
    let n = rounded - ROUND;
    let scale = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    let y = exp_reduced(clamped, n) * scale;
    if x < -87.33 { 0.0 } else { y }
}

/// e^(x - n ln 2), for n the integer nearest to x / ln 2.
#[inline(always)]
fn exp_reduced(x: f32, n: f32) -> f32 {
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let r = n.mul_add(-LN2_LO, n.mul_add(-LN2_HI, x));
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    (p * r).mul_add(r, r) + 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_exp_has_the_bits_of_the_long_one() {
        // Every 64th of the floats from -0 to minus infinity.
        for bits in (0x8000_0000..=0xff80_0000u32).step_by(64) {
            let x = f32::from_bits(bits);
            assert_eq!(exp_not_positive(x).to_bits(), exp(x).to_bits(), "{x:e}");
        }
        assert_eq!(exp_not_positive(0.0), 1.0);
        assert!(exp_not_positive(f32::NAN).is_nan());
    }

    #[test]
    fn exp_is_within_two_ulp_over_its_whole_range() {
        let mut worst = 0;
        for i in -873_000..887_000 {
            let x = i as f32 * 1e-4;
            let want = (f64::from(x)).exp() as f32;
            let ulps = exp(x).to_bits().abs_diff(want.to_bits());
            worst = worst.max(ulps);
        }
        assert!(worst <= 2, "{worst} ulp");
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }
}
