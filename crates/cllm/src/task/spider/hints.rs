//! What a query says about the data it wants: constants beside columns, and columns that
//! it joins.
//!
//! A database of random content gives most queries empty results, and an empty result
//! tells a right query from a wrong one no better than no database. So the content is
//! made with the gold query in hand. The reading is rough: a constant that it misses
//! costs a result, never correctness.

use std::collections::HashMap;

use super::schema::Schema;
use super::tokens::{Kind, Token, tokens};

/// What a query says about the data.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Hints {
    /// Constants compared with a column.
    pub(crate) values: HashMap<usize, Vec<String>>,
    /// Columns compared with one another.
    pub(crate) joins: Vec<(usize, usize)>,
}

/// Reads the hints of `sql`.
pub(crate) fn hints(schema: &Schema, sql: &str) -> Hints {
    let tokens = tokens(sql);
    let names = Names::new(schema, &tokens);
    let mut hints = Hints::default();
    let mut i = 0;
    while i < tokens.len() {
        let Some((column, mut at)) = names.column(i) else {
            i += 1;
            continue;
        };
        i = at;
        // A closing parenthesis: max(a) = 3 says something of a, too.
        let word = |at: usize, word: &str| tokens.get(at).is_some_and(|t: &Token| t.is(word));
        let symbol = |at: usize, symbols: &[&str]| {
            tokens.get(at).is_some_and(|t: &Token| {
                t.kind == Kind::Symbol && symbols.contains(&t.text.as_str())
            })
        };
        while symbol(at, &[")"]) {
            at += 1;
        }
        if word(at, "not") {
            at += 1;
        }
        let several = if symbol(at, &["=", "==", "!=", "<>", "<", ">", "<=", ">="]) {
            false
        } else if word(at, "like") || word(at, "in") || word(at, "between") {
            true
        } else {
            continue;
        };
        at += 1;
        // `> =` in two tokens.
        while symbol(at, &["="]) || (several && symbol(at, &["("])) {
            at += 1;
        }
        loop {
            let minus = symbol(at, &["-"]);
            at += usize::from(minus);
            if let Some((other, _)) = names.column(at) {
                hints.joins.push((column, other));
                break;
            }
            let Some(token) = tokens.get(at) else { break };
            if !matches!(token.kind, Kind::Quoted | Kind::Number) {
                break;
            }
            let value = if minus { format!("-{}", token.text) } else { token.text.clone() };
            hints.values.entry(column).or_default().push(value);
            at += 1;
            if !(several && (symbol(at, &[","]) || word(at, "and"))) {
                break;
            }
            at += 1;
        }
    }
    hints
}

/// Which column a token means.
struct Names<'a> {
    schema: &'a Schema,
    tokens: &'a [Token],
    /// Tables by alias, in lower case.
    aliases: HashMap<String, usize>,
    /// Tables the query names.
    tables: Vec<usize>,
}

impl<'a> Names<'a> {
    fn new(schema: &'a Schema, tokens: &'a [Token]) -> Self {
        let (mut aliases, mut tables) = (HashMap::new(), Vec::new());
        for (i, token) in tokens.iter().enumerate() {
            let after = i.checked_sub(1).map(|before| &tokens[before]);
            let named = after.is_some_and(|t| t.is("from") || t.is("join") || t.is_symbol(","));
            let Some(table) = schema.table(&token.text).filter(|_| named) else { continue };
            tables.push(table);
            if let Some(alias) = tokens.get(i + 2).filter(|_| tokens[i + 1].is("as")) {
                aliases.insert(alias.text.to_lowercase(), table);
            } else if let Some(alias) = tokens.get(i + 1).filter(|t| t.kind == Kind::Word) {
                aliases.insert(alias.text.to_lowercase(), table);
            }
        }
        Self { schema, tokens, aliases, tables }
    }

    /// The column that begins at token `at`, and the token after it.
    fn column(&self, at: usize) -> Option<(usize, usize)> {
        let token = self.tokens.get(at)?;
        if token.kind != Kind::Word {
            return None;
        }
        if self.tokens.get(at + 1).is_some_and(|dot| dot.is_symbol(".")) {
            let name = token.text.to_lowercase();
            let table = self.aliases.get(&name).copied().or_else(|| self.schema.table(&name))?;
            let column = self.schema.column(table, &self.tokens.get(at + 2)?.text)?;
            return Some((column, at + 3));
        }
        let column = self.tables.iter().find_map(|&t| self.schema.column(t, &token.text))?;
        Some((column, at + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::spider::schema::tests::shop;

    #[test]
    fn constants_go_to_their_columns() {
        let schema = shop();
        let sql = "SELECT T1.name FROM customer AS T1 JOIN orders AS T2 ON T1.id = T2.customer_id \
                   WHERE T1.city = \"Bonn\" AND total > = 1.5 AND T2.day NOT IN ('a', 'b') \
                   AND total BETWEEN 3 AND 4 OR T1.name LIKE '%x%' HAVING avg(total) < -2";
        let hints = hints(&schema, sql);
        let values = |column: usize| hints.values[&column].iter().map(String::as_str);
        assert_eq!(values(2).collect::<Vec<_>>(), ["Bonn"]);
        assert_eq!(values(5).collect::<Vec<_>>(), ["1.5", "3", "4", "-2"]);
        assert_eq!(values(6).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(values(1).collect::<Vec<_>>(), ["%x%"]);
        assert_eq!(hints.joins, [(0, 4)]);
    }

    #[test]
    fn any_text_is_read_without_panic() {
        for sql in ["", "FROM", "a.", "FROM customer", "id = ", "FROM customer WHERE id in ("] {
            let _ = hints(&shop(), sql);
        }
    }
}
