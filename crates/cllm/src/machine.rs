//! The machine a measurement was taken on. What cannot be found out is left out, never
//! guessed: all of it is optional reading from the operating system.

use std::{fmt, fs};

use serde::Serialize;

/// What belongs beside every measured figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// The CPU's own name.
    pub(crate) cpu: String,
    /// Cores this process may use, cgroup quota considered.
    pub(crate) cores: usize,
    /// Threads the model computes with.
    pub(crate) threads: usize,
    /// The instruction set the kernels chose.
    pub(crate) isa: String,
    /// Operating system and architecture.
    pub(crate) os: String,
}

impl Machine {
    /// This machine, with a model that computes with `threads` threads on `isa`.
    pub(crate) fn here(threads: usize, isa: &str) -> Self {
        Self { cpu: cpu_name(), cores: cores(), threads, isa: isa.into(), os: os() }
    }
}

impl fmt::Display for Machine {
    /// One line for above a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, threads, isa, os } = self;
        write!(f, "{cpu}, {os}, {cores} cores, {threads} threads, {isa}")
    }
}

/// Cores this process may use: affinity and cgroup quota considered.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Operating system and architecture, as in `linux x86_64`.
pub(crate) fn os() -> String {
    format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// The CPU's own name, or its architecture where the system does not say.
pub(crate) fn cpu_name() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = name_in(&cpuinfo).map(String::from);
    name.or_else(sysctl_name).unwrap_or_else(|| std::env::consts::ARCH.into())
}

/// `model name` on x86, `Model` on some ARM boards.
fn name_in(cpuinfo: &str) -> Option<&str> {
    let field = |key: &str| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key && !value.trim().is_empty()).then(|| value.trim())
        })
    };
    field("model name").or_else(|| field("Model"))
}

fn sysctl_name() -> Option<String> {
    if !cfg!(target_os = "macos") {
        return None;
    }
    let output = std::process::Command::new("sysctl")
        .args(["-n", "machdep.cpu.brand_string"])
        .output()
        .ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// CPU features that matter to the kernels, with whether this CPU has them.
pub(crate) fn features() -> Vec<(&'static str, bool)> {
    #[cfg(target_arch = "x86_64")]
    return vec![
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
    ];
    #[cfg(target_arch = "aarch64")]
    return vec![
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Vec::new();
}

/// Cores that the cgroup's quota allows, if there is a quota (Linux, cgroup 2 or 1).
pub(crate) fn cgroup_quota() -> Option<f64> {
    if let Ok(text) = fs::read_to_string("/sys/fs/cgroup/cpu.max") {
        return quota(&text);
    }
    let read = |name| fs::read_to_string(format!("/sys/fs/cgroup/cpu/{name}")).ok();
    let (quota_us, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
    quota(&format!("{} {}", quota_us.trim(), period.trim()))
}

/// `cpu.max` holds `QUOTA PERIOD` in microseconds, or `max PERIOD`.
fn quota(cpu_max: &str) -> Option<f64> {
    let mut words = cpu_max.split_whitespace();
    let (quota, period): (f64, f64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// Bytes of memory, total and available now (Linux).
pub(crate) fn memory() -> Option<(u64, u64)> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    Some((memory_field(&meminfo, "MemTotal:")?, memory_field(&meminfo, "MemAvailable:")?))
}

/// Bytes the cgroup may use, if it is limited (Linux, cgroup 2).
pub(crate) fn memory_limit() -> Option<u64> {
    fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?.trim().parse().ok()
}

fn memory_field(meminfo: &str, key: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_files_are_read() {
        let x86 = "processor\t: 0\nmodel name\t: AMD EPYC\nmodel\t\t: 17\nmodel name\t: other\n";
        assert_eq!(name_in(x86), Some("AMD EPYC"));
        assert_eq!(
            name_in("Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 5\n"),
            Some("Raspberry Pi 5")
        );
        assert_eq!(name_in("processor : 0\nmodel name :\n"), None);

        assert_eq!(quota("150000 100000\n"), Some(1.5));
        assert_eq!(quota("max 100000\n"), None);
        assert_eq!(quota("-1 100000"), None);
        assert_eq!(quota(""), None);

        let meminfo = "MemTotal:       24562012 kB\nMemAvailable:   100 kB\n";
        assert_eq!(memory_field(meminfo, "MemTotal:"), Some(24_562_012 * 1024));
        assert_eq!(memory_field(meminfo, "MemAvailable:"), Some(102_400));
        assert_eq!(memory_field(meminfo, "SwapTotal:"), None);
    }

    #[test]
    fn this_machine_has_a_name_and_cores() {
        let machine = Machine::here(2, "scalar");
        assert!(!machine.cpu.is_empty());
        assert!(machine.cores >= 1);
    }
}
