//! `cllm eval gsm8k`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::EvalArgs;
use super::record::Scored;
use super::run::{Data, Task, evaluate, read};
use crate::prompt::Prompt;
use crate::task::gsm8k::{self, Problem};

const HELP: &str = "\
The question alone is the user message, through the chat template. `answer` is the score: the
number after the first `####` equals the data's. `last_number` is the fallback of common
harnesses, scored apart: the last number in the text. Commas, `$` and a dot at the end do
not count.

The last line of standard output is one JSON document. With --check the exit code is 1 if any
answer differs from AR's.

Example:
  cllm eval gsm8k --data test.jsonl --decoder jacobi:16 --check --limit 50 --out answers.jsonl";

/// Grade-school mathematics: the number after `####`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Gsm8kArgs {
    #[command(flatten)]
    eval: EvalArgs,
}

/// Runs it.
pub(super) fn run(arguments: &Gsm8kArgs) -> anyhow::Result<()> {
    let data: Data<Problem> = read(&arguments.eval)?;
    for (line, problem) in &data.problems {
        if gsm8k::answer(&problem.answer).is_none() {
            let name = arguments.eval.data.display();
            crate::exit::bad_input!("{name}: line {line}: `answer` has no number after `####`");
        }
    }
    let judge = |problem: &Problem, text: &str| {
        let scores = BTreeMap::from([
            ("answer".into(), Some(gsm8k::is_correct(text, &problem.answer))),
            ("last_number".into(), Some(gsm8k::is_correct_flexible(text, &problem.answer))),
        ]);
        let details = json!({
            "gold": gsm8k::answer(&problem.answer),
            "answer": gsm8k::answer(text),
            "last_number": gsm8k::last_number(text),
        });
        Ok(Scored { scores, details })
    };
    let task = Task {
        name: "gsm8k",
        data: &data,
        prompt: &|_, problem| Ok(Prompt::Chat(gsm8k::prompt(&problem.question))),
        judge: &judge,
        judged: Value::Null,
        more: &|_| Value::Null,
    };
    evaluate(&arguments.eval, &task)
}
