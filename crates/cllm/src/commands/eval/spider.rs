//! `cllm eval spider`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::builder::FalseyValueParser;
use cllm_model::Message;
use serde_json::{Value, json};

use super::EvalArgs;
use super::record::{Record, Scored};
use super::run::{Data, Task, evaluate, read};
use crate::exit::bad_input;
use crate::prompt::Prompt;
use crate::task::spider::judge::Judge;
use crate::task::spider::sandbox::Limits;
use crate::task::spider::{self, Problem, schema};

const HELP: &str = "\
The user message is the schema and the question. The query is taken out of the answer and run
beside the gold query; `execution` is the score: equal results on every database, as the
official test-suite script compares them. `exact_match` is the second figure, as the
official script has it: the clauses are equal as sets, without their constants.

Databases are DIR/<db_id>/*.sqlite, opened read-only. Where there are none, they are generated
from the schema and the gold query; the output says how many questions had which. Scores on
generated databases are not comparable with published ones.

Example:
  cllm eval spider --data dev.jsonl --tables tables.json --decoder jacobi:16 --check --limit 50";

/// Questions about databases: the result of the query on SQLite.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct SpiderArgs {
    /// The schemas, Spider's tables.json.
    #[arg(long, env = "CLLM_TABLES", value_name = "FILE")]
    tables: PathBuf,

    /// Folder of databases: DIR/<db_id>/<db_id>.sqlite.
    #[arg(long, env = "CLLM_DATABASE", value_name = "DIR")]
    database: Option<PathBuf>,

    /// Generated databases for each question that has no other.
    #[arg(long, env = "CLLM_INSTANCES", value_name = "N", default_value = "4")]
    instances: NonZeroUsize,

    /// Compare with DISTINCT; the official script drops it from both queries.
    #[arg(long, env = "CLLM_KEEP_DISTINCT", value_parser = FalseyValueParser::new())]
    keep_distinct: bool,

    /// Seconds that one query may take.
    #[arg(long, env = "CLLM_QUERY_SECONDS", value_name = "N", default_value = "5")]
    query_seconds: NonZeroUsize,

    /// Rows that the result of one query may have.
    #[arg(long, env = "CLLM_QUERY_ROWS", value_name = "N", default_value = "100000")]
    query_rows: NonZeroUsize,

    #[command(flatten)]
    eval: EvalArgs,
}

/// Runs it.
pub(super) fn run(arguments: SpiderArgs) -> anyhow::Result<()> {
    if let Some(folder) = &arguments.database
        && !folder.is_dir()
    {
        bad_input!("{}: expected a folder of databases", folder.display());
    }
    let data: Data<Problem> = read(&arguments.eval)?;
    let judge = Judge {
        schemas: schema::read(&arguments.tables)?,
        folder: arguments.database.clone(),
        instances: arguments.instances.get(),
        limits: Limits {
            time: Duration::from_secs(arguments.query_seconds.get() as u64),
            rows: arguments.query_rows.get(),
        },
        keep_distinct: arguments.keep_distinct,
    };
    let name = arguments.tables.display();
    for (line, problem) in &data.problems {
        let at = || format!("{}: line {line}: {name}", arguments.eval.data.display());
        judge.schema(problem).with_context(at)?;
    }
    let task = Task {
        name: "spider",
        data: &data,
        prompt: &|_, problem| {
            let text = spider::prompt(judge.schema(problem)?, &problem.question);
            Ok(Prompt::Chat(vec![Message::new("user", &text)]))
        },
        judge: &|problem, text| scored(&judge, problem, text),
        judged: json!({
            "database": arguments.database,
            "instances": arguments.instances,
            "keep_distinct": arguments.keep_distinct,
            "query_seconds": arguments.query_seconds,
            "query_rows": arguments.query_rows,
        }),
        more: &databases,
    };
    evaluate(&arguments.eval, &task)
}

fn scored(judge: &Judge, problem: &Problem, text: &str) -> anyhow::Result<Scored> {
    let judgement = judge.judge(problem, text)?;
    let scores = BTreeMap::from([
        ("execution".into(), judgement.execution),
        ("exact_match".into(), judgement.exact_match),
    ]);
    let mut details = serde_json::to_value(&judgement)?;
    details["gold"] = problem.query.clone().into();
    details["db_id"] = problem.db_id.clone().into();
    Ok(Scored { scores, details })
}

/// Which databases the questions were judged on.
fn databases(records: &[Record]) -> Value {
    let count = |source: &str| {
        let is = |record: &&Record| record.scored.details["databases"] == source;
        records.iter().filter(is).count()
    };
    let silent = |record: &&Record| record.scored.details["telling"] == 0;
    json!({
        "questions_on_database_files": count("files"),
        "questions_on_generated_databases": count("generated"),
        "questions_whose_gold_result_is_empty_everywhere": records.iter().filter(silent).count(),
    })
}
