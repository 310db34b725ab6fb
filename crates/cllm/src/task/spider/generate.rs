//! Databases made of a schema, where the real ones are not at hand.
//!
//! Content is drawn from a seed: typed, primary keys unique, foreign keys pointing at rows
//! that exist, and what the gold query asks for is there (see [`hints`](super::hints)) beside
//! near misses, so that `>` and `>=`, or `=` and nothing, give different results. Parents
//! have unequally many children, so that "the most" is mostly one row and `count(*) > 3`
//! holds for some. Some parents have none.
//!
//! Several instances of each database are compared: a wrong query agrees by chance on one
//! more easily than on all. It can still agree: the score is an upper bound, as with any
//! finite set of databases.
//!
//! There are no NULLs: the gold queries do not agree on what they mean by `count`.

mod columns;
mod random;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::compare::Rows;
use super::hints::hints;
use super::sandbox::{Limits, QueryError, Sandbox};
use super::schema::{Schema, Type};
use columns::Columns;

/// Instances that are tried to find some on which the gold query says something.
const CANDIDATES: u64 = 16;

/// A database and what the gold query says on it.
pub(crate) struct Instance {
    /// The database.
    pub(crate) sandbox: Sandbox,
    /// The gold query's result.
    pub(crate) gold: Rows,
}

/// `count` instances for one gold query. Those where it has a result that says something
/// come first; if there are too few, others fill the number.
///
/// # Errors
/// If the gold query fails: it is a query for another schema, or none.
pub(crate) fn instances(
    schema: &Schema,
    gold: &str,
    count: usize,
    limits: Limits,
) -> Result<Vec<Instance>, QueryError> {
    let (mut telling, mut silent) = (Vec::new(), Vec::new());
    for seed in 0..CANDIDATES.max(count as u64) {
        let sandbox = Sandbox::new(build(schema, gold, seed)?, limits)?;
        let gold = sandbox.rows(gold)?;
        let found = if says_something(&gold) { &mut telling } else { &mut silent };
        found.push(Instance { sandbox, gold });
        if telling.len() == count {
            break;
        }
    }
    telling.extend(silent);
    telling.truncate(count);
    Ok(telling)
}

/// Whether a result is more than nothing, NULL or a single zero.
pub(crate) fn says_something(rows: &Rows) -> bool {
    rows.iter().flatten().any(|value| {
        !matches!(value, Value::Null | Value::Integer(0)) && *value != Value::Real(0.0)
    })
}

/// One database in memory.
pub(crate) fn build(schema: &Schema, gold: &str, seed: u64) -> rusqlite::Result<Connection> {
    let content = &Columns::new(schema, &hints(schema, gold), seed).generate();
    let mut connection = Connection::open_in_memory()?;
    let transaction = connection.transaction()?;
    for (t, table) in schema.tables.iter().enumerate() {
        let of_table: Vec<usize> =
            (0..schema.columns.len()).filter(|&c| schema.columns[c].table == t).collect();
        let Some(&first) = of_table.first() else { continue };
        let rows = content[first].len();
        let columns: Vec<_> = of_table.iter().map(|&c| declaration(schema, c)).collect();
        transaction
            .execute(&format!("CREATE TABLE {} ({})", name(table), columns.join(", ")), [])?;
        let places = vec!["?"; of_table.len()].join(", ");
        let insert = format!("INSERT INTO {} VALUES ({places})", name(table));
        let mut insert = transaction.prepare(&insert)?;
        let row = |row: usize| of_table.iter().map(move |&c| &content[c][row]);
        for values in (0..rows).map(row) {
            insert.execute(params_from_iter(values))?;
        }
    }
    transaction.commit()?;
    Ok(connection)
}

fn declaration(schema: &Schema, column: usize) -> String {
    let column = &schema.columns[column];
    let kind = match column.kind {
        Type::Number => "NUMERIC",
        Type::Text | Type::Time => "TEXT",
        // No affinity: `1` stays a number, `'T'` a text.
        Type::Boolean | Type::Others => "BLOB",
    };
    format!("{} {kind}", name(&column.name))
}

/// A name as SQL takes it, whatever it holds.
fn name(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::task::spider::compare;
    use crate::task::spider::schema::tests::shop;

    const LIMITS: Limits = Limits { time: Duration::from_secs(5), rows: 10_000 };

    fn rows(gold: &str, sql: &str, seed: u64) -> Rows {
        Sandbox::new(build(&shop(), gold, seed).unwrap(), LIMITS).unwrap().rows(sql).unwrap()
    }

    #[test]
    fn keys_are_unique_and_foreign_keys_point_at_rows() {
        for seed in 0..20 {
            let orphans = "SELECT * FROM orders WHERE customer_id NOT IN (SELECT id FROM customer)";
            assert!(rows("SELECT 1", orphans, seed).is_empty());
            let twice = "SELECT id FROM orders GROUP BY id HAVING count(*) > 1";
            assert!(rows("SELECT 1", twice, seed).is_empty());
            assert!(rows("SELECT 1", "SELECT * FROM orders", seed).len() > 10);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_content_and_another_seed_another() {
        let all = |seed| rows("SELECT 1", "SELECT * FROM orders", seed);
        assert!(all(1) == all(1) && all(1) != all(2));
    }

    #[test]
    fn what_the_gold_query_asks_for_is_there() {
        for gold in [
            "SELECT name FROM customer WHERE city = 'Bonn'",
            "SELECT name FROM customer WHERE name LIKE '%Ann%'",
            "SELECT count(*) FROM orders WHERE total = 17.5",
            "SELECT T1.name FROM customer AS T1 JOIN orders AS T2 ON T1.id = T2.customer_id \
             WHERE T2.total > 9000 AND T1.city = \"Bonn\"",
            "SELECT customer_id FROM orders GROUP BY customer_id HAVING count(*) > 3",
            "SELECT day FROM orders WHERE day > '2013-04-05' AND total BETWEEN 50 AND 60",
        ] {
            let instances = instances(&shop(), gold, 3, LIMITS).unwrap();
            assert_eq!(instances.len(), 3);
            assert!(instances.iter().all(|i| says_something(&i.gold)), "{gold}");
        }
    }

    #[test]
    fn wrong_queries_are_caught() {
        let gold = "SELECT name FROM customer WHERE city = 'Bonn' AND id >= 3";
        let instances = instances(&shop(), gold, 4, LIMITS).unwrap();
        let same = |sql: &str| {
            let mut all = instances.iter();
            all.all(|i| compare::equal(&i.gold, &i.sandbox.rows(sql).unwrap(), false))
        };
        assert!(same("SELECT T.name FROM customer T WHERE T.id > 2 AND T.city LIKE 'bonn'"));
        for wrong in [
            "SELECT name FROM customer",
            "SELECT city FROM customer WHERE city = 'Bonn' AND id >= 3",
            "SELECT name FROM customer WHERE city = 'Bonn'",
            "SELECT name FROM customer WHERE city = 'Bonn' AND id > 3",
            "SELECT name FROM customer WHERE city = 'Bonn' OR id >= 3",
        ] {
            assert!(!same(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_gold_query_of_another_schema_is_an_error() {
        assert!(instances(&shop(), "SELECT * FROM nowhere", 2, LIMITS).is_err());
    }
}
