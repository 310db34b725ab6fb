//! Sixteen floats, on each instruction set.
//!
//! The compiler does not keep tiles of 24 vectors in registers when they are written as
//! arrays of floats, so the tiles of attention and of floating-point weights are written
//! over this trait. All of its operations are exact or rounded once, so all implementors
//! give the same bits.
#![expect(unsafe_code, reason = "intrinsics and raw vector loads")]

use half::f16;

use crate::lanes::LANES;

/// Vectors of sixteen floats of one instruction set.
///
/// # Safety
/// Every function may be called only where the machine has the instruction set; [`run`]
/// is to be entered first, because only code inlined into it is compiled for the set.
/// Pointers must be valid for 16 elements; alignment does not matter.
///
/// [`run`]: Simd::run
pub(crate) trait Simd {
    /// Sixteen floats.
    type V: Copy;

    /// Vectors that a register tile of six queries is wide.
    const WIDE: usize;

    unsafe fn run<J: Job>(job: J);
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn load_f16(from: *const f16) -> Self::V;
    /// Sixteen pairs of bf16, widened: the first of each pair, and the second.
    unsafe fn load_bf16_pairs(from: *const u32) -> [Self::V; 2];
    unsafe fn store(to: *mut f32, v: Self::V);
    /// Asks for the cache line of an address, which need not be valid.
    unsafe fn prefetch<T>(from: *const T);
    /// The same for later: into the second-level cache.
    unsafe fn prefetch_later<T>(from: *const T);
    /// `a * b + c`, rounded once.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

/// Work to be compiled for an instruction set; `run` must be `#[inline(always)]`.
pub(crate) trait Job {
    /// Does the work.
    ///
    /// # Safety
    /// As for [`Simd`], and what the implementor asks for.
    unsafe fn run<S: Simd>(self);
}

/// An element type that vectors are loaded from.
pub(crate) trait Element: Copy {
    /// # Safety
    /// As for [`Simd`].
    unsafe fn load<S: Simd>(from: *const Self) -> S::V;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load(from) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_f16(from) }
    }
}

/// Plain Rust.
pub(crate) struct Portable;

impl Simd for Portable {
    type V = [f32; LANES];
    const WIDE: usize = 1;

    unsafe fn run<J: Job>(job: J) {
        // SAFETY: the caller's promise.
        unsafe { job.run::<Self>() }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self::V {
        // SAFETY: the caller's promise.
        let half = unsafe { from.cast::<[f16; LANES]>().read_unaligned() };
        half.map(f16::to_f32_const)
    }

    #[inline(always)]
    unsafe fn load_bf16_pairs(from: *const u32) -> [Self::V; 2] {
        // SAFETY: the caller's promise.
        let pairs = unsafe { from.cast::<[u32; LANES]>().read_unaligned() };
        [pairs.map(|p| f32::from_bits(p << 16)), pairs.map(|p| f32::from_bits(p & 0xffff_0000))]
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn prefetch<T>(_: *const T) {}

    #[inline(always)]
    unsafe fn prefetch_later<T>(_: *const T) {}

    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, mut c: Self::V) -> Self::V {
        for i in 0..LANES {
            c[i] = a[i].mul_add(b[i], c[i]);
        }
        c
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Job, Simd, f16};

    /// Two registers of eight: AVX2, FMA and F16C.
    pub(crate) struct Avx2;

    impl Simd for Avx2 {
        type V = [__m256; 2];
        const WIDE: usize = 1;

        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn run<J: Job>(job: J) {
            // SAFETY: the caller's promise.
            unsafe { job.run::<Self>() }
        }

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            // SAFETY: the caller's promise.
            let v = unsafe { _mm256_set1_ps(x) };
            [v, v]
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self::V {
            // SAFETY: the caller's promise.
            unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const f16) -> Self::V {
            // SAFETY: the caller's promise.
            unsafe {
                [
                    _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                    _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())),
                ]
            }
        }

        #[inline(always)]
        unsafe fn load_bf16_pairs(from: *const u32) -> [Self::V; 2] {
            // SAFETY: the caller's promise.
            unsafe {
                let pairs = [0, 8].map(|at| _mm256_loadu_si256(from.add(at).cast()));
                let high = _mm256_set1_epi32(-0x1_0000);
                [
                    pairs.map(|p| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(p))),
                    pairs.map(|p| _mm256_castsi256_ps(_mm256_and_si256(p, high))),
                ]
            }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, v: Self::V) {
            // SAFETY: the caller's promise.
            unsafe {
                _mm256_storeu_ps(to, v[0]);
                _mm256_storeu_ps(to.add(8), v[1]);
            }
        }

        #[inline(always)]
        unsafe fn prefetch<T>(from: *const T) {
            // SAFETY: a prefetch never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }

        #[inline(always)]
        unsafe fn prefetch_later<T>(from: *const T) {
            // SAFETY: a prefetch never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
        }

        #[inline(always)]
        unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: the caller's promise.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }
    }

    /// One register of sixteen.
    pub(crate) struct Avx512;

    impl Simd for Avx512 {
        type V = __m512;
        const WIDE: usize = 4;

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        unsafe fn run<J: Job>(job: J) {
            // SAFETY: the caller's promise.
            unsafe { job.run::<Self>() }
        }

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            // SAFETY: the caller's promise.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self::V {
            // SAFETY: the caller's promise.
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const f16) -> Self::V {
            // SAFETY: the caller's promise.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        }

        #[inline(always)]
        unsafe fn load_bf16_pairs(from: *const u32) -> [Self::V; 2] {
            // SAFETY: the caller's promise.
            unsafe {
                let pairs = _mm512_loadu_si512(from.cast());
                let high = _mm512_set1_epi32(-0x1_0000);
                [
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)),
                    _mm512_castsi512_ps(_mm512_and_si512(pairs, high)),
                ]
            }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, v: Self::V) {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_ps(to, v) }
        }

        #[inline(always)]
        unsafe fn prefetch<T>(from: *const T) {
            // SAFETY: a prefetch never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }

        #[inline(always)]
        unsafe fn prefetch_later<T>(from: *const T) {
            // SAFETY: a prefetch never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
        }

        #[inline(always)]
        unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: the caller's promise.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
    }
}
