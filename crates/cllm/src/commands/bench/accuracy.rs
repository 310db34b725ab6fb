//! `cllm bench accuracy`: what the formats that compute faster than f32 lose.
//!
//! Every format reads the same texts, token by token as they stand (teacher forcing), and
//! at each scored position its distribution is compared with that of the model computed
//! in f32 from the same file. What the file itself lost when it was quantised is not seen
//! here: f32 computes with the file's values. Since a row's logits never depend on the
//! rows beside it, the wide forwards here say exactly what decoding would have seen.

mod divergence;
mod text;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use cllm_decode::{Batch, CausalLm, KvCache, LmError, Output, Token, Want};
use cllm_model::{Compute, LlamaCache};
use serde::Serialize;

use self::divergence::Position;
use self::text::Text;
use crate::cli::JsonArgs;
use crate::commands::bench::FormatsArgs;
use crate::console::{self, note};
use crate::machine::Machine;
use crate::session::Session;
use crate::table::Table;

/// Rows of one forward: logits of all of them are kept in memory, for two models.
const CHUNK: usize = 64;

const HELP: &str = "\
The file has one JSON object a line: `text`, or `question` and `answer`, where the question
goes through the chat template and only the answer is scored. Other keys are ignored.

KL is the mean of KL(f32 || format) over the scored positions, in nats; agreement is the
share of positions with f32's argmax; perplexity is that of the texts. The last line of
standard output is one JSON document.

Example:
  cllm bench accuracy --text gsm8k.jsonl --compute bf16 --positions 2000";

/// Compare the output of faster formats with that of f32.
#[derive(Debug, Args)]
#[command(after_help = HELP, mut_arg("compute", |compute| compute.default_value("bf16")))]
pub(crate) struct AccuracyBenchArgs {
    /// Texts, JSON lines.
    #[arg(long, env = "CLLM_TEXT", value_name = "FILE")]
    text: PathBuf,

    /// Positions to score, from the beginning of the file.
    #[arg(long, env = "CLLM_POSITIONS", value_name = "N", default_value = "2000")]
    positions: NonZeroUsize,

    #[command(flatten)]
    json: JsonArgs,

    #[command(flatten)]
    subject: FormatsArgs,
}

/// The JSON document.
#[derive(Serialize)]
struct Report {
    model: String,
    machine: Machine,
    settings: Settings,
    results: Vec<Accuracy>,
}

#[derive(Serialize)]
struct Settings {
    text: PathBuf,
    /// Texts that were read.
    texts: usize,
    /// Positions that were scored.
    positions: usize,
    reference: &'static str,
    reference_perplexity: f64,
}

/// One format. KL is in nats.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Accuracy {
    compute: String,
    mean_kl: f64,
    /// Standard error of `mean_kl`, positions taken as independent.
    kl_standard_error: f64,
    /// 99 % of the positions have a KL below this.
    kl_p99: f64,
    max_kl: f64,
    argmax_agreement: f64,
    perplexity: f64,
}

impl Accuracy {
    /// `positions` has at least one element.
    fn of(compute: String, positions: &[Position]) -> Self {
        let count = positions.len() as f64;
        let mut kls: Vec<f64> = positions.iter().map(|position| position.kl).collect();
        kls.sort_unstable_by(f64::total_cmp);
        let mean_kl = kls.iter().sum::<f64>() / count;
        let variance = kls.iter().map(|kl| (kl - mean_kl).powi(2)).sum::<f64>() / count;
        let agreeing = positions.iter().filter(|position| position.agrees).count();
        Self {
            compute,
            mean_kl,
            kl_standard_error: (variance / count).sqrt(),
            kl_p99: kls[(kls.len() * 99).div_ceil(100) - 1],
            max_kl: kls[kls.len() - 1],
            argmax_agreement: agreeing as f64 / count,
            perplexity: perplexity(positions),
        }
    }
}

fn perplexity(positions: &[Position]) -> f64 {
    (positions.iter().map(|position| position.loss).sum::<f64>() / positions.len() as f64).exp()
}

/// Measures.
pub(crate) fn run(arguments: AccuracyBenchArgs) -> anyhow::Result<()> {
    let mut reference = arguments.subject.load(Compute::F32)?;
    let texts = text::read(&arguments.text, &reference, arguments.positions.get())?;
    let mut formats = arguments.subject.load_all()?;
    let (own, found) = compare(&mut reference, &mut formats, &texts)?;

    let report = Report {
        model: reference.name.clone(),
        machine: reference.machine(),
        settings: Settings {
            text: arguments.text,
            texts: texts.len(),
            positions: own.len(),
            reference: "f32",
            reference_perplexity: perplexity(&own),
        },
        results: formats
            .iter()
            .zip(&found)
            .map(|(format, positions)| Accuracy::of(format.weights(), positions))
            .collect(),
    };
    let mut out = console::out();
    if !arguments.json.json {
        let Settings { texts, positions, reference_perplexity, .. } = &report.settings;
        writeln!(
            out,
            "{positions} positions of {texts} texts, f32 perplexity {reference_perplexity:.3}"
        )?;
        write!(out, "{}", table(&report.results))?;
    }
    writeln!(out, "{}", serde_json::to_string(&report)?)?;
    Ok(())
}

/// The scored positions of the reference, compared with itself, and of each format.
fn compare(
    reference: &mut Session,
    formats: &mut [Session],
    texts: &[Text],
) -> anyhow::Result<(Vec<Position>, Vec<Vec<Position>>)> {
    let mut own = Vec::new();
    let mut found = vec![Vec::new(); formats.len()];
    for (turn, text) in texts.iter().enumerate() {
        let mut truth = Reader::new(reference);
        let mut readers: Vec<_> = formats.iter_mut().map(Reader::new).collect();
        while truth.read < text.scored.end {
            let first = truth.read;
            truth.advance(text)?;
            readers.iter_mut().try_for_each(|reader| reader.advance(text))?;
            for row in first.max(text.scored.start)..truth.read {
                let next = text.tokens[row + 1];
                let expected = truth.said(row - first);
                own.push(Position::new(expected, expected, next));
                for (reader, found) in readers.iter().zip(&mut found) {
                    found.push(Position::new(expected, reader.said(row - first), next));
                }
            }
        }
        note(format_args!("[{}/{}] {} positions", turn + 1, texts.len(), own.len()));
    }
    Ok((own, found))
}

/// A model on its way through one text.
struct Reader<'a> {
    session: &'a mut Session,
    cache: LlamaCache,
    batch: Batch,
    output: Output,
    /// Tokens read.
    read: usize,
}

impl<'a> Reader<'a> {
    fn new(session: &'a mut Session) -> Self {
        let cache = session.model.lm.new_cache();
        Self { session, cache, batch: Batch::new(), output: Output::new(), read: 0 }
    }

    /// Reads the next piece of the text, with logits where it is scored.
    fn advance(&mut self, text: &Text) -> Result<(), LmError> {
        let first = self.read;
        let end = text.scored.end.min(first + CHUNK);
        let tokens = text.tokens[first..end].iter().copied();
        let scored = |i| if first + i < text.scored.start { Want::Nothing } else { Want::Logits };
        self.batch.clear();
        self.batch.push_causal(0, first, tokens, scored);
        self.session.model.lm.forward(&self.batch, &mut [&mut self.cache], &mut self.output)?;
        self.cache.keep(&(0..end - first).collect::<Vec<_>>());
        self.read = end;
        Ok(())
    }

    /// Logits and argmax of a row of the last piece.
    fn said(&self, row: usize) -> (&[f32], Token) {
        (self.output.logits(row), self.output.argmax(row))
    }
}

fn table(results: &[Accuracy]) -> Table {
    let mut table = Table::new(
        1,
        ["compute", "mean KL", "+-", "99 % below", "max KL", "agreement", "perplexity"],
    );
    for result in results {
        table.row([
            result.compute.clone(),
            format!("{:.5}", result.mean_kl),
            format!("{:.5}", result.kl_standard_error),
            format!("{:.4}", result.kl_p99),
            format!("{:.3}", result.max_kl),
            format!("{:.2} %", 100.0 * result.argmax_agreement),
            format!("{:.3}", result.perplexity),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::str::FromStr;

    use super::*;
    use crate::cli::{ModelArgs, RunArgs};
    use crate::source::ModelRef;

    fn golden(name: &str, compute: Compute) -> Session {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/models").join(name);
        let model = ModelRef::from_str(path.to_str().unwrap()).unwrap();
        let run = RunArgs { threads: NonZeroUsize::new(2), compute };
        Session::load(&ModelArgs { model, adapter: Vec::new(), context: None, run }).unwrap()
    }

    fn texts(session: &Session, positions: usize, lines: &[&str]) -> anyhow::Result<Vec<Text>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        text::read(&path, session, positions)
    }

    /// Longer than the context of the model, which is longer than one piece.
    fn long() -> String {
        serde_json::json!({ "text": "the quick brown fox ".repeat(64), "id": 7 }).to_string()
    }

    #[test]
    fn f32_agrees_with_itself_and_bf16_nearly() {
        let mut reference = golden("llama-f32", Compute::F32);
        let texts = texts(&reference, 10_000, &[&long(), r#"{"text": "and again"}"#]).unwrap();
        let scored: usize = texts.iter().map(|text| text.scored.len()).sum();
        let context = reference.model.lm.context_length();
        assert!(CHUNK < context);
        assert_eq!(texts[0].scored, 0..context - 1);
        let mut formats = [Compute::F32, Compute::Bf16].map(|format| golden("llama-f32", format));
        let (own, found) = compare(&mut reference, &mut formats, &texts).unwrap();
        assert_eq!((own.len(), &own), (scored, &found[0]));
        let of = |positions: &Vec<Position>| Accuracy::of(String::new(), positions);
        let (same, near) = (of(&found[0]), of(&found[1]));
        assert_eq!((same.mean_kl, same.max_kl, same.argmax_agreement), (0.0, 0.0, 1.0));
        assert!(near.mean_kl > 0.0 && near.mean_kl < 0.01, "{near:?}");
        assert!(near.argmax_agreement > 0.9, "{near:?}");
    }

    #[test]
    fn texts_are_scored_up_to_the_number_of_positions() {
        let session = golden("llama-f32", Compute::F32);
        let lines = [r#"{"text": "one two three"}"#, "", &long()];
        let lengths = |positions| {
            let texts = texts(&session, positions, &lines).unwrap();
            texts.iter().map(|text| text.scored.len()).collect::<Vec<_>>()
        };
        let all = lengths(10_000);
        assert_eq!(all.len(), 2);
        assert_eq!(lengths(all[0]), [all[0]]);
        assert_eq!(lengths(all[0] + 5), [all[0], 5]);
        assert_eq!(lengths(2), [2]);
    }

    #[test]
    fn bad_texts_name_the_line() {
        let session = golden("llama-f32", Compute::F32);
        let error =
            |lines: &[&str]| crate::exit::one_line(&texts(&session, 100, lines).unwrap_err());
        let check = |line, expected| {
            let found = error(&[r#"{"text": "fine"}"#, line]);
            assert!(found.contains("line 2: ") && found.contains(expected), "{found}");
        };
        check("{", "expected a JSON object");
        check(r#"{"text": 1}"#, "expected a JSON object");
        check(r#"{"question": "why?"}"#, "either `text`, or `question` and `answer`");
        check(r#"{"text": "a", "answer": "b"}"#, "either `text`, or `question` and `answer`");
        check(r#"{"text": ""}"#, "empty");
        assert!(error(&[]).contains("nothing to score"));
    }

    #[test]
    fn figures_of_positions() {
        let position = |kl, agrees, loss| Position { kl, agrees, loss };
        let positions =
            [position(0.1, true, 0.0), position(0.3, false, 2.0), position(0.2, true, 1.0)];
        let accuracy = Accuracy::of("w8".into(), &positions);
        assert!((accuracy.mean_kl - 0.2).abs() < 1e-12);
        assert!((accuracy.kl_standard_error - (0.02f64 / 9.0).sqrt()).abs() < 1e-12);
        assert_eq!((accuracy.max_kl, accuracy.kl_p99), (0.3, 0.3));
        assert!((accuracy.argmax_agreement - 2.0 / 3.0).abs() < 1e-12);
        assert!((accuracy.perplexity - 1f64.exp()).abs() < 1e-12);
    }
}
