//! `cllm bench forward`: the time of one forward against its number of rows.
//!
//! The stopwatch is in `crate::stopwatch`, `roofline` says what the hardware would allow. Here are
//! the arguments and the report.

mod roofline;

use std::io::Write;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cllm_decode::CausalLm;
use cllm_kernels::{Format, Isa};
use cllm_model::Llama;
use serde::Serialize;

use self::roofline::{Bound, Ceilings, Cost, Work};
use crate::arithmetic::Arithmetic;
use crate::bandwidth;
use crate::cli::JsonArgs;
use crate::commands::bench::FormatsArgs;
use crate::console::{self, note};
use crate::exit::bad_input;
use crate::machine::Machine;
use crate::stopwatch::{Bench, Shape, measure};
use crate::table::Table;

const HELP: &str = "\
T(n)/T(1) is what n rows cost in units of one autoregressive step: Jacobi decoding with a
block of n pays off when it settles more tokens a forward than that. MB counts the weights
and the cached keys and values, which every forward reads once; GOP/s are multiplications
and additions, in 10^9. Roofline is the share of the time that this work takes at the least:
reading at the speed of memory, or multiplying as fast as a layer in cache, whichever is
longer; bound says which it is. Both speeds are measured in the same run.

Several formats are loaded side by side and take turns.

Example:
  cllm bench forward --compute f32,bf16 --rows 1,2,4,8,16,32 --context 256";

/// Time one forward for several row counts.
#[derive(Debug, Args)]
#[command(after_help = HELP, mut_arg("compute", |compute| compute.default_value("auto")))]
pub(crate) struct ForwardBenchArgs {
    /// Row counts, separated by commas; rows of each sequence.
    #[arg(long, env = "CLLM_ROWS", value_name = "LIST", value_delimiter = ',')]
    #[arg(default_value = "1,2,4,8,16,32")]
    rows: Vec<NonZeroUsize>,

    /// Sequences in a forward, each with its own cache.
    #[arg(long, env = "CLLM_SEQUENCES", value_name = "N", default_value = "1")]
    sequences: NonZeroUsize,

    /// Tokens in the cache that every row attends to.
    #[arg(short, long, env = "CLLM_CONTEXT", value_name = "N", default_value = "256")]
    context: usize,

    /// Rows that ask for the argmax: `all`, as in a Jacobi block, or each sequence's
    /// `last`, as in prefill.
    #[arg(long, env = "CLLM_ARGMAX", value_name = "ROWS", default_value = "all")]
    argmax: Asked,

    /// Measurements per row count; the median is reported.
    #[arg(long, env = "CLLM_REPEAT", value_name = "N", default_value = "30")]
    repeat: NonZeroUsize,

    #[command(flatten)]
    json: JsonArgs,

    #[command(flatten)]
    subject: FormatsArgs,
}

/// Rows that ask for the argmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Asked {
    /// Every row.
    All,
    /// The last row of each sequence.
    Last,
}

/// The JSON document.
#[derive(Serialize)]
struct Report {
    model: String,
    machine: Machine,
    settings: Settings,
    results: Vec<Timing>,
}

#[derive(Serialize)]
struct Settings {
    context: usize,
    sequences: NonZeroUsize,
    argmax: Asked,
    repeat: NonZeroUsize,
    /// Speed of memory, the larger of a reading before and one after; GB = 10^9 bytes.
    memory_gb_per_second: f64,
    /// What a layer in cache reaches, measured and chosen likewise; in units of 10^9.
    giga_operations_per_second: Arithmetic,
}

/// One format and row count. Times are in milliseconds.
#[derive(Debug, Serialize)]
struct Timing {
    /// The format the weights are computed in.
    compute: String,
    /// Rows of each sequence.
    rows: usize,
    median_ms: f64,
    min_ms: f64,
    ms_per_row: f64,
    /// Over the smallest row count measured; that is one row unless told otherwise.
    relative: f64,
    #[serde(flatten)]
    work: Work,
    giga_operations_per_second: f64,
    /// Share of the median that the work takes at the least, at the measured speeds.
    roofline: f64,
    /// Which speed that is.
    bound: Bound,
}

/// One loaded format, as far as the report needs it.
struct Subject {
    compute: String,
    formats: Vec<Format>,
    cost: Cost,
}

impl Subject {
    fn new(compute: String, lm: &Llama) -> Self {
        let cost = Cost::new(lm.config(), lm.weight_bytes(), lm.kv_bytes_per_position());
        Self { compute, formats: lm.formats(), cost }
    }
}

/// Measures.
pub(crate) fn run(arguments: ForwardBenchArgs) -> anyhow::Result<()> {
    let mut rows: Vec<usize> = arguments.rows.iter().map(|n| n.get()).collect();
    rows.sort_unstable();
    rows.dedup();
    let mut sessions = arguments.subject.load_all()?;
    let (name, machine) = (sessions[0].name.clone(), sessions[0].machine());
    let positions = sessions[0].model.lm.context_length();
    let needed = rows.last().map_or(0, |most| arguments.context.saturating_add(*most));
    if needed > positions {
        bad_input!(
            "--context {} and {} rows need {needed} positions; the model has {positions}",
            arguments.context,
            needed - arguments.context,
        );
    }
    let shape = Shape {
        context: arguments.context,
        sequences: arguments.sequences.get(),
        all_rows: arguments.argmax == Asked::All,
    };
    let subjects: Vec<_> =
        sessions.iter().map(|session| Subject::new(session.weights(), &session.model.lm)).collect();

    let isa = sessions[0].model.lm.isa();
    let before = ceilings(isa, machine.threads)?;
    note(format_args!(
        "filling {} x {} tokens of cache",
        subjects.len() * shape.sequences,
        shape.context
    ));
    let mut benches = Vec::with_capacity(sessions.len());
    for session in &mut sessions {
        benches.push(Bench::new(&mut session.model.lm, shape)?);
    }
    let times = measure(&mut benches, &rows, arguments.repeat.get())?;
    let after = ceilings(isa, machine.threads)?;
    let (bandwidth, arithmetic) = (before.0.max(after.0), before.1.max(after.1));

    let timed = subjects.iter().zip(times);
    let report = Report {
        model: name,
        machine,
        settings: Settings {
            context: shape.context,
            sequences: arguments.sequences,
            argmax: arguments.argmax,
            repeat: arguments.repeat,
            memory_gb_per_second: bandwidth / 1e9,
            giga_operations_per_second: arithmetic.giga(),
        },
        results: timed
            .flat_map(|(subject, times)| {
                let ceilings = Ceilings { bandwidth, peak: arithmetic.peak(&subject.formats) };
                timings(subject, shape, &rows, times, ceilings)
            })
            .collect(),
    };
    let mut out = console::out();
    if !arguments.json.json {
        let Arithmetic { integers, bf16, f32 } = arithmetic.giga();
        writeln!(
            out,
            "{}, memory {:.1} GB/s, in cache {integers:.0} GOP/s with w8 and w4, {bf16:.0} bf16, \
             {f32:.0} f32",
            report.machine,
            bandwidth / 1e9,
        )?;
        write!(out, "{}", table(&report.results))?;
    }
    writeln!(out, "{}", serde_json::to_string(&report)?)?;
    Ok(())
}

/// The speed of memory, in bytes a second, and that of arithmetic.
fn ceilings(isa: Isa, threads: usize) -> std::io::Result<(f64, Arithmetic)> {
    Ok((bandwidth::measure(threads), Arithmetic::measure(isa, threads)?))
}

/// The figures of one format.
fn timings(
    subject: &Subject,
    shape: Shape,
    rows: &[usize],
    times: Vec<Vec<Duration>>,
    ceilings: Ceilings,
) -> Vec<Timing> {
    let mut first = None;
    let timing = |(&rows, mut times): (&usize, Vec<Duration>)| {
        times.sort_unstable();
        let median = 1e3 * median(&times).as_secs_f64();
        let heads = if shape.all_rows { rows } else { 1 };
        let work = subject.cost.work(shape.context, shape.sequences, rows, heads);
        let (least, bound) = work.least(ceilings);
        Timing {
            compute: subject.compute.clone(),
            rows,
            median_ms: median,
            min_ms: 1e3 * times[0].as_secs_f64(),
            ms_per_row: median / (shape.sequences * rows) as f64,
            relative: median / *first.get_or_insert(median),
            work,
            giga_operations_per_second: 1e3 * work.giga_operations / median,
            roofline: least / median,
            bound,
        }
    };
    rows.iter().zip(times).map(timing).collect()
}

/// The middle of sorted times, or the mean of the two middle ones.
fn median(sorted: &[Duration]) -> Duration {
    let (low, high) = ((sorted.len() - 1) / 2, sorted.len() / 2);
    (sorted[low] + sorted[high]) / 2
}

fn table(results: &[Timing]) -> Table {
    let relative = format!("T(n)/T({})", results.first().map_or(1, |first| first.rows));
    let mut table = Table::new(
        1,
        ["compute", "rows", "ms", "ms/row", &relative, "MB", "GOP/s", "roofline", "bound"],
    );
    for result in results {
        table.row([
            result.compute.clone(),
            result.rows.to_string(),
            format!("{:.2}", result.median_ms),
            format!("{:.2}", result.ms_per_row),
            format!("{:.2}", result.relative),
            format!("{:.1}", result.work.megabytes),
            format!("{:.0}", result.giga_operations_per_second),
            format!("{:.0} %", 100.0 * result.roofline),
            result.bound.name().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_from_medians() {
        let cost = Cost {
            weight_bytes: 4_000_000,
            kv_bytes: 0,
            layer_weights: 1_000_000,
            head_weights: 1_000_000,
            attention_width: 0,
        };
        let subject = Subject { compute: "bf16".into(), formats: vec![Format::Bf16], cost };
        let shape = Shape { context: 0, sequences: 2, all_rows: true };
        let ms = |values: &[u64]| values.iter().map(|&v| Duration::from_millis(v)).collect();
        let times = vec![ms(&[9, 1, 2]), ms(&[4, 8, 2, 100])];
        let ceilings = Ceilings { bandwidth: 4e9, peak: 32e9 };
        let results = timings(&subject, shape, &[1, 8], times, ceilings);
        assert_eq!((results[0].median_ms, results[0].min_ms), (2.0, 1.0));
        assert_eq!((results[1].median_ms, results[1].ms_per_row), (6.0, 0.375));
        assert_eq!((results[0].relative, results[1].relative), (1.0, 3.0));
        // 4 MB take 1 ms, 64 million operations 2 ms.
        assert_eq!((results[0].roofline, results[0].bound), (0.5, Bound::Memory));
        assert_eq!((results[1].roofline, results[1].bound), (2.0 / 6.0, Bound::Arithmetic));
        let expected = "\
compute  rows    ms  ms/row  T(n)/T(1)   MB  GOP/s  roofline       bound
bf16        1  2.00    1.00       1.00  4.0      4      50 %      memory
bf16        8  6.00    0.38       3.00  4.0     11      33 %  arithmetic
";
        assert_eq!(table(&results).to_string(), expected);
    }
}
