//! `--compare-naive`: how much faster wide collection is than block by block.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::time::Instant;

use anyhow::bail;
use cllm_decode::collect::{Collected, Job, Sink};
use cllm_decode::naive;
use serde_json::json;

use super::{CollectArgs, Failing, drive, jobs, width};
use crate::collect::record::Record;
use crate::console::{self, note};
use crate::session::Session;

/// Keeps all in memory.
#[derive(Default)]
struct InMemory(BTreeMap<u64, Collected>);

impl Sink for InMemory {
    fn collected(&mut self, collected: Collected) {
        self.0.insert(collected.id, collected);
    }
}

impl Failing for InMemory {
    fn failed(&self) -> bool {
        false
    }
}

/// Both ways, timed; an error if a trajectory differs.
pub(super) fn run(
    arguments: &CollectArgs,
    session: &mut Session,
    records: &[Record],
) -> anyhow::Result<()> {
    let queue =
        records.iter().enumerate().map(|(i, record)| jobs::job(arguments, session, i, record));
    let queue: VecDeque<Job> = queue.collect::<Result<_, _>>()?;
    let (weights, machine) = (session.weights(), session.machine());
    let lm = &mut session.model.lm;
    let mut wide = InMemory::default();
    let started = Instant::now();
    let cost = drive(arguments, lm, queue.clone(), &mut wide)?;
    let wide_seconds = started.elapsed().as_secs_f64();
    note(format_args!("wide: {wide_seconds:.1} s"));

    let started = Instant::now();
    let mut identical = 0;
    for job in &queue {
        let naive = naive::collect(lm, &width(arguments), job)?;
        identical += usize::from(wide.0.get(&job.id) == Some(&naive));
    }
    let naive_seconds = started.elapsed().as_secs_f64();
    let tokens: usize = wide.0.values().map(|collected| collected.answer.len()).sum();
    let report = json!({
        "model": session.name,
        "machine": machine,
        "weights": weights,
        "prompts": queue.len(),
        "answer_tokens": tokens,
        "block": arguments.block,
        "rows_per_forward": arguments.rows_per_forward,
        "wide_seconds": wide_seconds,
        "naive_seconds": naive_seconds,
        "speedup": naive_seconds / wide_seconds,
        "wide_tokens_per_second": tokens as f64 / wide_seconds,
        "forwards": cost.forwards,
        "prompt_rows": cost.prompt_rows,
        "answer_rows": cost.answer_rows,
        "block_rows": cost.block_rows,
        "identical": identical as f64 / queue.len() as f64,
    });
    writeln!(console::out(), "{report}")?;
    if identical < queue.len() {
        bail!("{} of {} prompts have other trajectories", queue.len() - identical, queue.len());
    }
    Ok(())
}
