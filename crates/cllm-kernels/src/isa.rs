//! Which instruction set to use, decided at run time.
//!
//! Kernels are written once, as plain loops over fixed-width arrays, and compiled for
//! each instruction set by the `multiversion!` macro. A default build therefore uses AVX-512
//! where the machine has it. Because Rust never reassociates floating-point arithmetic,
//! all versions give the same bits; only their speed differs.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Portable,
    /// With FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// F, BW, VL, DQ and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

/// An instruction set this machine has. A value is the proof: the only constructors
/// check the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Level);

/// The environment variable that forces an instruction set.
pub const ISA_VARIABLE: &str = "CLLM_ISA";

impl Isa {
    /// The plain compilation of every kernel.
    pub const PORTABLE: Self = Self(Level::Portable);

    /// All instruction sets this machine has, slowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "some targets have nothing to add")]
        let mut found = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni");
            let levels = [
                (Level::Avx2, avx2),
                (Level::AvxVnni, avx2 && is_x86_feature_detected!("avxvnni")),
                (Level::Avx512, avx512),
                (Level::Avx512Bf16, avx512 && is_x86_feature_detected!("avx512bf16")),
            ];
            found.extend(levels.into_iter().filter(|level| level.1).map(|level| Self(level.0)));
        }
        found
    }

    /// The fastest one here, or the one that `CLLM_ISA` names.
    ///
    /// # Errors
    /// If the variable names an instruction set that is unknown or not here.
    pub fn detect() -> Result<Self, String> {
        let available = Self::available();
        match std::env::var(ISA_VARIABLE) {
            Err(_) => Ok(*available.last().unwrap_or(&Self::PORTABLE)),
            Ok(name) => available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
                let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
                format!("{ISA_VARIABLE}={name}: expected one of {}", names.join(", "))
            }),
        }
    }

    /// `portable`, `avx2`, `avxvnni`, `avx512` or `avx512bf16`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => "avx512bf16",
        }
    }

    /// AVX2, FMA and F16C are there, and AVX-512 is not to be used.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx2(self) -> bool {
        matches!(self.0, Level::Avx2 | Level::AvxVnni)
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx_vnni(self) -> bool {
        self.0 == Level::AvxVnni
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx512(self) -> bool {
        self.0 >= Level::Avx512
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx512_bf16(self) -> bool {
        self.0 == Level::Avx512Bf16
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Defines a function whose body is compiled once per instruction set; the function
/// takes an [`Isa`] first and runs the matching version.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

                if isa.has_avx512() {
                    // SAFETY: this `Isa` value exists only if `Isa::available` found the
                    // features that the function is compiled for.
                    #[expect(unsafe_code, reason = "calls a function compiled for more features")]
                    return unsafe { avx512($($arg),*) };
                }
                if isa.has_avx2() {
                    // SAFETY: as above.
                    #[expect(unsafe_code, reason = "calls a function compiled for more features")]
                    return unsafe { avx2($($arg),*) };
                }
            }
            let _ = isa;
            body($($arg),*)
        }
    };
}
pub(crate) use multiversion;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portable_path_is_always_there_and_names_differ() {
        let names: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
        assert_eq!(names[0], "portable");
        let mut unique = names.clone();
        unique.dedup();
        assert_eq!(names, unique);
    }
}
