//! Spider (Yu et al. 2018): a question about a database, the answer a SQL query.
//!
//! | file | holds |
//! |---|---|
//! | [`schema`] | `tables.json` |
//! | [`tokens`] | SQL cut into tokens |
//! | [`query`] | queries as trees |
//! | [`exact_match`] | the second figure: clauses compared as sets |
//! | [`compare`] | result sets |
//! | [`sandbox`] | running a query that nobody has read |
//! | [`hints`] | what a query says about the data it wants |
//! | [`generate`] | databases where the real ones are not there |
//! | [`judge`] | all of it together |

pub(crate) mod compare;
pub(crate) mod exact_match;
pub(crate) mod generate;
pub(crate) mod hints;
pub(crate) mod judge;
mod query;
pub(crate) mod sandbox;
pub(crate) mod schema;
pub(crate) mod tokens;

use std::fmt::Write;

use serde::Deserialize;

use schema::Schema;

/// A line of the data set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Problem {
    /// The database asked about.
    pub(crate) db_id: String,
    /// The question.
    pub(crate) question: String,
    /// The query that answers it.
    pub(crate) query: String,
}

/// The text of the user message: tables with columns, foreign keys, question. Types are
/// left out: they would make the prompt half as long again, and SQLite hardly minds.
pub(crate) fn prompt(schema: &Schema, question: &str) -> String {
    let mut text = String::from("Write one SQLite query that answers the question.\n\n");
    for (t, table) in schema.tables.iter().enumerate() {
        let columns = schema.columns.iter().filter(|column| column.table == t);
        let columns: Vec<_> = columns.map(|column| column.name.as_str()).collect();
        let _ = writeln!(text, "{table}({})", columns.join(", "));
    }
    for &(child, parent) in &schema.foreign_keys {
        let _ = writeln!(text, "{} = {}", schema.full_name(child), schema.full_name(parent));
    }
    let _ = write!(text, "\nQuestion: {question}");
    text
}

/// The query in an answer: what stands in a code fence, else from the first SELECT (or
/// WITH name AS) on; up to a semicolon or a blank line. `None` if there is none.
pub(crate) fn sql(answer: &str) -> Option<String> {
    let mut text = answer;
    if let Some((_, fenced)) = answer.split_once("```") {
        let inner = fenced.split("```").next().unwrap_or_default();
        if start(inner).is_some() {
            text = inner;
        }
    }
    let text = &text[start(text)?..];
    let end = text.find("\n\n").unwrap_or(text.len());
    let text = &text[..end];
    // A semicolon in quotes is not the end.
    let semicolon = tokens::tokens(text).into_iter().find(|token| token.is_symbol(";"));
    let text = semicolon.map_or(text, |token| &text[..token.start]);
    Some(text.trim().to_owned())
}

/// Where a query begins. What stands before it is prose, where a quote is an apostrophe.
fn start(text: &str) -> Option<usize> {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let first = !in_word(before);
        before = c;
        if !first || !matches!(c, 's' | 'S' | 'w' | 'W') {
            continue;
        }
        let word: String = text[at..].chars().take_while(|&c| in_word(c)).collect();
        if word.eq_ignore_ascii_case("select") {
            return Some(at);
        }
        if word.eq_ignore_ascii_case("with") {
            let mut words = text[at..].split_whitespace().skip(1);
            let mut name = words.next();
            if name.is_some_and(|name| name.eq_ignore_ascii_case("recursive")) {
                name = words.next();
            }
            let is_as = |word: &str| {
                word.split('(').next().is_some_and(|as_| as_.eq_ignore_ascii_case("as"))
            };
            if name.is_some() && words.next().is_some_and(is_as) {
                return Some(at);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_shows_tables_keys_and_question() {
        let schema = schema::tests::shop();
        let expected = "Write one SQLite query that answers the question.\n\n\
                        customer(id, name, city)\n\
                        orders(id, customer_id, total, day)\n\
                        orders.customer_id = customer.id\n\n\
                        Question: How many?";
        assert_eq!(prompt(&schema, "How many?"), expected);
    }

    #[test]
    fn the_query_is_found_in_the_answer() {
        let check = |answer: &str, expected: Option<&str>| {
            assert_eq!(sql(answer).as_deref(), expected, "{answer}");
        };
        check("SELECT 1", Some("SELECT 1"));
        check("Sure!\n```sql\nSELECT a\nFROM t;\n```\nselected", Some("SELECT a\nFROM t"));
        check("SQL: select ';' ; -- done", Some("select ';'"));
        check("With pleasure: select a from t\n\nIt selects a.", Some("select a from t"));
        check("WITH x AS (SELECT 1) SELECT * FROM x", Some("WITH x AS (SELECT 1) SELECT * FROM x"));
        check("```\nno code\n```\nSELECT 2", Some("SELECT 2"));
        check("Here's it: SELECT 'a' -- isn't it?", Some("SELECT 'a' -- isn't it?"));
        check("I was selected.", None);
        check("", None);
    }
}
