//! Traces read back: what `analyze` counts and `report` draws.
//!
//! A reader trusts nothing: a line that does not continue the answer, or an answer that is
//! not what its forwards settled, is bad input with its line number.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cllm_decode::{Phase, RecordedIteration, Token};
use serde::{Deserialize, Serialize};

use super::{FORMAT, VERSION};
use crate::exit::bad_input;
use crate::figures::Figures;

/// An answer with every forward that made it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Traced {
    pub(crate) model: String,
    pub(crate) decoder: String,
    pub(crate) seed: u64,
    pub(crate) stop_tokens: Vec<Token>,
    pub(crate) prompt_tokens: Vec<Token>,
    pub(crate) forwards: Vec<Forward>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) finish_reason: String,
    pub(crate) figures: Figures,
    /// The texts of all tokens above; empty in version 1.
    pub(crate) texts: BTreeMap<Token, String>,
}

/// One forward.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Forward {
    phase: TracedPhase,
    pub(crate) start: usize,
    pub(crate) draft: Vec<Token>,
    pub(crate) output: Vec<Token>,
    pub(crate) settled: usize,
    pub(crate) rows: usize,
    pub(crate) ms: f64,
    /// Those of `output`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) probabilities: Option<Vec<f64>>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TracedPhase {
    Prefill,
    Decode,
}

impl Forward {
    /// Whether it extended the answer, rather than read the prompt.
    pub(crate) fn decodes(&self) -> bool {
        matches!(self.phase, TracedPhase::Decode)
    }

    /// As the observer saw it.
    pub(crate) fn recorded(&self) -> RecordedIteration {
        RecordedIteration {
            phase: if self.decodes() { Phase::Decode } else { Phase::Prefill },
            start: self.start,
            draft: self.draft.clone(),
            output: self.output.clone(),
            settled: self.settled,
            rows: self.rows,
        }
    }
}

impl Traced {
    /// Whether it ended by itself.
    pub(crate) fn ended(&self) -> bool {
        self.finish_reason == "stop"
    }

    /// The decode forwards.
    pub(crate) fn decode(&self) -> impl Iterator<Item = &Forward> {
        self.forwards.iter().filter(|forward| forward.decodes())
    }

    /// Some tokens as text.
    pub(crate) fn text(&self, tokens: &[Token]) -> String {
        let text = |token: &Token| match self.texts.get(token) {
            Some(text) => text.clone(),
            None => format!("‹{token}›"),
        };
        tokens.iter().map(text).collect()
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Header {
        format: String,
        version: u32,
        model: String,
        decoder: String,
        seed: u64,
        stop_tokens: Vec<Token>,
        prompt_tokens: Vec<Token>,
    },
    Forward(Forward),
    Answer {
        tokens: Vec<Token>,
        finish_reason: String,
        figures: Figures,
        /// By id; serde does not turn keys into numbers behind a tag.
        #[serde(default)]
        texts: BTreeMap<String, String>,
    },
}

/// Reads all answers of a file, at least one.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Traced>> {
    let name = path.display();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => bad_input!("{name}: {error}"),
    };
    let mut answers = Vec::new();
    let mut open: Option<Traced> = None;
    for (i, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if let Err(what) = take(line, &mut open, &mut answers) {
            bad_input!("{name}: line {}: {what}", i + 1);
        }
    }
    if open.is_some() {
        bad_input!("{name}: expected a line `answer` at the end, found none: the file is cut off");
    }
    if answers.is_empty() {
        bad_input!("{name}: expected traces, found an empty file");
    }
    Ok(answers)
}

fn take(line: &[u8], open: &mut Option<Traced>, done: &mut Vec<Traced>) -> Result<(), String> {
    let line = serde_json::from_slice(line).map_err(|error| {
        let what = error.to_string();
        format!("not a line of a trace: {}", what.split(" at line ").next().unwrap_or_default())
    })?;
    match line {
        Line::Header { format, version, model, decoder, seed, stop_tokens, prompt_tokens } => {
            if open.is_some() {
                return Err("expected a forward or the answer, found another header".into());
            }
            if format != FORMAT || !(1..=VERSION).contains(&version) {
                let expected = format!("expected {FORMAT} version 1 to {VERSION}");
                return Err(format!("{expected}, found {format} version {version}"));
            }
            *open = Some(Traced {
                model,
                decoder,
                seed,
                stop_tokens,
                prompt_tokens,
                forwards: Vec::new(),
                tokens: Vec::new(),
                finish_reason: String::new(),
                figures: Figures::default(),
                texts: BTreeMap::new(),
            });
        }
        Line::Forward(forward) => {
            let Some(answer) = open else { return Err("a forward without a header".into()) };
            check(&forward, answer)?;
            answer.tokens.extend_from_slice(&forward.output[..forward.settled]);
            answer.forwards.push(forward);
        }
        Line::Answer { tokens, finish_reason, figures, texts } => {
            let Some(answer) = open.take() else { return Err("an answer without a header".into()) };
            if answer.tokens != tokens {
                return Err(format!(
                    "the forwards settled {} tokens that are not the {} of the answer",
                    answer.tokens.len(),
                    tokens.len()
                ));
            }
            let number = |(id, text): (String, String)| match id.parse() {
                Ok(token) => Ok((token, text)),
                Err(_) => Err(format!("`texts`: expected token ids as keys, found `{id}`")),
            };
            let texts = texts.into_iter().map(number).collect::<Result<_, String>>()?;
            done.push(Traced { finish_reason, figures, texts, ..answer });
        }
    }
    Ok(())
}

fn check(forward: &Forward, answer: &Traced) -> Result<(), String> {
    let known = answer.tokens.len();
    if forward.start != known {
        return Err(format!("expected `start` {known}, found {}", forward.start));
    }
    if forward.settled > forward.output.len() {
        let outputs = forward.output.len();
        return Err(format!("`settled` is {} of {outputs} outputs", forward.settled));
    }
    if forward.probabilities.as_ref().is_some_and(|p| p.len() != forward.output.len()) {
        return Err("expected a probability for each output".into());
    }
    let before = answer.forwards.last().map_or(0.0, |forward| forward.ms);
    if forward.ms < before {
        return Err(format!("`ms` goes back from {before} to {}", forward.ms));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer whose decode forwards are `(output, settled)`; prefill gave `first`.
    pub(crate) fn traced(first: Token, forwards: &[(&[Token], usize)]) -> Traced {
        let forward = |phase, start, output: &[Token], settled, ms| Forward {
            phase,
            start,
            draft: Vec::new(),
            output: output.to_vec(),
            settled,
            rows: output.len(),
            ms,
            probabilities: None,
        };
        let mut tokens = vec![first];
        let mut list = vec![forward(TracedPhase::Prefill, 0, &[first], 1, 1.0)];
        for (output, settled) in forwards {
            let ms = 1.0 + list.len() as f64;
            list.push(forward(TracedPhase::Decode, tokens.len(), output, *settled, ms));
            tokens.extend_from_slice(&output[..*settled]);
        }
        let figures = Figures {
            tokens: tokens.len() - 1,
            forwards: forwards.len(),
            answer_tokens: tokens.len(),
            ..Figures::default()
        };
        let texts = tokens.iter().map(|token| (*token, format!(" {token}"))).collect();
        Traced {
            model: "m".into(),
            decoder: "jacobi:4".into(),
            seed: 0,
            stop_tokens: vec![2],
            prompt_tokens: vec![1],
            forwards: list,
            tokens,
            finish_reason: "stop".into(),
            figures,
            texts,
        }
    }

    const HEADER: &str = r#"{"type":"header","format":"cllm-trace","version":1,"model":"m","decoder":"ar","seed":0,"max_new_tokens":9,"stop":[],"stop_tokens":[2],"prompt_tokens":[1]}"#;
    const FORWARD: &str = r#"{"type":"forward","phase":"decode","start":0,"draft":[],"output":[5,2],"settled":2,"rows":2,"ms":1.5}"#;
    const ANSWER: &str =
        r#"{"type":"answer","tokens":[5,2],"finish_reason":"stop","figures":FIGURES}"#;

    fn parse(lines: &[&str]) -> Result<Vec<Traced>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        let figures = serde_json::to_string(&Figures::default()).unwrap();
        fs::write(&path, lines.join("\n").replace("FIGURES", &figures)).unwrap();
        read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_version_is_read() {
        let answers = parse(&[HEADER, FORWARD, ANSWER, HEADER, FORWARD, ANSWER]).unwrap();
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[0].text(&[5]), "‹5›", "it has no texts");
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        let check = |lines: &[&str], part: &str| {
            let error = parse(lines).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        check(&[], "expected traces, found an empty file");
        check(&["{}"], "line 1: not a line of a trace: missing field `type`");
        check(&[&HEADER.replace("\"version\":1", "\"version\":9")], "found cllm-trace version 9");
        check(&[HEADER, FORWARD], "cut off");
        check(&[HEADER, HEADER], "line 2: expected a forward or the answer");
        check(&[FORWARD], "line 1: a forward without a header");
        check(&[HEADER, &FORWARD.replace("\"start\":0", "\"start\":3")], "expected `start` 0");
        check(&[HEADER, &FORWARD.replace("\"settled\":2", "\"settled\":3")], "3 of 2 outputs");
        check(&[HEADER, FORWARD, &ANSWER.replace("[5,2]", "[5]")], "are not the 1 of the answer");
        let texts = ANSWER.replace("FIGURES", "FIGURES,\"texts\":{\"x\":\"\"}");
        check(&[HEADER, FORWARD, &texts], "token ids as keys, found `x`");
        check(&[HEADER, &FORWARD.replace("1.5", "-1")], "`ms` goes back");
        check(&[HEADER, &FORWARD.replace("1.5", "1.5,\"probabilities\":[1]")], "a probability for");
    }
}
