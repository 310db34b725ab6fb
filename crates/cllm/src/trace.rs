//! Traces: files of JSON lines that say what every forward of an answer did.
//!
//! | line | `type` | holds |
//! |---|---|---|
//! | first | `header` | format, version, model, decoder, settings, prompt tokens |
//! | one per forward | `forward` | phase, start, draft, output, settled, rows, ms |
//! | last | `answer` | tokens, why it ended, figures, the texts of all tokens |
//!
//! A file holds one answer or several, one after another. `ms` is the time since the start
//! at which the forward was done. Line by line the `draft` is the state that went in and
//! `output` the state that came out, so the file is the trajectory of the decode; the
//! tokens of the answer are the first `settled` of every `output`, joined. A forward has
//! `probabilities`, those of `output`, if they were asked for ([`crate::replay`]). The file
//! is written beside its place and then renamed: a reader never sees half a trace.
//!
//! Version 2 added `texts`, `probabilities` and several answers; [`read`] takes both.

pub(crate) mod read;

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use cllm_decode::{Finish, Phase, RecordedIteration, Request, Token};
use cllm_model::Tokenizer;
use serde::Serialize;

use crate::figures::Figures;
use crate::replay::Probabilities;
use crate::run::Run;
use crate::sampling::Chosen;

/// What a trace calls itself.
const FORMAT: &str = "cllm-trace";

/// Raised when a reader of the last version would go wrong.
const VERSION: u32 = 2;

/// What was asked, beside the request itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The model, as it was named.
    pub(crate) model: &'a str,
    /// The decoder, as it prints.
    pub(crate) decoder: &'a str,
    /// The seed of first guesses.
    pub(crate) seed: u64,
    /// Stop strings.
    pub(crate) stop: &'a [String],
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Header {
        format: &'static str,
        version: u32,
        model: &'a str,
        decoder: &'a str,
        seed: u64,
        #[serde(flatten)]
        sampling: Chosen,
        max_new_tokens: usize,
        stop: &'a [String],
        stop_tokens: &'a [Token],
        prompt_tokens: &'a [Token],
    },
    Forward {
        phase: &'static str,
        start: usize,
        draft: &'a [Token],
        output: &'a [Token],
        settled: usize,
        rows: usize,
        ms: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        probabilities: Option<Vec<f64>>,
    },
    Answer {
        tokens: &'a [Token],
        finish_reason: &'static str,
        figures: Figures,
        texts: BTreeMap<Token, String>,
    },
}

/// A file of traces under way. It takes its place with [`TraceFile::finish`].
pub(crate) struct TraceFile {
    path: PathBuf,
    writer: BufWriter<tempfile::NamedTempFile>,
}

impl TraceFile {
    /// Begins a file that shall be at `path`.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As public as any other file; temporary ones are private unless told otherwise.
        let file = tempfile::Builder::new().make_in(folder, |path| {
            std::fs::OpenOptions::new().write(true).create_new(true).open(path)
        });
        let file = file.with_context(|| failed(path))?;
        Ok(Self { path: path.to_path_buf(), writer: BufWriter::new(file) })
    }

    /// Adds an answer. `probabilities` are empty where they were not asked for.
    pub(crate) fn add(
        &mut self,
        asked: Asked<'_>,
        request: &Request,
        run: &Run,
        probabilities: &Probabilities,
        tokenizer: &Tokenizer,
    ) -> anyhow::Result<()> {
        let text = |token| tokenizer.token_text(token).into_owned();
        self.lines(lines(asked, request, run, probabilities, &text))
    }

    fn lines<'a>(&mut self, lines: impl Iterator<Item = Line<'a>>) -> anyhow::Result<()> {
        for line in lines {
            serde_json::to_writer(&mut self.writer, &line)
                .map_err(std::io::Error::from)
                .and_then(|()| self.writer.write_all(b"\n"))
                .with_context(|| failed(&self.path))?;
        }
        Ok(())
    }

    /// Puts the file in its place.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let Self { path, writer } = self;
        let file =
            writer.into_inner().map_err(|e| e.into_error()).with_context(|| failed(&path))?;
        file.persist(&path).map_err(|e| e.error).with_context(|| failed(&path))?;
        Ok(())
    }
}

fn failed(path: &Path) -> String {
    format!("cannot write the trace {}", path.display())
}

fn lines<'a>(
    asked: Asked<'a>,
    request: &'a Request,
    run: &'a Run,
    probabilities: &'a Probabilities,
    text: &dyn Fn(Token) -> String,
) -> impl Iterator<Item = Line<'a>> {
    let header = Line::Header {
        format: FORMAT,
        version: VERSION,
        model: asked.model,
        decoder: asked.decoder,
        seed: asked.seed,
        sampling: Chosen::from(&request.sampling),
        max_new_tokens: request.max_new_tokens,
        stop: asked.stop,
        stop_tokens: &request.stop_tokens,
        prompt_tokens: &request.prompt,
    };
    let answer = Line::Answer {
        tokens: &run.answer.tokens,
        finish_reason: finish_reason(run.answer.finish),
        figures: Figures::of([run]),
        texts: texts(request, run, text),
    };
    let forwards = run.forwards.iter().enumerate();
    let forwards =
        forwards.map(|(i, (forward, at))| forward_line(forward, *at, probabilities.of(i)));
    std::iter::once(header).chain(forwards).chain(std::iter::once(answer))
}

/// The text of every token that the trace names.
fn texts(request: &Request, run: &Run, text: &dyn Fn(Token) -> String) -> BTreeMap<Token, String> {
    let forwards = run.forwards.iter().map(|(forward, _)| forward);
    let states = forwards.flat_map(|forward| forward.draft.iter().chain(&forward.output));
    let tokens = request.prompt.iter().chain(&request.stop_tokens).chain(states);
    let mut texts = BTreeMap::new();
    for &token in tokens {
        texts.entry(token).or_insert_with(|| text(token));
    }
    texts
}

fn forward_line(
    forward: &RecordedIteration,
    at: Duration,
    probabilities: Option<Vec<f64>>,
) -> Line<'_> {
    Line::Forward {
        phase: match forward.phase {
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
        },
        start: forward.start,
        draft: &forward.draft,
        output: &forward.output,
        settled: forward.settled,
        rows: forward.rows,
        // Whole microseconds: more digits would be noise.
        ms: at.as_micros() as f64 / 1e3,
        probabilities,
    }
}

/// Why an answer ended, in the words of the OpenAI API.
pub(crate) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::StopToken | Finish::Observer => "stop",
        Finish::MaxNewTokens | Finish::Context => "length",
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use cllm_decode::fake::{Fake, Kind};
    use cllm_decode::{CausalLm, Sequence};
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_trace_tells_the_whole_decode() {
        let mut lm = Fake::new(Kind::Copy(3), 16, 64);
        let request = Request {
            prompt: vec![1, 2, 3],
            max_new_tokens: 20,
            stop_tokens: vec![9],
            ..Request::default()
        };
        let mut sequence = Sequence::new(lm.new_cache());
        let decoder = "jacobi:4".parse().unwrap();
        let run = crate::run::run(
            &mut lm,
            &mut sequence,
            decoder,
            &crate::decoder::Making::default(),
            &request,
            &mut |_| ControlFlow::Continue(()),
        )
        .unwrap();

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        let stop = ["\n\n".to_owned()];
        let asked = Asked { model: "fake", decoder: "jacobi:4", seed: 0, stop: &stop };
        let probabilities = Probabilities::replay(&mut lm, &request, &run).unwrap();
        let mut file = TraceFile::create(&path).unwrap();
        let text = |token: Token| format!("<{token}>");
        for _ in 0..2 {
            file.lines(lines(asked, &request, &run, &probabilities, &text)).unwrap();
        }
        file.finish().unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "no temporary file is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
            let plain = folder.path().join("plain");
            std::fs::write(&plain, "").unwrap();
            assert_eq!(mode(&path), mode(&plain), "as public as any other");
        }

        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let lines = &lines[..lines.len() / 2];
        let (header, answer) = (&lines[0], &lines[lines.len() - 1]);
        assert_eq!(header["type"], "header");
        assert_eq!((&header["format"], &header["version"]), (&"cllm-trace".into(), &2.into()));
        assert_eq!(header["prompt_tokens"], serde_json::json!([1, 2, 3]));
        assert_eq!(answer["type"], "answer");
        assert_eq!(answer["finish_reason"], "length");

        let (mut tokens, mut decode, mut before) = (Vec::new(), 0, 0.0);
        for line in &lines[1..lines.len() - 1] {
            assert_eq!(line["type"], "forward");
            assert_eq!(line["start"], tokens.len());
            decode += usize::from(line["phase"] == "decode");
            let settled = line["settled"].as_u64().unwrap() as usize;
            tokens.extend_from_slice(&line["output"].as_array().unwrap()[..settled]);
            let ms = line["ms"].as_f64().unwrap();
            assert!(ms >= before);
            before = ms;
        }
        assert_eq!(answer["tokens"], Value::Array(tokens), "the forwards add up to the answer");
        assert_eq!(answer["figures"]["forwards"], decode);

        let answers = read::read(&path).unwrap();
        assert_eq!(answers.len(), 2);
        let read = &answers[1];
        assert_eq!((&read.tokens, read.texts[&1].as_str()), (&run.answer.tokens, "<1>"));
        assert_eq!(read.forwards.len(), run.forwards.len());
        for (found, (expected, _)) in read.forwards.iter().zip(&run.forwards) {
            assert_eq!(found.recorded(), *expected);
            let probabilities = found.probabilities.as_ref().unwrap();
            assert_eq!(probabilities.len(), expected.output.len());
            assert!(probabilities.iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let error = TraceFile::create(Path::new("no/such/folder/trace.jsonl")).err().unwrap();
        assert!(error.to_string().contains("no/such/folder"), "{error}");
    }
}
