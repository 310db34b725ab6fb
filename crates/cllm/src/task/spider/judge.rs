//! Whether an answer to a Spider question is right.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::compare::{self, Rows};
use super::generate;
use super::sandbox::{Limits, QueryError, Sandbox};
use super::schema::Schema;
use super::{Problem, exact_match, sql, tokens};
use crate::exit::bad_input;

/// How answers are judged.
#[derive(Debug)]
pub(crate) struct Judge {
    /// Schemas by `db_id`.
    pub(crate) schemas: HashMap<String, Schema>,
    /// Where real databases are: `FOLDER/<db_id>/*.sqlite`.
    pub(crate) folder: Option<PathBuf>,
    /// Databases generated for a question whose real one is not there.
    pub(crate) instances: usize,
    /// What one query may cost.
    pub(crate) limits: Limits,
    /// Whether DISTINCT counts; the official script drops it from both queries.
    pub(crate) keep_distinct: bool,
}

/// Where a question's databases came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// The user's files.
    Files,
    /// Made from the schema.
    Generated,
}

/// What there is to say of an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Judgement {
    /// The query in it.
    pub(crate) sql: Option<String>,
    /// Where the databases came from.
    pub(crate) databases: Source,
    /// How many databases.
    pub(crate) instances: usize,
    /// On how many of them the gold query says more than nothing or zero.
    pub(crate) telling: usize,
    /// Same result as the gold query on all of them; `None` if that one fails itself.
    pub(crate) execution: Option<bool>,
    /// Same clauses, see [`exact_match`]; `None` if the gold query cannot be read.
    pub(crate) exact_match: Option<bool>,
    /// Why there was no result.
    pub(crate) error: Option<String>,
}

/// A database and what the gold query says on it.
type Pair = (Sandbox, Rows);

impl Judge {
    /// Databases to generate for a question, unless somebody says otherwise.
    pub(crate) const INSTANCES: usize = 4;

    /// The schema of a problem.
    ///
    /// # Errors
    /// Bad input if there is none.
    pub(crate) fn schema(&self, problem: &Problem) -> anyhow::Result<&Schema> {
        match self.schemas.get(&problem.db_id) {
            Some(schema) => Ok(schema),
            None => bad_input!("no database `{}` in the file of tables", problem.db_id),
        }
    }

    /// Judges the text of an answer.
    pub(crate) fn judge(&self, problem: &Problem, answer: &str) -> anyhow::Result<Judgement> {
        let schema = self.schema(problem)?;
        let gold = tokens::prepare(&problem.query, self.keep_distinct);
        let files = self.files(&problem.db_id)?;
        let databases = if files.is_empty() { Source::Generated } else { Source::Files };
        let found = sql(answer);
        let text = found.as_deref().unwrap_or_default();
        let exact_match = exact_match::equal(schema, text, &problem.query);
        let mut judgement = Judgement {
            sql: found,
            databases,
            instances: 0,
            telling: 0,
            execution: None,
            exact_match,
            error: None,
        };
        let pairs = match self.databases(schema, &files, &gold) {
            Ok(pairs) => pairs,
            Err(error) => {
                judgement.error = Some(format!("the gold query: {error}"));
                return Ok(judgement);
            }
        };
        judgement.instances = pairs.len();
        judgement.telling = pairs.iter().filter(|(_, gold)| generate::says_something(gold)).count();
        let Some(found) = &judgement.sql else {
            judgement.execution = Some(false);
            judgement.error = Some("no query in the answer".into());
            return Ok(judgement);
        };
        let query = tokens::prepare(found, self.keep_distinct);
        let ordered = gold.to_lowercase().contains("order by");
        judgement.execution = Some(true);
        for (sandbox, gold) in &pairs {
            let same = match sandbox.rows(&query) {
                Ok(rows) => compare::equal(gold, &rows, ordered),
                Err(error) => {
                    judgement.error = Some(error.to_string());
                    false
                }
            };
            if !same {
                judgement.execution = Some(false);
                break;
            }
        }
        Ok(judgement)
    }

    fn databases(
        &self,
        schema: &Schema,
        files: &[PathBuf],
        gold: &str,
    ) -> Result<Vec<Pair>, QueryError> {
        if files.is_empty() {
            let made = generate::instances(schema, gold, self.instances, self.limits)?;
            return Ok(made.into_iter().map(|made| (made.sandbox, made.gold)).collect());
        }
        let open = |file: &PathBuf| {
            let sandbox = Sandbox::open(file, self.limits)?;
            let rows = sandbox.rows(gold)?;
            Ok((sandbox, rows))
        };
        files.iter().map(open).collect()
    }

    /// The user's files of a database: all of its folder, as the test-suite script does.
    fn files(&self, db_id: &str) -> anyhow::Result<Vec<PathBuf>> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        // A name is no path.
        if Path::new(db_id).components().count() != 1 || db_id.starts_with('.') {
            bad_input!("`{db_id}` is no name of a database");
        }
        let folder = folder.join(db_id);
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "sqlite") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::task::spider::schema::tests::shop;

    fn judge() -> Judge {
        Judge {
            schemas: HashMap::from([("shop".into(), shop())]),
            folder: None,
            instances: 3,
            limits: Limits { time: Duration::from_secs(5), rows: 10_000 },
            keep_distinct: false,
        }
    }

    fn problem(query: &str) -> Problem {
        Problem { db_id: "shop".into(), question: "?".into(), query: query.into() }
    }

    #[test]
    fn an_answer_is_right_if_it_says_the_same_everywhere() {
        let problem = problem("SELECT DISTINCT name FROM customer ORDER BY id");
        let of = |answer: &str| judge().judge(&problem, answer).unwrap();
        let right = of("```sql\nselect name from customer order by id asc\n```");
        assert_eq!((right.execution, right.exact_match), (Some(true), Some(true)));
        let closer = of("select distinct NAME from Customer order by id asc;");
        assert_eq!((closer.execution, closer.exact_match), (Some(true), Some(true)));
        assert_eq!((right.databases, right.instances, right.telling), (Source::Generated, 3, 3));
        let unordered = of("SELECT name FROM customer ORDER BY name");
        assert_eq!((unordered.execution, unordered.exact_match), (Some(false), Some(false)));
        let none = of("I do not know.");
        assert_eq!((none.execution, none.sql), (Some(false), None));
        assert!(of("SELECT nothing FROM nowhere").error.is_some());
    }

    #[test]
    fn a_gold_query_that_fails_is_not_held_against_the_answer() {
        let judgement = judge().judge(&problem("SELECT x FROM y"), "SELECT 1").unwrap();
        assert_eq!(judgement.execution, None);
        assert!(judgement.error.unwrap().starts_with("the gold query: "));
    }

    #[test]
    fn the_users_databases_come_first() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("shop")).unwrap();
        let file = folder.path().join("shop/shop.sqlite");
        let connection = rusqlite::Connection::open(file).unwrap();
        connection
            .execute_batch("CREATE TABLE customer (id); INSERT INTO customer VALUES (7)")
            .unwrap();
        let judge = Judge { folder: Some(folder.path().into()), ..judge() };
        let judgement = judge.judge(&problem("SELECT id FROM customer"), "SELECT 7").unwrap();
        assert_eq!((judgement.databases, judgement.execution), (Source::Files, Some(true)));
        let outside = Problem { db_id: "../x".into(), ..problem("SELECT 1") };
        assert!(judge.judge(&outside, "SELECT 1").is_err());
    }

    /// On the data set itself: `CLLM_TEST_SPIDER` names the folder with dev.jsonl and
    /// tables.json. Every gold query runs, agrees with itself, and mostly says something.
    #[test]
    #[ignore = "needs Spider's files in CLLM_TEST_SPIDER"]
    fn every_gold_query_is_right() {
        let folder = PathBuf::from(std::env::var_os("CLLM_TEST_SPIDER").expect("CLLM_TEST_SPIDER"));
        let schemas = super::super::schema::read(&folder.join("tables.json")).unwrap();
        let judge = Judge { schemas, ..judge() };
        let text = fs::read_to_string(folder.join("dev.jsonl")).unwrap();
        let (mut all, mut silent) = (0, Vec::new());
        let mut last: Option<Problem> = None;
        let mut caught = (0, 0);
        for line in text.lines() {
            let problem: Problem = serde_json::from_str(line).unwrap();
            let judgement = judge.judge(&problem, &problem.query).unwrap();
            assert_eq!(judgement.execution, Some(true), "{} {judgement:?}", problem.query);
            assert_eq!(judgement.exact_match, Some(true), "{}", problem.query);
            all += 1;
            if judgement.telling == 0 {
                silent.push(problem.query.clone());
            }
            // The query of another question to the same database is wrong.
            if let Some(other) = last.replace(problem.clone())
                && other.db_id == problem.db_id
                && other.query != problem.query
            {
                caught.1 += 1;
                let wrong = judge.judge(&problem, &other.query).unwrap();
                caught.0 += usize::from(wrong.execution == Some(false));
            }
        }
        let share = silent.len() as f64 / f64::from(all);
        assert!(share < 0.05, "{} of {all} say nothing: {silent:#?}", silent.len());
        let share = caught.0 as f64 / f64::from(caught.1);
        assert!(share > 0.9, "only {} of {} other queries caught", caught.0, caught.1);
    }
}
