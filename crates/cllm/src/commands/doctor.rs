//! `cllm doctor`: what this machine offers, what is missing and how to get it.
//!
//! Nothing is fetched and nothing is changed.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use cllm_kernels::{Isa, Pool};
use serde::Serialize;

use crate::arithmetic::Arithmetic;
use crate::bandwidth;
use crate::cli::JsonArgs;
use crate::console::{self, BOLD, RED};
use crate::machine;
use crate::source::{self, SourceOptions};
use crate::table::bytes;

/// Check this machine: CPU, memory, cache folder, tools.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Threads to measure with [default: one per usable core].
    #[arg(short, long, env = "CLLM_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,

    #[command(flatten)]
    json: JsonArgs,
}

/// The report, and the JSON document.
#[derive(Debug, Serialize)]
struct Report {
    cllm: &'static str,
    os: String,
    cpu: Cpu,
    memory: Memory,
    cache: Cache,
    python: Python,
    /// What is wrong, and what to do about it; empty when all is well.
    missing: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Cpu {
    name: String,
    /// Features that matter to the kernels; those this CPU has.
    features: Vec<&'static str>,
    /// Those it lacks.
    lacks: Vec<&'static str>,
    /// The instruction set the kernels choose; `None` if none fits.
    isa: Option<&'static str>,
    /// Cores this process may use.
    cores: usize,
    /// Cores that the cgroup allows, if it limits them.
    cgroup_quota: Option<f64>,
    /// Threads a model will use.
    threads: usize,
    /// What a layer in cache reaches with all threads, multiplications and additions a
    /// second; `None` if no kernels fit.
    operations_per_second: Option<Arithmetic>,
}

/// In bytes.
#[derive(Debug, Serialize)]
struct Memory {
    total: Option<u64>,
    available: Option<u64>,
    cgroup_limit: Option<u64>,
    /// Measured with all threads, bytes a second.
    read_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Cache {
    folder: Option<PathBuf>,
    /// The default model's file, if it is there.
    default_model: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Python {
    command: String,
    version: Option<String>,
    pip: Option<String>,
}

/// Prints the report.
pub(crate) fn run(arguments: DoctorArgs) -> anyhow::Result<()> {
    let report = examine(arguments.threads.map(NonZeroUsize::get));
    if arguments.json.json {
        writeln!(console::out(), "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(console::coloured(), "{}", text(&report))?;
    }
    Ok(())
}

fn examine(threads: Option<usize>) -> Report {
    let mut missing = Vec::new();
    let isa = Isa::detect();
    if let Err(error) = &isa {
        missing.push(error.clone());
    }
    let threads = threads.unwrap_or_else(Pool::default_threads);
    let (has, lacks): (Vec<_>, Vec<_>) =
        machine::features().into_iter().partition(|(_, present)| *present);
    let names = |features: Vec<(&'static str, bool)>| features.iter().map(|(n, _)| *n).collect();
    let memory = machine::memory();
    let arithmetic = isa.as_ref().ok().map(|&isa| Arithmetic::measure(isa, threads)).transpose();
    let operations_per_second = arithmetic.unwrap_or_else(|error| {
        missing.push(format!("{threads} threads could not be started: {error}"));
        None
    });
    let (cache, python) = sources(&mut missing);
    Report {
        cllm: env!("CARGO_PKG_VERSION"),
        os: machine::os(),
        cpu: Cpu {
            name: machine::cpu_name(),
            features: names(has),
            lacks: names(lacks),
            isa: isa.ok().map(Isa::name),
            cores: machine::cores(),
            cgroup_quota: machine::cgroup_quota(),
            threads,
            operations_per_second,
        },
        memory: Memory {
            total: memory.map(|(total, _)| total),
            available: memory.map(|(_, available)| available),
            cgroup_limit: machine::memory_limit(),
            read_per_second: bandwidth::measure(threads),
        },
        cache,
        python,
        missing,
    }
}

/// The cache folder and the tools that fill it.
fn sources(missing: &mut Vec<String>) -> (Cache, Python) {
    let options = match SourceOptions::from_env() {
        Ok(options) => options,
        Err(error) => {
            missing.push(error.to_string());
            let python = Python { command: "python3".into(), version: None, pip: None };
            return (Cache { folder: None, default_model: None }, python);
        }
    };
    let default_model = source::cached_default(&options);
    let command = options.python.to_string_lossy().into_owned();
    let ask = |arguments: &[&str]| {
        let asked = Command::new(&options.python).args(arguments).stdin(Stdio::null()).output();
        let output = asked.ok().filter(|output| output.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        text.lines().next().map(str::to_owned)
    };
    let version = ask(&["--version"]);
    // `pip 24.0 from FOLDER (python 3.12)`: the folder helps nobody.
    let pip = ask(&["-m", "pip", "--version"])
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
    if default_model.is_none() {
        missing.push("the default model is not here yet: run `cllm pull`".into());
        if version.is_none() {
            missing.push(format!(
                "`{command}` does not run, and `cllm pull` needs it for the default model: \
                 install Python 3, or name it in CLLM_PYTHON"
            ));
        } else if pip.is_none() {
            missing.push(format!(
                "`{command}` has no pip, and `cllm pull` needs it for the default model: \
                 `{command} -m ensurepip --upgrade`"
            ));
        }
    }
    (Cache { folder: Some(options.home), default_model }, Python { command, version, pip })
}

/// The report for people.
fn text(report: &Report) -> String {
    let Report { cpu, memory, cache, python, .. } = report;
    let none = || "unknown".to_owned();
    let size = |n: Option<u64>| n.map_or_else(none, bytes);
    let path =
        |p: &Option<PathBuf>| p.as_ref().map_or_else(|| "-".into(), |p| p.display().to_string());
    let quota = cpu.cgroup_quota.map_or(String::new(), |q| format!(", cgroup quota {q:.1}"));
    let limit =
        memory.cgroup_limit.map_or(String::new(), |n| format!(", cgroup limit {}", bytes(n)));
    let arithmetic = cpu.operations_per_second.map_or_else(none, |speed| {
        let Arithmetic { integers, bf16, f32 } = speed.giga();
        format!(
            "{integers:.0} GOP/s with w8 and w4, {bf16:.0} bf16, {f32:.0} f32: \
             what a layer in cache reaches"
        )
    });
    let rows = [
        ("cllm", format!("{} on {}", report.cllm, report.os)),
        ("CPU", cpu.name.clone()),
        ("features", cpu.features.join(" ")),
        ("lacking", cpu.lacks.join(" ")),
        ("kernels", cpu.isa.unwrap_or("none").to_owned()),
        ("cores", format!("{}{quota}; a model will use {} threads", cpu.cores, cpu.threads)),
        ("memory", format!("{}, {} available{limit}", size(memory.total), size(memory.available))),
        ("reading", format!("{:.1} GB/s", memory.read_per_second / 1e9)),
        ("arithmetic", arithmetic),
        ("cache", path(&cache.folder)),
        ("default model", path(&cache.default_model)),
        (
            "python",
            python.version.clone().unwrap_or_else(|| format!("`{}` does not run", python.command)),
        ),
        ("pip", python.pip.clone().unwrap_or_else(|| "-".into())),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        text += &format!("{BOLD}{name:<14}{BOLD:#}{value}\n");
    }
    match report.missing.as_slice() {
        [] => text += "\nAll is well.\n",
        missing => {
            for what in missing {
                text += &format!("\n{RED}missing{RED:#} {what}\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_what_is_missing() {
        let mut report = Report {
            cllm: "1.2.3",
            os: "linux x86_64".into(),
            cpu: Cpu {
                name: "Some CPU".into(),
                features: vec!["avx2", "fma"],
                lacks: vec![],
                isa: Some("avx2"),
                cores: 4,
                cgroup_quota: Some(2.5),
                threads: 2,
                operations_per_second: Some(Arithmetic {
                    integers: 812.4e9,
                    bf16: 400e9,
                    f32: 99.6e9,
                }),
            },
            memory: Memory {
                total: None,
                available: Some(1 << 30),
                cgroup_limit: None,
                read_per_second: 12.34e9,
            },
            cache: Cache { folder: Some("models".into()), default_model: None },
            python: Python { command: "python3".into(), version: None, pip: None },
            missing: vec![],
        };
        let plain = |report: &Report| anstream::adapter::strip_str(&text(report)).to_string();
        assert!(plain(&report).ends_with("All is well.\n"));
        report.missing.push("no pip: install it".into());
        let text = plain(&report);
        for line in [
            "cores         4, cgroup quota 2.5; a model will use 2 threads",
            "memory        unknown, 1.0 GiB available",
            "reading       12.3 GB/s",
            "arithmetic    812 GOP/s with w8 and w4, 400 bf16, 100 f32: what a layer in cache reaches",
            "python        `python3` does not run",
            "missing no pip: install it",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} in {text}");
        }
    }
}
