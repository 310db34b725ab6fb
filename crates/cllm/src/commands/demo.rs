//! `cllm demo`: Jacobi and `auto` beside autoregressive decoding on a handful of prompts, then what
//! training does to them.

mod trained;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use crate::cli::ModelArgs;
use crate::colour;
use crate::console::{self, BOLD, DIM};
use crate::contest::{compete, first_difference};
use crate::decoder::{DecoderList, DecoderSpec, DraftArgs};
use crate::exit::bad_input;
use crate::figures::{Figures, cell};
use crate::prompt::Prompt;
use crate::run::Run;
use crate::session::Session;
use crate::table::Table;

/// What the demonstration asks: a name for the table, and the prompt.
const PROMPTS: [(&str, &str); 4] = [
    (
        "school maths",
        "A baker fills 6 trays with 12 rolls each and sells 45 rolls in the morning. How many \
         rolls are left? Explain each step.",
    ),
    (
        "SQL",
        "Table books(id, title, author_id, year, price), table authors(id, name, country). \
         Write one SQL query that lists the title and price of every book by an author from \
         Norway, the cheapest first.",
    ),
    (
        "Python",
        "Write a Python function `most_common(words)` that returns the word that occurs most \
         often in a list of words, with a docstring.",
    ),
    (
        "chat",
        "I have one free afternoon in a town by the sea and it is raining. What could I do? \
         Give me three ideas.",
    ),
];

/// A mean acceptance length below this looks like a model that was not trained for Jacobi
/// decoding: consistency training reaches 2 and more.
const UNTRAINED: f64 = 1.5;

/// Fetch the default model and compare Jacobi and `auto` with autoregressive decoding.
///
/// Each prompt is answered by each decoder, and all answers have to be the same, token for token:
/// if any differs, the exit code is 1. The text is coloured by how many tokens each
/// forward of the first one settled. Where the trained adapters are at hand, base, teacher and consistency
/// model follow side by side, on questions of their tasks.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The decoders that are compared with `ar`, separated by commas.
    #[arg(short, long, alias = "decoder", env = "CLLM_DECODERS", value_name = "LIST")]
    #[arg(default_value = "jacobi:8,auto")]
    decoders: DecoderList,

    /// Longest answer, in tokens.
    #[arg(long, env = "CLLM_MAX_NEW_TOKENS", value_name = "N", default_value = "96")]
    max_new_tokens: NonZeroUsize,

    /// Seed of the first guesses.
    #[arg(long, env = "CLLM_SEED", value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Folder of trained adapters of the model: TASK-teacher and TASK-cllm, tasks being gsm8k
    /// and spider [default: adapters, with the default model].
    #[arg(long, env = "CLLM_ADAPTERS", value_name = "DIR", conflicts_with = "adapter")]
    adapters: Option<PathBuf>,

    #[command(flatten)]
    draft: DraftArgs,

    #[command(flatten)]
    model: ModelArgs,
}

impl DemoArgs {
    /// The baseline, then those that are compared with it.
    fn decoders(&self) -> Vec<DecoderSpec> {
        let others = self.decoders.0.iter().copied().filter(|&decoder| decoder != DecoderSpec::Ar);
        std::iter::once(DecoderSpec::Ar).chain(others).collect()
    }

    /// Gets a session ready for all.
    fn prepare(&self, session: &mut Session) -> anyhow::Result<()> {
        session.prepare(&self.decoders(), self.seed, &self.model, &self.draft)
    }

    /// All decoders' answers; `turn` says which goes first.
    fn ask(&self, session: &mut Session, prompt: &Prompt, turn: usize) -> anyhow::Result<Vec<Run>> {
        let request = session.request(prompt, Some(self.max_new_tokens))?;
        Ok(compete(&mut session.model.lm, &self.decoders(), &session.making, &request, turn)?)
    }
}

/// Runs the demonstration.
pub(crate) fn run(arguments: DemoArgs) -> anyhow::Result<()> {
    if arguments.decoders().len() < 2 {
        bad_input!("--decoders ar: expected one that can be compared with ar, such as auto");
    }
    let trained = trained::tasks(&arguments)?;
    let mut session = Session::load(&arguments.model)?;
    arguments.prepare(&mut session)?;
    let decoders = arguments.decoders();
    let mut out = console::coloured();
    let machine = session.machine();
    writeln!(
        out,
        "{} ({} weights) on {}, {} threads, {}",
        session.name,
        session.weights(),
        machine.cpu,
        machine.threads,
        machine.isa
    )?;
    writeln!(out, "{DIM}{}{DIM:#}\n", colour::legend())?;
    out.flush()?;

    let mut rounds = Vec::new();
    for (turn, (name, text)) in PROMPTS.iter().enumerate() {
        let prompt = session.user_prompt(None, (*text).to_owned());
        let round = arguments.ask(&mut session, &prompt, turn)?;
        writeln!(out, "{BOLD}{name}{BOLD:#}: {text}")?;
        writeln!(out, "{}\n", painted(&session, &round[1]))?;
        out.flush()?;
        rounds.push(round);
    }

    write!(out, "{}", table(&decoders, &rounds))?;
    let pooled = |d: usize| Figures::of(rounds.iter().map(move |round| &round[d]));
    let figures: Vec<_> = (0..decoders.len()).map(pooled).collect();
    write!(out, "\n{}", verdict(&decoders, &figures))?;
    let (more, more_different) = trained::show(&trained, &arguments, &mut session, &mut out)?;
    let (answers, different) = (rounds.len() + more, different(&rounds) + more_different);
    if different > 0 {
        bail!("the answers to {different} of {answers} prompts differ from ar's");
    }
    Ok(())
}

/// To how many prompts some decoder gave another answer than ar.
fn different(rounds: &[Vec<Run>]) -> usize {
    let same = |round: &Vec<Run>| (1..round.len()).all(|d| identical(round, d));
    rounds.iter().filter(|round| !same(round)).count()
}

/// Whether decoder `d` gave ar's answer.
fn identical(round: &[Run], d: usize) -> bool {
    first_difference(&round[0].answer.tokens, &round[d].answer.tokens).is_none()
}

/// The answer's text, coloured by how many tokens each forward settled.
fn painted(session: &Session, run: &Run) -> String {
    let mut stream = session.model.tokenizer.stream().continuing();
    let mut pieces: Vec<(String, usize)> = run
        .answer
        .tokens
        .iter()
        .zip(run.settled_together())
        .map(|(&token, settled)| (stream.push(token).to_owned(), settled))
        .collect();
    pieces.push((stream.finish().to_owned(), 1));
    colour::paint(pieces.iter().map(|(piece, settled)| (piece.as_str(), *settled)))
}

/// What a line of a table says of a decoder, in the columns of [`figures`].
const COLUMNS: [&str; 7] = [
    "decoder",
    "tokens",
    "forwards",
    "mean acceptance length",
    "tokens/s",
    "identical",
    "speed-up",
];

/// The cells of `decoders[d]`, its answers pooled; the last two are empty for ar.
fn figures(decoders: &[DecoderSpec], d: usize, rounds: &[Vec<Run>]) -> [String; 7] {
    let of = |d: usize| Figures::of(rounds.iter().map(|round| &round[d]));
    let (ar, ours) = (of(0), of(d));
    let speedup = ours.tokens_per_second.zip(ar.tokens_per_second).map(|(ours, ars)| ours / ars);
    let same = rounds.iter().all(|round| identical(round, d));
    let identical = if same { "yes" } else { "NO" };
    let compared = |text: String| if d == 0 { String::new() } else { text };
    [
        decoders[d].to_string(),
        ours.tokens.to_string(),
        ours.forwards.to_string(),
        cell(ours.mean_acceptance_length, 2),
        cell(ours.tokens_per_second, 1),
        compared(identical.to_owned()),
        compared(cell(speedup, 2)),
    ]
}

fn table(decoders: &[DecoderSpec], rounds: &[Vec<Run>]) -> Table {
    let [a, b, c, d, e, f, g] = COLUMNS;
    let mut table = Table::new(2, ["prompt", a, b, c, d, e, f, g]);
    for ((name, _), round) in PROMPTS.iter().zip(rounds) {
        for d in 0..decoders.len() {
            let name = if d == 0 { *name } else { "" };
            let cells = figures(decoders, d, std::slice::from_ref(round));
            table.row(std::iter::once(name.to_owned()).chain(cells));
        }
    }
    table
}

/// What the figures of `decoders` mean, the baseline's first: a line each.
fn verdict(decoders: &[DecoderSpec], figures: &[Figures]) -> String {
    let speed = |figures: &Figures| figures.tokens_per_second;
    let mut lines = String::new();
    let mut most: Option<f64> = None;
    for (decoder, ours) in decoders.iter().zip(figures).skip(1) {
        let Some(length) = ours.mean_acceptance_length else {
            lines += &format!("{decoder}: the answers were too short to measure\n");
            continue;
        };
        most = Some(most.map_or(length, |most| most.max(length)));
        let speedup = speed(ours).zip(speed(&figures[0])).map(|(ours, ars)| ours / ars);
        let speedup = cell(speedup, 2);
        lines += &format!(
            "{decoder} settles {length:.2} tokens a forward, {speedup} times as fast as ar.\n"
        );
    }
    if most.is_some_and(|most| most < UNTRAINED) {
        lines += "Without consistency training a model settles little more than 1, but for text that \
                  repeats itself.\n";
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::run_of;

    #[test]
    fn the_table_says_whether_answers_are_identical() {
        let decoders = [DecoderSpec::Ar, "jacobi:8".parse().unwrap(), DecoderSpec::Ar];
        let mut wrong = run_of(20, 10, 0.5, 1.0);
        wrong.answer.tokens[0] = 1;
        let rounds = vec![
            vec![run_of(20, 20, 0.5, 2.0), run_of(20, 10, 0.5, 1.0), run_of(20, 20, 0.5, 2.0)],
            vec![run_of(20, 20, 0.5, 2.0), wrong, run_of(20, 20, 0.5, 2.0)],
        ];
        let text = table(&decoders, &rounds).to_string();
        let words = |line: usize| -> Vec<&str> {
            text.lines().nth(line).unwrap().split_whitespace().collect()
        };
        assert_eq!(words(2), ["jacobi:8", "20", "10", "2.00", "20.0", "yes", "2.00"]);
        assert_eq!(words(5), ["jacobi:8", "20", "10", "2.00", "20.0", "NO", "2.00"]);
        assert_eq!(words(6), ["ar", "20", "20", "1.00", "10.0", "yes", "1.00"]);
        assert_eq!(different(&rounds), 1);
    }

    #[test]
    fn the_verdict_is_honest_about_untrained_models() {
        let decoders = [DecoderSpec::Ar, "jacobi:8".parse().unwrap()];
        let of = |forwards| {
            let figures =
                [30, forwards].map(|forwards| Figures::of([&run_of(30, forwards, 0.1, 1.0)]));
            verdict(&decoders, &figures)
        };
        assert!(of(28).contains("Without consistency training"));
        assert!(!of(10).contains("Without"));
        assert!(of(0).contains("too short") && !of(0).contains("Without"));
    }
}
