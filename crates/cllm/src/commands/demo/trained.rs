//! What consistency training did: the base model, its teacher and the consistency model on
//! questions of the task the two were trained for.
//!
//! The questions are ours, not the data sets'.

use std::io::Write;
use std::path::{Path, PathBuf};

use cllm_model::Message;

use super::{COLUMNS, DemoArgs, different, figures, painted};
use crate::cli::ModelArgs;
use crate::console::{BOLD, DIM};
use crate::exit::bad_input;
use crate::prompt::Prompt;
use crate::session::Session;
use crate::source::ModelRef;
use crate::table::Table;
use crate::task::{gsm8k, spider};

/// Where adapters are looked for if nobody says where: there in a checkout of the repository.
const FOLDER: &str = "adapters";

/// A task with adapters: its teacher is in `NAME-teacher`, its consistency model in `NAME-cllm`.
pub(super) struct Task {
    name: &'static str,
    questions: &'static [&'static str],
    prompt: fn(&str) -> Prompt,
}

const TASKS: [Task; 2] = [
    Task {
        name: "gsm8k",
        questions: &[
            "A baker fills 6 trays with 12 rolls each and sells 45 rolls in the morning. How many \
             rolls are left?",
            "Nora reads 15 pages on Monday and twice as many on Tuesday. Her book has 120 pages. \
             How many pages does she still have to read?",
            "A bus ticket costs $3. Omar takes the bus twice a day, 5 days a week. How much does \
             he spend on tickets in 4 weeks?",
            "There are 28 children in a class. A quarter of them wear glasses. How many do not?",
        ],
        prompt: |question| Prompt::Chat(gsm8k::prompt(question)),
    },
    Task {
        name: "spider",
        questions: &[
            "How many authors are from each country?",
            "What are the titles of the books that were written by authors from Norway?",
            "List the name of every author, in alphabetical order.",
            "What is the average price of the books that appeared after 2010?",
        ],
        prompt: |question| {
            let library = spider::schema::of(&[
                ("authors", &["author_id", "name", "country"]),
                ("books", &["book_id", "title", "author_id", "year", "price"]),
            ]);
            let text = spider::prompt(&library, question);
            Prompt::Chat(vec![Message::new("user", &text)])
        },
    },
];

/// The models of a task: how each is called, and its adapter.
pub(super) type Models = Vec<(&'static str, Option<PathBuf>)>;

/// Whether the user brought a model or an adapter.
fn is_own(arguments: &DemoArgs) -> bool {
    arguments.model.model != ModelRef::Default || !arguments.model.adapter.is_empty()
}

/// The tasks whose adapters are there. None for another model than the default one, or one
/// with an adapter of the user's, if the folder was not named.
pub(super) fn tasks(arguments: &DemoArgs) -> anyhow::Result<Vec<(&'static Task, Models)>> {
    let folder = match &arguments.adapters {
        Some(folder) => folder.as_path(),
        None if is_own(arguments) => return Ok(Vec::new()),
        None => Path::new(FOLDER),
    };
    let adapter = |task: &Task, kind: &str| folder.join(format!("{}-{kind}", task.name));
    let found: Vec<_> = TASKS
        .iter()
        .map(|task| {
            let models = vec![
                ("base", None),
                ("teacher", Some(adapter(task, "teacher"))),
                ("consistency", Some(adapter(task, "cllm"))),
            ];
            (task, models)
        })
        .filter(|(_, models)| models.iter().flat_map(|(_, path)| path).all(|path| path.is_dir()))
        .collect();
    if found.is_empty() && arguments.adapters.is_some() {
        bad_input!(
            "--adapters {}: expected the folders gsm8k-teacher and gsm8k-cllm, or spider-teacher \
             and spider-cllm",
            folder.display()
        );
    }
    Ok(found)
}

/// Shows the tasks; returns how many questions were answered, and how many answers differed
/// from ar's. `base` is the model without an adapter.
pub(super) fn show(
    tasks: &[(&'static Task, Models)],
    arguments: &DemoArgs,
    base: &mut Session,
    out: &mut dyn Write,
) -> anyhow::Result<(usize, usize)> {
    if tasks.is_empty() && !is_own(arguments) {
        writeln!(
            out,
            "\nTrained models: none in {FOLDER}/. Run this in a checkout of the repository, or \
             name the folder with --adapters."
        )?;
    }
    let decoders = arguments.decoders();
    let [a, b, c, d, e, f, g] = COLUMNS;
    let (mut answered, mut wrong) = (0, 0);
    for (task, models) in tasks {
        writeln!(out, "\n{BOLD}{}{BOLD:#}: {}", task.name, task.questions[0])?;
        let mut table = Table::new(3, ["model", "weights", a, b, c, d, e, f, g]);
        for (kind, adapter) in models {
            let mut own;
            let session = match adapter {
                None => &mut *base,
                Some(adapter) => {
                    let adapter = vec![adapter.clone()];
                    own = Session::load(&ModelArgs { adapter, ..arguments.model.clone() })?;
                    arguments.prepare(&mut own)?;
                    &mut own
                }
            };
            let mut rounds = Vec::new();
            for (turn, question) in task.questions.iter().enumerate() {
                rounds.push(arguments.ask(session, &(task.prompt)(question), turn)?);
            }
            writeln!(out, "{DIM}{kind}:{DIM:#} {}", painted(session, &rounds[0][1]).trim_end())?;
            out.flush()?;
            for d in 0..decoders.len() {
                let (kind, weights) =
                    if d == 0 { (*kind, session.weights()) } else { ("", String::new()) };
                let cells = figures(&decoders, d, &rounds);
                table.row([kind.to_owned(), weights].into_iter().chain(cells));
            }
            answered += rounds.len();
            wrong += different(&rounds);
        }
        write!(out, "\n{table}")?;
        out.flush()?;
    }
    Ok((answered, wrong))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        demo: DemoArgs,
    }

    fn parse(words: &[&str]) -> DemoArgs {
        Line::parse_from([&["demo"], words].concat()).demo
    }

    #[test]
    fn a_task_is_shown_if_both_adapters_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let named = ["--adapters", path];
        let error = tasks(&parse(&named)).err().unwrap().to_string();
        assert!(error.contains("expected the folders gsm8k-teacher"), "{error}");
        std::fs::create_dir(folder.path().join("spider-teacher")).unwrap();
        assert!(tasks(&parse(&named)).is_err(), "a teacher alone is not enough");
        std::fs::create_dir(folder.path().join("spider-cllm")).unwrap();
        let found = tasks(&parse(&named)).unwrap();
        assert_eq!(found.len(), 1);
        let (task, models) = &found[0];
        assert_eq!((task.name, models.len(), &models[0].1), ("spider", 3, &None));
        assert!(models[2].1.as_ref().unwrap().ends_with("spider-cllm"));
    }

    #[test]
    fn another_model_has_no_trained_ones() {
        assert!(tasks(&parse(&["-m", "other.gguf"])).unwrap().is_empty());
        assert!(tasks(&parse(&["--adapter", "mine"])).unwrap().is_empty());
    }
}
