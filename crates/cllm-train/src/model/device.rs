//! Devices by name.
//!
//! The CPU runs our own kernels. Every other device runs the plain network on burn's backend
//! for it, in f32; each is a feature of this crate, as they are heavy to build.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{Device, Tensor};
use cllm_kernels::Format;

/// Names of devices, and whether this build has them.
const DEVICES: [(&str, bool); 6] = [
    ("cpu", true),
    ("cuda", cfg!(feature = "cuda")),
    ("rocm", cfg!(feature = "rocm")),
    ("metal", cfg!(feature = "metal")),
    ("vulkan", cfg!(feature = "vulkan")),
    ("wgpu", cfg!(feature = "wgpu")),
];

/// Where a network is trained.
#[derive(Debug, Clone)]
pub struct Place {
    /// burn's handle.
    pub device: Device,
    /// For [`super::TrainerConfig::kernels`]: ours, with frozen weights in the given format,
    /// on the CPU only.
    pub kernels: Option<Format>,
}

/// Which of a device's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The best one there is.
    Any,
    /// By its number among the discrete GPUs, from 0.
    Number(usize),
    /// A graphics driver that computes on the CPU, such as Mesa's lavapipe.
    Software,
}

impl Place {
    /// `cpu`, or `cuda`, `rocm`, `metal`, `vulkan`, `wgpu` with or without a number, as in
    /// `cuda:1`; `wgpu:cpu` and `vulkan:cpu` are software drivers. `frozen` is the format of
    /// frozen weights on the CPU.
    ///
    /// # Errors
    /// A name that is none, one that this build lacks, a device that the machine lacks.
    pub fn named(name: &str, frozen: Format) -> Result<Self, String> {
        let (kind, which) = parse(name)?;
        if kind == "cpu" {
            return Ok(Self { device: Device::flex(), kernels: Some(frozen) });
        }
        let device = open(kind, which)?;
        probe(&device).map_err(|what| format!("device `{name}` does not work here: {what}"))?;
        Ok(Self { device, kernels: None })
    }
}

fn parse(name: &str) -> Result<(&'static str, Which), String> {
    let (kind, which) = match name.split_once(':') {
        None => (name, Which::Any),
        Some((kind @ ("wgpu" | "vulkan"), "cpu")) => (kind, Which::Software),
        Some((kind, number)) => match number.parse() {
            Ok(number) if kind != "cpu" => (kind, Which::Number(number)),
            _ => return Err(format!("expected NAME or NAME:NUMBER, found `{name}`")),
        },
    };
    match DEVICES.iter().find(|device| device.0 == kind) {
        Some(&(kind, true)) => Ok((kind, which)),
        Some((kind, false)) => Err(format!(
            "this build has no `{kind}`: build cllm with `--features {kind}` (here: {})",
            here()
        )),
        None => Err(format!("no device `{name}`: expected {}, found `{kind}`", here())),
    }
}

/// The devices of this build.
fn here() -> String {
    let names: Vec<&str> = DEVICES.iter().filter(|device| device.1).map(|d| d.0).collect();
    names.join(", ")
}

#[cfg_attr(
    not(any(feature = "cuda", feature = "rocm", feature = "wgpu")),
    expect(unused_variables, reason = "read by the backends of GPUs")
)]
fn open(kind: &str, which: Which) -> Result<Device, String> {
    #[cfg(any(feature = "cuda", feature = "rocm"))]
    let index = match which {
        Which::Number(number) => number,
        Which::Any | Which::Software => 0,
    };
    #[cfg(feature = "wgpu")]
    let adapter = {
        use burn::tensor::DeviceKind;
        match which {
            Which::Any => DeviceKind::DefaultDevice,
            Which::Number(number) => DeviceKind::DiscreteGpu(number),
            Which::Software => DeviceKind::Cpu,
        }
    };
    match kind {
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(index)),
        #[cfg(feature = "rocm")]
        "rocm" => Ok(Device::rocm(index)),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(adapter)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(adapter)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(adapter)),
        other => Err(format!("no device `{other}`")),
    }
}

/// Computes something: backends open a device at its first use, and panic if they cannot.
fn probe(device: &Device) -> Result<(), String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = catch_unwind(AssertUnwindSafe(|| {
        let ones = Tensor::<1>::ones([4], device);
        ones.sum().into_data().try_to_vec::<f32>().map_err(|error| format!("{error:?}"))
    }));
    std::panic::set_hook(hook);
    match found {
        Ok(Ok(sum)) if sum == [4.0] => Ok(()),
        Ok(Ok(sum)) => Err(format!("the sum of four ones is {sum:?}")),
        Ok(Err(what)) => Err(what),
        Err(panic) => Err(panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("its driver failed")
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        assert_eq!(parse("cpu"), Ok(("cpu", Which::Any)));
        let place = Place::named("cpu", Format::W8).unwrap();
        assert_eq!(place.kernels, Some(Format::W8));
        for bad in ["", "gpu", "cpu:1", "cuda:x", "cuda:", "wgpu:-1", "cpu:cpu"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        if !cfg!(feature = "cuda") {
            let error = parse("cuda:1").unwrap_err();
            assert!(error.contains("--features cuda"), "{error}");
        }
    }
}
