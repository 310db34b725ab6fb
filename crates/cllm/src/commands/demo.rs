//! `cllm demo`: Jacobi beside autoregressive decoding on a handful of prompts, then what
//! training does to it.

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
use crate::decoder::DecoderSpec;
use crate::figures::{Figures, cell};
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

/// Fetch the default model and compare Jacobi with autoregressive decoding.
///
/// Each prompt is answered twice, and both answers have to be the same, token for token:
/// if any differs, the exit code is 1. The text is coloured by how many tokens each
/// forward settled. Where the trained adapters are at hand, base, teacher and consistency
/// model follow side by side, on questions of their tasks.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The decoder that is compared with `ar`.
    #[arg(short, long, env = "CLLM_DECODER", value_name = "DECODER", default_value = "jacobi:8")]
    decoder: DecoderSpec,

    /// Longest answer, in tokens.
    #[arg(long, env = "CLLM_MAX_NEW_TOKENS", value_name = "N", default_value = "96")]
    max_new_tokens: NonZeroUsize,

    /// Seed of the first guesses.
    #[arg(long, env = "CLLM_SEED", value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Folder of trained adapters of the model: TASK-teacher and TASK-cllm, tasks being gsm8k
    /// and spider [default: adapters, with the default model].
    #[arg(long, env = "CLLM_ADAPTERS", value_name = "DIR")]
    adapters: Option<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,
}

impl DemoArgs {
    /// The baseline, then the decoder that is compared with it.
    fn decoders(&self) -> [DecoderSpec; 2] {
        [DecoderSpec::Ar, self.decoder]
    }
}

/// Runs the demonstration.
pub(crate) fn run(arguments: DemoArgs) -> anyhow::Result<()> {
    let trained = trained::tasks(&arguments)?;
    let mut session = Session::load(&arguments.model)?;
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
    for (turn, (name, prompt)) in PROMPTS.iter().enumerate() {
        let prompt = session.user_prompt(None, (*prompt).to_owned());
        let request = session.request(&prompt, Some(arguments.max_new_tokens))?;
        let round = compete(&mut session.model.lm, &decoders, arguments.seed, &request, turn)?;
        writeln!(out, "{BOLD}{name}{BOLD:#}: {}", PROMPTS[turn].1)?;
        writeln!(out, "{}\n", painted(&session, &round[1]))?;
        out.flush()?;
        rounds.push(round);
    }

    write!(out, "{}", table(&decoders, &rounds))?;
    let [ar, other] = [0, 1].map(|d| Figures::of(rounds.iter().map(move |round| &round[d])));
    writeln!(out, "\n{}", verdict(&decoders[1], &ar, &other))?;
    let (more, more_different) = trained::show(&trained, &arguments, &mut session, &mut out)?;
    let (answers, different) = (rounds.len() + more, different(&rounds) + more_different);
    if different > 0 {
        bail!("{different} of {answers} answers of {} differ from ar's", decoders[1]);
    }
    Ok(())
}

/// How many answers are not ar's.
fn different(rounds: &[Vec<Run>]) -> usize {
    rounds.iter().filter(|round| !identical(round)).count()
}

fn identical(round: &[Run]) -> bool {
    first_difference(&round[0].answer.tokens, &round[1].answer.tokens).is_none()
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

fn table(decoders: &[DecoderSpec], rounds: &[Vec<Run>]) -> Table {
    let heading = [
        "prompt",
        "decoder",
        "tokens",
        "forwards",
        "mean acceptance length",
        "tokens/s",
        "identical",
        "speed-up",
    ];
    let mut table = Table::new(2, heading);
    for ((name, _), round) in PROMPTS.iter().zip(rounds) {
        let ar = Figures::of([&round[0]]).tokens_per_second;
        for (d, (decoder, run)) in decoders.iter().zip(round).enumerate() {
            let figures = Figures::of([run]);
            let speedup = figures.tokens_per_second.zip(ar).map(|(ours, ars)| ours / ars);
            let identical = if identical(round) { "yes" } else { "NO" };
            table.row([
                if d == 0 { (*name).to_owned() } else { String::new() },
                decoder.to_string(),
                figures.tokens.to_string(),
                figures.forwards.to_string(),
                cell(figures.mean_acceptance_length, 2),
                cell(figures.tokens_per_second, 1),
                if d == 0 { String::new() } else { identical.to_owned() },
                if d == 0 { String::new() } else { cell(speedup, 2) },
            ]);
        }
    }
    table
}

/// What the figures mean, in one line.
fn verdict(decoder: &DecoderSpec, ar: &Figures, other: &Figures) -> String {
    let Some(length) = other.mean_acceptance_length else {
        return format!("{decoder}: the answers were too short to measure");
    };
    let speedup = other.tokens_per_second.zip(ar.tokens_per_second).map(|(ours, ars)| ours / ars);
    let speedup = cell(speedup, 2);
    if length < UNTRAINED {
        format!(
            "{decoder} settles {length:.2} tokens a forward, {speedup} times the speed of ar; a \
             model without consistency training settles little more than 1."
        )
    } else {
        format!("{decoder} settles {length:.2} tokens a forward, {speedup} times the speed of ar.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::run_of;

    #[test]
    fn the_table_says_whether_answers_are_identical() {
        let decoders = [DecoderSpec::Ar, "jacobi:8".parse().unwrap()];
        let mut wrong = run_of(20, 10, 0.5, 1.0);
        wrong.answer.tokens[0] = 1;
        let rounds = vec![
            vec![run_of(20, 20, 0.5, 2.0), run_of(20, 10, 0.5, 1.0)],
            vec![run_of(20, 20, 0.5, 2.0), wrong],
        ];
        let text = table(&decoders, &rounds).to_string();
        let words = |line: usize| -> Vec<&str> {
            text.lines().nth(line).unwrap().split_whitespace().collect()
        };
        assert_eq!(words(2), ["jacobi:8", "20", "10", "2.00", "20.0", "yes", "2.00"]);
        assert_eq!(words(4), ["jacobi:8", "20", "10", "2.00", "20.0", "NO", "2.00"]);
    }

    #[test]
    fn the_verdict_is_honest_about_untrained_models() {
        let decoder = "jacobi:8".parse().unwrap();
        let figures = |forwards| Figures::of([&run_of(30, forwards, 0.1, 1.0)]);
        assert!(
            verdict(&decoder, &figures(30), &figures(28)).contains("without consistency training")
        );
        assert!(!verdict(&decoder, &figures(30), &figures(10)).contains("without"));
        assert!(verdict(&decoder, &figures(30), &figures(0)).contains("too short"));
    }
}
