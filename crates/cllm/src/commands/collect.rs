//! `cllm collect`: prompts to trajectories.

mod compare;
mod folder;
mod jobs;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use cllm_decode::collect::{Collector, Cost, Job, Settings, Sink, States};
use cllm_decode::{CausalLm, Draft};
use cllm_model::Model;
use serde_json::{Value, json};

use crate::cli::{JsonArgs, ModelArgs, ReadingArgs};
use crate::collect::check::Check;
use crate::collect::{manifest, part};
use crate::console::{self, note};
use crate::exit::{Interrupted, bad_input};
use crate::interrupt::Interruptible;
use crate::record::{self, Record, Shape};
use crate::session::Session;
use crate::source;
use crate::task::spider::judge::Judge;
use crate::task::spider::sandbox::Limits;
use crate::task::spider::schema::Schema;
use folder::{Folder, Open};

const HELP: &str = "\
Killed or stopped, the same command goes on: parts that are complete are not made again,
and the folder ends with the same bytes. Shards of one run may share the folder.

Example:
  cllm collect --data gsm8k/train.jsonl --out trajectories --max-new-tokens 256";

/// Collect Jacobi trajectories of a model's answers, to train a consistency model on.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct CollectArgs {
    /// Prompts: JSON lines or Parquet with `prompt`, `messages`, `question`, `turns`, `instruction`
    /// (alpaca), `conversations` (sharegpt) or Spider's keys.
    #[arg(long, env = "CLLM_DATA", value_name = "FILE")]
    data: PathBuf,

    /// Folder for the trajectories.
    #[arg(long, env = "CLLM_OUT", value_name = "DIR", required_unless_present = "compare_naive")]
    out: Option<PathBuf>,

    #[command(flatten)]
    reading: ReadingArgs,

    /// States to store: of the answer's blocks, or of the window that `jacobi` slides along
    /// the answer. Windows cost as much as decoding and are what the decoder meets.
    #[arg(long, env = "CLLM_STATES", value_enum, default_value = "blocks")]
    states: Visited,

    /// Length of a block, or rows of the window, in tokens.
    #[arg(long, env = "CLLM_BLOCK", value_name = "N", default_value = "16")]
    block: NonZeroUsize,

    /// Longest answer, in tokens; longer ones are dropped.
    #[arg(long, env = "CLLM_MAX_NEW_TOKENS", value_name = "N", default_value = "512")]
    max_new_tokens: NonZeroUsize,

    /// First guesses: `context` (drawn from the text before), `last-token` or `ngram`.
    #[arg(long, env = "CLLM_DRAFT", value_name = "DRAFT", default_value = "context")]
    draft: Draft,

    /// Seed of first guesses and augmentation.
    #[arg(long, env = "CLLM_SEED", value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Use only the first N prompts.
    #[arg(long, env = "CLLM_LIMIT", value_name = "N")]
    limit: Option<NonZeroUsize>,

    /// Split the work into so many shards.
    #[arg(long, env = "CLLM_NUM_SHARDS", value_name = "N", default_value = "1")]
    num_shards: NonZeroUsize,

    /// Do this shard, from 0.
    #[arg(long, env = "CLLM_SHARD", value_name = "I", default_value_t = 0)]
    shard: usize,

    /// Take the data's own answers, not the model's greedy ones.
    #[arg(long, env = "CLLM_USE_ANSWERS", value_parser = FalseyValueParser::new())]
    use_answers: bool,

    /// Answers to keep: those with the data's number (GSM8K) or with the result of the data's
    /// query (Spider), or all clean ones.
    #[arg(long, env = "CLLM_KEEP", value_enum, default_value = "all")]
    keep: Keep,

    /// Folder of Spider's databases, DIR/<db_id>/<db_id>.sqlite, for `--keep correct`; without
    /// it they are generated.
    #[arg(long, env = "CLLM_DATABASE", value_name = "DIR")]
    database: Option<PathBuf>,

    /// Also store every state with half of its wrong tokens set right.
    #[arg(long, env = "CLLM_AUGMENT", value_parser = FalseyValueParser::new())]
    augment: bool,

    /// Prompts a part file covers.
    #[arg(long, env = "CLLM_PART_SIZE", value_name = "N", default_value = "64")]
    part_size: NonZeroUsize,

    /// Most rows of a forward. Changes speed and memory, never the trajectories.
    #[arg(long, env = "CLLM_ROWS_PER_FORWARD", value_name = "N", default_value = "256")]
    rows_per_forward: NonZeroUsize,

    /// Most prompts under way, each with a KV cache.
    #[arg(long, env = "CLLM_PROMPTS_IN_FLIGHT", value_name = "N", default_value = "32")]
    prompts_in_flight: NonZeroUsize,

    /// Write nothing; collect the first N prompts wide and block by block, compare.
    #[arg(long, env = "CLLM_COMPARE_NAIVE", value_name = "N", conflicts_with = "out")]
    compare_naive: Option<NonZeroUsize>,

    #[command(flatten)]
    json: JsonArgs,

    #[command(flatten)]
    model: ModelArgs,
}

/// Which states are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Visited {
    Blocks,
    Window,
}

/// Which answers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Keep {
    Correct,
    All,
}

/// Collects.
pub(crate) fn run(arguments: CollectArgs) -> anyhow::Result<()> {
    let mut reading = arguments.reading.reading()?;
    let limit = arguments.compare_naive.or(arguments.limit).map(NonZeroUsize::get);
    let (shape, records) = record::read(&arguments.data, limit, &reading)?;
    let check = check(&arguments, shape, &records, reading.schemas.take())?;
    let mut session = Session::load(&arguments.model)?;
    if arguments.compare_naive.is_some() {
        return compare::run(&arguments, &mut session, &records);
    }
    let Some(out) = &arguments.out else { bail!("no --out") };
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;

    let size = arguments.part_size.get();
    let parts = records.len().div_ceil(size);
    let settings = settings(&arguments, &session, parts)?;
    for path in manifest::parts(out)? {
        if let Some(what) = manifest::difference(&part::info(&path)?.0.settings, &settings) {
            bad_input!("{}: made with other settings: {what}", path.display());
        }
    }
    let mine = |p: &usize| p % arguments.num_shards.get() == arguments.shard;
    let todo: Vec<usize> =
        (0..parts).filter(mine).filter(|&p| !part::path(out, p).exists()).collect();

    let (mut queue, mut unusable, mut open) = (VecDeque::new(), Vec::new(), BTreeMap::new());
    for &p in &todo {
        let indices = p * size..records.len().min((p + 1) * size);
        open.insert(p, Open { left: indices.len(), ..Open::default() });
        for index in indices {
            match jobs::job(&arguments, &session, index, &records[index]) {
                Ok(job) => queue.push_back(job),
                Err(error) => unusable.push((index as u64, jobs::reason(error)?)),
            }
        }
    }
    note(format_args!("{} of {parts} parts to do, {} prompts", todo.len(), queue.len()));
    let Model { lm, tokenizer, .. } = &mut session.model;
    let (records, settings) = (&records[..], &settings);
    let mut folder = Folder {
        arguments: &arguments,
        records,
        settings,
        check: &check,
        tokenizer,
        open,
        error: None,
    };
    unusable.into_iter().for_each(|(id, reason)| folder.drop_one(id, reason));
    let cost = drive(&arguments, lm, queue, &mut folder);
    if let Some(error) = folder.error.take() {
        return Err(error);
    }
    if !manifest::parts(out)?.is_empty() {
        let manifest = manifest::Manifest::write(out)?;
        let mut stdout = console::out();
        writeln!(stdout, "{}", serde_json::to_string(&manifest)?)?;
    }
    let cost = cost?;
    console::aside(format_args!(
        "{} forwards; rows: {} of prompts, {} of answers, {} of blocks",
        cost.forwards, cost.prompt_rows, cost.answer_rows, cost.block_rows
    ));
    Ok(())
}

/// What the records must allow; how their answers are checked.
fn check(
    arguments: &CollectArgs,
    shape: Shape,
    records: &[Record],
    schemas: Option<HashMap<String, Schema>>,
) -> anyhow::Result<Check> {
    let CollectArgs { shard, num_shards, keep, database, .. } = arguments;
    if *shard >= num_shards.get() {
        bad_input!("--shard {shard}: expected less than --num-shards {num_shards}");
    }
    let check = match (keep, shape) {
        (Keep::All, _) => Check::Nothing,
        (Keep::Correct, Shape::Question) => Check::Number,
        (Keep::Correct, Shape::Spider) => Check::Query(Box::new(Judge {
            schemas: schemas.unwrap_or_default(),
            folder: database.clone(),
            instances: Judge::INSTANCES,
            limits: Limits::default(),
            keep_distinct: false,
        })),
        (Keep::Correct, _) => bad_input!(
            "--keep correct: expected records with a check, `question` and `answer` (GSM8K) or \
             Spider's, found {shape:?}"
        ),
    };
    match database {
        Some(folder) if !folder.is_dir() => {
            bad_input!("{}: expected a folder of databases", folder.display())
        }
        Some(_) if !matches!(check, Check::Query(_)) => {
            bad_input!("--database: expected --keep correct and Spider's records")
        }
        _ => {}
    }
    if arguments.states == Visited::Window {
        let given = [
            ("--use-answers", arguments.use_answers),
            ("--augment", arguments.augment),
            ("--compare-naive", arguments.compare_naive.is_some()),
        ];
        if let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) {
            bad_input!("{flag}: expected --states blocks, found window");
        }
    }
    let needed = arguments.use_answers || *keep == Keep::Correct;
    if let (true, Some(at)) = (needed, records.iter().position(|r| r.answer.is_none())) {
        bad_input!("{}: record {}: no answer", arguments.data.display(), at + 1);
    }
    Ok(check)
}

/// What decides the bytes of a part.
fn settings(arguments: &CollectArgs, session: &Session, parts: usize) -> anyhow::Result<Value> {
    let template = arguments.reading.template.as_ref();
    let mut settings = json!({
        "data_sha256": source::sha256(&arguments.data)?,
        "tables_sha256": arguments.reading.tables.as_deref().map(source::sha256).transpose()?,
        "model": session.name,
        "model_sha256": session.sha256()?,
        "tokenizer_sha256": source::tokenizer_sha256(&session.model.tokenizer),
        "weights": session.weights(),
        "context": session.model.lm.context_length(),
        "stop_tokens": session.model.stop_tokens,
        "template": template,
        "states": if arguments.states == Visited::Window { "window" } else { "blocks" },
        "block": arguments.block,
        "max_new_tokens": arguments.max_new_tokens,
        "draft": arguments.draft.name(),
        "seed": arguments.seed,
        "limit": arguments.limit,
        "answers": if arguments.use_answers { "data" } else { "greedy" },
        "keep": if arguments.keep == Keep::Correct { "correct" } else { "all" },
        "augment": arguments.augment,
        "part_size": arguments.part_size,
        "parts": parts,
    });
    if let Some(folder) = &arguments.database {
        settings["database"] = folder.display().to_string().into();
    }
    Ok(settings)
}

fn width(arguments: &CollectArgs) -> Settings {
    Settings {
        block: arguments.block.get(),
        states: match arguments.states {
            Visited::Blocks => States::Blocks,
            Visited::Window => States::Window,
        },
        draft: arguments.draft,
        seed: arguments.seed,
        rows: arguments.rows_per_forward.get(),
        prompts: arguments.prompts_in_flight.get(),
    }
}

/// Runs jobs until all are done, Ctrl-C, or a failed write.
fn drive<L: CausalLm>(
    arguments: &CollectArgs,
    lm: &mut L,
    mut jobs: VecDeque<Job>,
    sink: &mut (impl Sink + Failing),
) -> anyhow::Result<Cost> {
    let mut collector = Collector::new(width(arguments))?;
    let interruptible = Interruptible::new();
    while !sink.failed() {
        if jobs.is_empty() && collector.is_idle() {
            break;
        }
        if interruptible.stopped() {
            return Err(Interrupted.into());
        }
        while let (true, Some(job)) = (collector.has_room(), jobs.front()) {
            collector.push(lm, job.clone())?;
            jobs.pop_front();
        }
        collector.step(lm, sink)?;
    }
    Ok(collector.cost())
}

/// A sink that may have met an error.
trait Failing {
    fn failed(&self) -> bool;
}
