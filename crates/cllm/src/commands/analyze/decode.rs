//! Answers prompts with variants of a model, and writes their traces.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, anyhow};
use cllm_decode::Request;

use super::AnalyzeArgs;
use crate::cli::{DecodeArgs, ModelArgs};
use crate::console::note;
use crate::contest::first_difference;
use crate::decoder::DecoderSpec;
use crate::exit::{Interrupted, bad_input};
use crate::figures::Figures;
use crate::named_file::{NamedFile, twice};
use crate::record::{self, Record};
use crate::run::Run;
use crate::sampling::SamplingArgs;
use crate::session::{Onlooker, Session};
use crate::trace::{Asked, TraceFile};

/// The model with an adapter or without, and what to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variant {
    name: String,
    adapter: Option<PathBuf>,
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, adapter) = match text.split_once('=') {
            Some((name, adapter)) => (name, Some(PathBuf::from(adapter))),
            None => (text, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(format!("`{name}`: expected a name of letters, digits, `-`, `_` and `.`"));
        }
        if adapter.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(format!("`{text}`: expected NAME or NAME=ADAPTER"));
        }
        Ok(Self { name: name.to_owned(), adapter })
    }
}

/// Answers all prompts with all variants. Returns the traces, and an error if an answer was
/// checked and differs from autoregressive decoding.
pub(super) fn answer(
    arguments: &AnalyzeArgs,
    data: &Path,
    folder: &Path,
) -> anyhow::Result<(Vec<NamedFile>, anyhow::Result<()>)> {
    let limit = arguments.limit.map(NonZeroUsize::get);
    let records = record::read_mixed(data, limit, &arguments.reading.reading()?)?;
    let mut variants = arguments.variant.clone();
    if variants.is_empty() {
        variants.push(Variant { name: "model".into(), adapter: None });
    }
    if let Some(name) = twice(variants.iter().map(|variant| variant.name.as_str())) {
        bad_input!("two variants are called `{name}`: expected different names");
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut files = Vec::new();
    let mut verdict = Ok(());
    for variant in variants {
        let mut model = arguments.model.clone();
        model.adapter.extend(variant.adapter.clone());
        let made = of_variant(arguments, &variant.name, &model, data, &records, folder)?;
        files.push(NamedFile { name: variant.name, path: made.path });
        verdict = verdict.and(made.verdict);
    }
    Ok((files, verdict))
}

struct Made {
    path: PathBuf,
    verdict: anyhow::Result<()>,
}

fn of_variant(
    arguments: &AnalyzeArgs,
    name: &str,
    model: &ModelArgs,
    data: &Path,
    records: &[Record],
    folder: &Path,
) -> anyhow::Result<Made> {
    let mut session = Session::load(model)?;
    session.prepare(&[arguments.decoder], arguments.seed, model, &arguments.draft)?;
    let at = |at: usize| record::place(data, at);
    let mut requests = Vec::with_capacity(records.len());
    for Record { at: line, prompt, .. } in records {
        let request = session.request(prompt, Some(arguments.max_new_tokens));
        requests.push((*line, request.with_context(|| at(*line))?));
    }
    let path = folder.join(format!("{name}.jsonl"));
    let mut file = TraceFile::create(&path)?;
    let mut ar_file = match arguments.check {
        true => Some(TraceFile::create(&folder.join(format!("{name}-ar.jsonl")))?),
        false => None,
    };
    let mut verdict = Ok(());
    for (done, (line, request)) in requests.iter().enumerate() {
        let run = traced(arguments, arguments.decoder, &mut session, request, &mut file)?;
        if let Some(file) = &mut ar_file {
            let ar = traced(arguments, DecoderSpec::Ar, &mut session, request, file)?;
            if let Some(token) = first_difference(&run.answer.tokens, &ar.answer.tokens) {
                let (decoder, at) = (arguments.decoder, at(*line));
                let what = format!("{at}: {name}: {decoder} differs from ar at token {token}");
                verdict = verdict.and(Err(anyhow!(what)));
            }
        }
        note(format_args!("[{name} {}/{}] {}", done + 1, requests.len(), Figures::of([&run])));
    }
    file.finish()?;
    ar_file.map(TraceFile::finish).transpose()?;
    Ok(Made { path, verdict })
}

/// Answers a request and adds its trace to a file.
fn traced(
    arguments: &AnalyzeArgs,
    decoder: DecoderSpec,
    session: &mut Session,
    request: &Request,
    file: &mut TraceFile,
) -> anyhow::Result<Run> {
    let settings = DecodeArgs {
        decoder,
        max_new_tokens: Some(arguments.max_new_tokens),
        stop: Vec::new(),
        seed: arguments.seed,
        draft: arguments.draft.clone(),
        sampling: SamplingArgs::default(),
    };
    let onlooker = Onlooker { on_forward: &mut |_, _| {}, probabilities: arguments.probabilities };
    let mut text = session.new_text();
    let reply = session.reply_watched(&mut text, &settings, request, &mut |_| Ok(()), onlooker)?;
    if reply.interrupted {
        return Err(Interrupted.into());
    }
    let name = decoder.to_string();
    let asked =
        Asked { model: &session.name, decoder: &name, seed: arguments.seed, stop: &settings.stop };
    file.add(asked, request, &reply.run, &reply.probabilities, &session.model.tokenizer)?;
    Ok(reply.run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_have_names_that_make_file_names() {
        let parse = |text: &str| text.parse::<Variant>();
        let variant = |name: &str, adapter: Option<&str>| Variant {
            name: name.into(),
            adapter: adapter.map(PathBuf::from),
        };
        assert_eq!(parse("base"), Ok(variant("base", None)));
        assert_eq!(parse("cllm=a/b"), Ok(variant("cllm", Some("a/b"))));
        for text in ["", "=a", "../x=a", "a/b", "a=", ".a"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
