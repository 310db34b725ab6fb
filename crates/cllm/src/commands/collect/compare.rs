//! `--compare-naive`: how much faster wide collection is than block by block.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::time::Instant;

use anyhow::bail;
use cllm_decode::collect::{Collected, Job, Sink};
use cllm_decode::naive::{self, Memory};
use serde_json::json;

use super::{CollectArgs, Failing, drive, jobs, width};
use crate::console::{self, note};
use crate::record::Record;
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

/// All ways, timed; an error if a trajectory differs.
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

    let mut identical = vec![true; queue.len()];
    let mut block_by_block = |memory| -> anyhow::Result<f64> {
        let started = Instant::now();
        for (job, identical) in queue.iter().zip(&mut identical) {
            let naive = naive::collect(lm, &width(arguments), job, memory)?;
            *identical &= wide.0.get(&job.id) == Some(&naive);
        }
        Ok(started.elapsed().as_secs_f64())
    };
    let cached_seconds = block_by_block(Memory::Text)?;
    note(format_args!("block by block, settled text in the KV cache: {cached_seconds:.1} s"));
    let naive_seconds = block_by_block(Memory::Nothing)?;
    note(format_args!("block by block, no KV cache: {naive_seconds:.1} s"));
    let identical = identical.into_iter().filter(|&identical| identical).count();
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
        "cached_seconds": cached_seconds,
        "naive_seconds": naive_seconds,
        "speedup_over_cached": cached_seconds / wide_seconds,
        "speedup_over_naive": naive_seconds / wide_seconds,
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
