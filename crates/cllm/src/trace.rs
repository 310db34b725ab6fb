//! The trace of one answer: a file of JSON lines that says what every forward did.
//!
//! | line | `type` | holds |
//! |---|---|---|
//! | first | `header` | format, version, model, decoder, settings, prompt tokens |
//! | one per forward | `forward` | phase, start, draft, output, settled, rows, ms |
//! | last | `answer` | tokens, why it ended, figures |
//!
//! `ms` is the time since the start at which the forward was done. Line by line the
//! `draft` is the state that went in and `output` the state that came out, so the file is
//! the trajectory of the decode; the tokens of the answer are the first `settled` of every
//! `output`, joined. It is written beside its place and then renamed: a reader never
//! sees half a trace.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use cllm_decode::{Finish, Phase, RecordedIteration, Request};
use serde::Serialize;

use crate::figures::Figures;
use crate::run::Run;

/// Raised when a reader of the last version would go wrong.
const VERSION: u32 = 1;

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
        max_new_tokens: usize,
        stop: &'a [String],
        stop_tokens: &'a [u32],
        prompt_tokens: &'a [u32],
    },
    Forward {
        phase: &'static str,
        start: usize,
        draft: &'a [u32],
        output: &'a [u32],
        settled: usize,
        rows: usize,
        ms: f64,
    },
    Answer {
        tokens: &'a [u32],
        finish_reason: &'static str,
        figures: Figures,
    },
}

/// Writes the trace of `run` to `path`.
pub(crate) fn write(
    path: &Path,
    asked: Asked<'_>,
    request: &Request,
    run: &Run,
) -> anyhow::Result<()> {
    let failed = || format!("cannot write the trace {}", path.display());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
    let mut writer = BufWriter::new(&mut file);
    for line in lines(asked, request, run) {
        serde_json::to_writer(&mut writer, &line)
            .map_err(std::io::Error::from)
            .with_context(failed)?;
        writer.write_all(b"\n").with_context(failed)?;
    }
    writer.flush().with_context(failed)?;
    drop(writer);
    file.persist(path).map_err(|e| e.error).with_context(failed)?;
    Ok(())
}

fn lines<'a>(
    asked: Asked<'a>,
    request: &'a Request,
    run: &'a Run,
) -> impl Iterator<Item = Line<'a>> {
    let header = Line::Header {
        format: "cllm-trace",
        version: VERSION,
        model: asked.model,
        decoder: asked.decoder,
        seed: asked.seed,
        max_new_tokens: request.max_new_tokens,
        stop: asked.stop,
        stop_tokens: &request.stop_tokens,
        prompt_tokens: &request.prompt,
    };
    let answer = Line::Answer {
        tokens: &run.answer.tokens,
        finish_reason: finish_reason(run.answer.finish),
        figures: Figures::of([run]),
    };
    let forwards = run.forwards.iter().map(|(forward, at)| forward_line(forward, *at));
    std::iter::once(header).chain(forwards).chain(std::iter::once(answer))
}

fn forward_line(forward: &RecordedIteration, at: Duration) -> Line<'_> {
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
        let run = crate::run::run(&mut lm, &mut sequence, decoder, 0, &request, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        let stop = ["\n\n".to_owned()];
        let asked = Asked { model: "fake", decoder: "jacobi:4", seed: 0, stop: &stop };
        write(&path, asked, &request, &run).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "no temporary file is left");

        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let (header, answer) = (&lines[0], &lines[lines.len() - 1]);
        assert_eq!(header["type"], "header");
        assert_eq!((&header["format"], &header["version"]), (&"cllm-trace".into(), &1.into()));
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
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let run = crate::figures::tests::run_of(1, 1, 0.0, 0.0);
        let asked = Asked { model: "m", decoder: "ar", seed: 0, stop: &[] };
        let path = Path::new("no/such/folder/trace.jsonl");
        let error = write(path, asked, &Request::default(), &run).unwrap_err();
        assert!(error.to_string().contains("no/such/folder"), "{error}");
    }
}
