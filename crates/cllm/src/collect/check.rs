//! Whether an answer is right: what `--keep correct` keeps.

use crate::record::Record;
use crate::task::gsm8k;
use crate::task::spider::judge::Judge;

/// How answers are checked against the data's.
#[derive(Debug)]
pub(crate) enum Check {
    /// Not at all.
    Nothing,
    /// GSM8K: the number.
    Number,
    /// Spider: the result of the query.
    Query(Box<Judge>),
}

impl Check {
    /// Why an answer is turned down; `None` if it is not.
    ///
    /// # Errors
    /// If a database cannot be read.
    pub(crate) fn fault(
        &self,
        record: &Record,
        answer: &str,
    ) -> anyhow::Result<Option<&'static str>> {
        let right = match self {
            Self::Nothing => Some(true),
            Self::Number => {
                Some(record.answer.as_deref().is_some_and(|own| same_number(own, answer)))
            }
            Self::Query(judge) => match &record.problem {
                Some(problem) => judge.judge(problem, answer)?.execution,
                None => None,
            },
        };
        Ok(match right {
            Some(true) => None,
            Some(false) => Some("incorrect"),
            None => Some("unchecked"),
        })
    }
}

/// Whether an answer gives the number that the reference gives after `####` (GSM8K): its
/// own after `####`, or its last one if it has no such mark.
fn same_number(reference: &str, answer: &str) -> bool {
    match gsm8k::answer(answer) {
        Some(_) => gsm8k::is_correct(answer, reference),
        None => gsm8k::is_correct_flexible(answer, reference),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::prompt::Prompt;
    use crate::task::spider::sandbox::Limits;
    use crate::task::spider::{Problem, schema};

    #[test]
    fn numbers_are_compared_as_gsm8k_writes_them() {
        assert!(same_number("a\n#### 1,200", "so $1200."));
        assert!(same_number("#### 5", "#### 5\n"));
        assert!(!same_number("#### 5", "5 or 6"));
        assert!(!same_number("#### 6", "#### 5\n6"), "the mark decides where there is one");
        assert!(!same_number("#### -5", "no idea"));
        assert!(!same_number("five", "5"));
    }

    #[test]
    fn queries_are_compared_by_their_results() {
        let judge = Judge {
            schemas: HashMap::from([("shop".into(), schema::tests::shop())]),
            folder: None,
            instances: Judge::INSTANCES,
            limits: Limits::default(),
            keep_distinct: false,
        };
        let check = Check::Query(Box::new(judge));
        let record = |query: &str| Record {
            at: 1,
            prompt: Prompt::Raw("x".into()),
            answer: Some(query.into()),
            problem: Some(Problem {
                db_id: "shop".into(),
                question: "Whose name is where?".into(),
                query: query.into(),
            }),
        };
        let gold = record("SELECT name FROM customer WHERE city = 'Oslo'");
        let fault = |answer: &str| check.fault(&gold, answer).unwrap();
        assert_eq!(fault("select T1.name from customer as T1 where T1.city = 'Oslo'"), None);
        assert_eq!(fault("SELECT name FROM customer"), Some("incorrect"));
        assert_eq!(fault("I do not know."), Some("incorrect"));
        let broken = record("SELECT nothing FROM nowhere");
        assert_eq!(check.fault(&broken, "SELECT 1").unwrap(), Some("unchecked"));
    }
}
