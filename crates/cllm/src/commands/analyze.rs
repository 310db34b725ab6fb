//! `cllm analyze`: how models settle their answers, and what they settle together.
//!
//! It reads traces, or makes them: with `--data` every variant of the model answers the
//! prompts, and `--out` keeps the traces for `cllm report`. The counting is in
//! [`crate::analysis`], this is what surrounds it.

mod decode;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::analysis::{Named, Settings, analyse};
use crate::cli::{JsonArgs, ModelArgs, ReadingArgs};
use crate::console;
use crate::decoder::{DecoderSpec, DraftArgs};
use crate::exit::bad_input;
use crate::named_file::{NamedFile, twice};
use crate::trace::read::read;

const EXAMPLES: &str = "Examples:
  cllm analyze --trace teacher=teacher.jsonl --trace cllm=cllm.jsonl
  cllm analyze --data prompts.jsonl --limit 50 --out traces \\
    --variant base --variant teacher=adapters/gsm8k-teacher --variant cllm=adapters/gsm8k-cllm";

/// Count how models settle their answers, and find the collocations they settle together.
///
/// Takes traces, or prompts that it answers itself. The model called `teacher`, or else the
/// first that guesses, is what the others are compared with.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AnalyzeArgs {
    /// Traces of a model, and what to call it; may be given several times.
    #[arg(long, env = "CLLM_TRACE", value_name = "NAME=FILE")]
    #[arg(required_unless_present = "data", conflicts_with = "data")]
    trace: Vec<NamedFile>,

    /// Prompts to answer, in a shape that `collect` takes.
    #[arg(long, env = "CLLM_DATA", value_name = "FILE")]
    data: Option<PathBuf>,

    #[command(flatten)]
    reading: ReadingArgs,

    /// Answer with the model and this adapter, or none; may be given several times.
    #[arg(long, env = "CLLM_VARIANT", value_name = "NAME[=ADAPTER]", requires = "data")]
    #[arg(conflicts_with = "adapter")]
    variant: Vec<decode::Variant>,

    /// Decoder of the answers.
    #[arg(short, long, env = "CLLM_DECODER", value_name = "DECODER", default_value = "jacobi:16")]
    decoder: DecoderSpec,

    /// Longest answer, in tokens.
    #[arg(long, env = "CLLM_MAX_NEW_TOKENS", value_name = "N", default_value = "256")]
    max_new_tokens: NonZeroUsize,

    /// Use only the first N prompts.
    #[arg(long, env = "CLLM_LIMIT", value_name = "N")]
    limit: Option<NonZeroUsize>,

    /// Seed of the first guesses.
    #[arg(long, env = "CLLM_SEED", value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Keep the traces in this folder, NAME.jsonl each.
    #[arg(long, env = "CLLM_OUT", value_name = "DIR", requires = "data")]
    out: Option<PathBuf>,

    /// Answer with `ar` too, compare the tokens, and keep those traces as NAME-ar.jsonl.
    #[arg(long, env = "CLLM_CHECK", requires = "data", value_parser = FalseyValueParser::new())]
    check: bool,

    /// Have the probability of every token in the traces: forwards are run again afterwards.
    #[arg(long, env = "CLLM_PROBABILITIES", requires = "out")]
    #[arg(value_parser = FalseyValueParser::new())]
    probabilities: bool,

    /// The model that lifts are relative to [default: `teacher`, or else the first].
    #[arg(long, env = "CLLM_BASELINE", value_name = "NAME")]
    baseline: Option<String>,

    /// Longest n-gram.
    #[arg(long, env = "CLLM_LONGEST", value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=64))]
    longest: usize,

    /// List n-grams that a model says at least so often.
    #[arg(long, env = "CLLM_MIN_COUNT", value_name = "N", default_value = "3")]
    min_count: NonZeroUsize,

    /// List so many n-grams of each kind.
    #[arg(long, env = "CLLM_TOP", value_name = "N", default_value_t = 10)]
    top: usize,

    /// Tokens of a block whose iterations are counted [default: the longest window].
    #[arg(long, env = "CLLM_BLOCK", value_name = "N")]
    block: Option<NonZeroUsize>,

    #[command(flatten)]
    draft: DraftArgs,

    #[command(flatten)]
    json: JsonArgs,

    #[command(flatten)]
    model: ModelArgs,
}

/// Reads or makes the traces, and prints what they say.
pub(crate) fn run(arguments: &AnalyzeArgs) -> anyhow::Result<()> {
    let folder;
    let (files, verdict) = match &arguments.data {
        None => (arguments.trace.clone(), Ok(())),
        Some(data) => {
            let place = match &arguments.out {
                Some(out) => out.clone(),
                None => {
                    folder = tempfile::tempdir()?;
                    folder.path().to_path_buf()
                }
            };
            decode::answer(arguments, data, &place)?
        }
    };
    if let Some(name) = twice(files.iter().map(|file| file.name.as_str())) {
        bad_input!("two models are called `{name}`: expected different names, as in NAME=FILE");
    }
    let named =
        files.into_iter().map(|NamedFile { name, path }| Ok(Named { name, answers: read(&path)? }));
    let named = named.collect::<anyhow::Result<Vec<_>>>()?;
    let settings = Settings {
        longest: arguments.longest,
        min_count: arguments.min_count.get(),
        top: arguments.top,
        block: arguments.block.map(NonZeroUsize::get),
    };
    let analysis = analyse(&named, arguments.baseline.as_deref(), settings)?;
    if arguments.json.json {
        writeln!(console::out(), "{}", serde_json::to_string(&analysis)?)?;
    } else {
        write!(console::coloured(), "{analysis}")?;
    }
    verdict
}
