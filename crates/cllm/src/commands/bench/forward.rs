//! `cllm bench forward`: the time of one forward against its number of rows.

use std::io::Write;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use clap::Args;
use cllm_decode::{Batch, CausalLm, DEFAULT_PREFILL_CHUNK, KvCache, LmError, Output, Token, Want};
use serde::Serialize;

use crate::cli::{JsonArgs, ModelArgs, RunArgs};
use crate::console::{self, note};
use crate::exit::bad_input;
use crate::machine::Machine;
use crate::session::Session;
use crate::source::ModelRef;
use crate::table::Table;

const HELP: &str = "\
T(n)/T(1) is what n rows cost in units of one autoregressive step: Jacobi decoding with a
block of n pays off when it settles more tokens a forward than that. GB/s counts the
weights, which every forward reads once.

Example:
  cllm bench forward --rows 1,2,4,8,16,32 --context 256";

/// Time one forward for several row counts.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ForwardBenchArgs {
    /// Row counts, separated by commas.
    #[arg(long, env = "CLLM_ROWS", value_name = "LIST", value_delimiter = ',')]
    #[arg(default_value = "1,2,4,8,16,32")]
    rows: Vec<NonZeroUsize>,

    /// Tokens in the cache that every row attends to.
    #[arg(short, long, env = "CLLM_CONTEXT", value_name = "N", default_value = "256")]
    context: usize,

    /// Measurements per row count; the median is reported.
    #[arg(long, env = "CLLM_REPEAT", value_name = "N", default_value = "30")]
    repeat: NonZeroUsize,

    #[command(flatten)]
    json: JsonArgs,

    /// Model: as for `cllm generate`.
    #[arg(short, long, env = "CLLM_MODEL", value_name = "MODEL", default_value = "default")]
    model: ModelRef,

    #[command(flatten)]
    run: RunArgs,
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
    repeat: NonZeroUsize,
    weights: String,
    weight_bytes: usize,
}

/// One row count. Times are in milliseconds.
#[derive(Debug, Serialize)]
struct Timing {
    rows: usize,
    median_ms: f64,
    min_ms: f64,
    ms_per_row: f64,
    /// Over the smallest row count measured; that is one row unless told otherwise.
    relative: f64,
    /// Weights read by the second, in GB = 10^9 bytes.
    weight_gb_per_second: f64,
}

/// Measures.
pub(crate) fn run(arguments: ForwardBenchArgs) -> anyhow::Result<()> {
    let mut rows: Vec<usize> = arguments.rows.iter().map(|n| n.get()).collect();
    rows.sort_unstable();
    rows.dedup();
    let model = ModelArgs { model: arguments.model, context: None, run: arguments.run };
    let mut session = Session::load(&model)?;
    let lm = &mut session.model.lm;
    let needed = rows.last().map_or(0, |most| arguments.context.saturating_add(*most));
    if needed > lm.context_length() {
        bad_input!(
            "--context {} and {} rows need {needed} positions; the model has {}",
            arguments.context,
            needed - arguments.context,
            lm.context_length()
        );
    }
    let weight_bytes = lm.weight_bytes();
    note(format_args!("filling the cache with {} tokens", arguments.context));
    let times = measure(lm, arguments.context, &rows, arguments.repeat.get())?;
    let report = Report {
        model: session.name.clone(),
        machine: session.machine(),
        settings: Settings {
            context: arguments.context,
            repeat: arguments.repeat,
            weights: session.weights(),
            weight_bytes,
        },
        results: timings(&rows, times, weight_bytes),
    };
    let mut out = console::out();
    if !arguments.json.json {
        write!(out, "{}", table(&report.results))?;
    }
    writeln!(out, "{}", serde_json::to_string(&report)?)?;
    Ok(())
}

/// Times forwards of each row count, `repeat` times, in turns so that a machine that
/// slows down slows all of them; one round before the first is not counted. Every row
/// asks for the argmax, as a Jacobi block does.
fn measure<L: CausalLm>(
    lm: &mut L,
    context: usize,
    rows: &[usize],
    repeat: usize,
) -> Result<Vec<Vec<Duration>>, LmError> {
    // Which tokens they are does not matter to the time; these spread over the vocabulary.
    let vocab = lm.vocab_size();
    let token = |i: usize| (i.wrapping_mul(7919) % vocab) as Token;
    let (mut batch, mut output) = (Batch::new(), Output::new());
    let mut cache = lm.new_cache();
    while cache.len() < context {
        let read = cache.len();
        let chunk = (context - read).min(DEFAULT_PREFILL_CHUNK);
        batch.clear();
        batch.push_causal(0, read, (read..read + chunk).map(token), |_| Want::Nothing);
        lm.forward(&batch, &mut [&mut cache], &mut output)?;
        cache.keep(&(0..chunk).collect::<Vec<_>>());
    }
    let mut times = vec![Vec::with_capacity(repeat); rows.len()];
    for round in 0..=repeat {
        for (&n, times) in rows.iter().zip(&mut times) {
            batch.clear();
            batch.push_causal(0, context, (context..context + n).map(token), |_| Want::Argmax);
            let started = Instant::now();
            lm.forward(&batch, &mut [&mut cache], &mut output)?;
            let time = started.elapsed();
            cache.truncate(context);
            if round > 0 {
                times.push(time);
            }
        }
    }
    Ok(times)
}

fn timings(rows: &[usize], times: Vec<Vec<Duration>>, weight_bytes: usize) -> Vec<Timing> {
    let mut first = None;
    let timing = |(&rows, mut times): (&usize, Vec<Duration>)| {
        times.sort_unstable();
        let median = median(&times).as_secs_f64();
        let first = *first.get_or_insert(median);
        Timing {
            rows,
            median_ms: 1e3 * median,
            min_ms: 1e3 * times[0].as_secs_f64(),
            ms_per_row: 1e3 * median / rows as f64,
            relative: median / first,
            weight_gb_per_second: weight_bytes as f64 / median / 1e9,
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
    let mut table = Table::new(0, ["rows", "ms", "ms/row", relative.as_str(), "GB/s"]);
    for result in results {
        table.row([
            result.rows.to_string(),
            format!("{:.2}", result.median_ms),
            format!("{:.2}", result.ms_per_row),
            format!("{:.2}", result.relative),
            format!("{:.1}", result.weight_gb_per_second),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use cllm_decode::fake::{Fake, Kind};

    use super::*;

    #[test]
    fn every_row_count_is_measured_on_a_full_cache() {
        let mut lm = Fake::new(Kind::ContextHash(3), 97, 1200);
        let times = measure(&mut lm, 1100, &[1, 4, 100], 3).unwrap();
        assert_eq!(times.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3]);
        assert_eq!(lm.forwards, 3 + 4 * 3, "three prefill chunks, one uncounted round");
        let beyond = measure(&mut lm, 1101, &[100], 1);
        assert!(matches!(beyond, Err(LmError::ContextFull { .. })));
    }

    #[test]
    fn figures_come_from_medians() {
        let ms = |values: &[u64]| values.iter().map(|&v| Duration::from_millis(v)).collect();
        let results = timings(&[1, 8], vec![ms(&[9, 1, 2]), ms(&[4, 8, 2, 100])], 4_000_000);
        assert_eq!((results[0].median_ms, results[0].min_ms), (2.0, 1.0));
        assert_eq!((results[1].median_ms, results[1].ms_per_row), (6.0, 0.75));
        assert_eq!((results[0].relative, results[1].relative), (1.0, 3.0));
        assert_eq!(results[0].weight_gb_per_second, 2.0);
        let expected = "\
rows    ms  ms/row  T(n)/T(1)  GB/s
   1  2.00    2.00       1.00   2.0
   8  6.00    0.75       3.00   0.7
";
        assert_eq!(table(&results).to_string(), expected);
    }
}
