//! Queries as a tree, for the official exact match.
//!
//! The grammar is that of Spider's queries and of its script's reader, no more of SQL: aliases
//! come with AS, tables are joined with JOIN, one set operation joins two queries. What is not
//! in it is an error, and an answer that is an error matches nothing, as with the script.

use std::collections::HashMap;

use super::schema::Schema;
use super::tokens::{Kind, Token, prepare, tokens};

/// `agg(DISTINCT column)`; the column is `table.name` in lower case, or `*`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub(super) aggregate: Option<Aggregate>,
    pub(super) name: String,
    pub(super) distinct: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Max,
    Min,
    Count,
    Sum,
    Avg,
}

/// A column, or two with an operator between.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Term {
    pub(super) first: Column,
    pub(super) second: Option<(char, Column)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(f64),
    Column(Column),
    Query(Box<Query>),
}

/// `term NOT op value`, and a second value with BETWEEN.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    pub(super) not: bool,
    pub(super) op: &'static str,
    pub(super) term: Term,
    /// `None` once values no longer count.
    pub(super) values: Vec<Option<Value>>,
}

/// Conditions with what joins each to the one before.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Conditions {
    pub(super) all: Vec<Condition>,
    /// Whether it is OR.
    pub(super) or: Vec<bool>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    Table(usize),
    Query(Box<Query>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    pub(super) distinct: bool,
    pub(super) select: Vec<Selected>,
    pub(super) from: Vec<Source>,
    pub(super) on: Conditions,
    pub(super) filter: Conditions,
    pub(super) group: Vec<Column>,
    pub(super) having: Conditions,
    /// Descending, and by what.
    pub(super) order: Option<(bool, Vec<Term>)>,
    pub(super) limit: Option<f64>,
    pub(super) then: Option<(SetOperation, Box<Query>)>,
}

/// What is selected: a term, or an aggregate of one.
pub(super) type Selected = (Option<Aggregate>, Term);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetOperation {
    Intersect,
    Union,
    Except,
}

const CLAUSES: [&str; 9] =
    ["select", "from", "where", "group", "order", "limit", "intersect", "union", "except"];
const JOINS: [&str; 3] = ["join", "on", "as"];
const OPERATORS: [&str; 12] =
    ["not", "between", "=", ">", "<", ">=", "<=", "!=", "in", "like", "is", "exists"];

type Parsed<T> = Result<T, String>;

/// The deepest nesting of queries; an answer of a model may be anything.
const MAX_DEPTH: usize = 16;

/// Reads a query about the tables of `schema`. What follows a whole query is not looked at.
///
/// # Errors
/// What was expected where.
pub(super) fn parse(schema: &Schema, sql: &str) -> Parsed<Query> {
    let tokens = tokens(&prepare(sql, true));
    let mut aliases = HashMap::new();
    for (i, _) in tokens.iter().enumerate().filter(|(_, token)| token.is("as")) {
        if let (Some(table), Some(alias)) = (i.checked_sub(1), tokens.get(i + 1)) {
            let alias = alias.text.to_lowercase();
            if schema.table(&alias).is_some() {
                return Err(format!("the alias `{alias}` is the name of a table"));
            }
            aliases.insert(alias, tokens[table].text.as_str());
        }
    }
    Parser { schema, tokens: &tokens, aliases: &aliases, at: 0, depth: 0 }.query()
}

struct Parser<'a> {
    schema: &'a Schema,
    tokens: &'a [Token],
    aliases: &'a HashMap<String, &'a str>,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn token(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn is(&self, word: &str) -> bool {
        self.token().is_some_and(|token| token.is(word))
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        self.token().is_some_and(|token| token.is_symbol(symbol))
    }

    fn any(&self, words: &[&'static str]) -> Option<&'static str> {
        words.iter().copied().find(|word| self.is(word))
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.is(word) || self.is_symbol(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, word: &str) -> Parsed<()> {
        if self.take(word) { Ok(()) } else { self.expected(&format!("`{word}`")) }
    }

    fn expected<T>(&self, what: &str) -> Parsed<T> {
        let found = self.token().map_or("the end", |token| &token.text);
        Err(format!("expected {what}, found `{found}`"))
    }

    /// Whether a clause, a query or the text ends here.
    fn ends(&self) -> bool {
        self.token().is_none()
            || self.any(&CLAUSES).is_some()
            || self.is_symbol(")")
            || self.is_symbol(";")
    }

    fn query(&mut self) -> Parsed<Query> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} queries in each other"));
        }
        let block = self.take("(");
        let start = self.at;
        // The tables first: columns are looked up in them.
        let Some(from) = self.tokens[start..].iter().position(|token| token.is("from")) else {
            return Err("expected `from`, found none".into());
        };
        self.at = start + from + 1;
        let (from, on, tables) = self.from()?;
        let after = std::mem::replace(&mut self.at, start);
        let (distinct, select) = self.select(&tables)?;
        self.at = after;
        let filter = if self.take("where") { self.conditions(&tables)? } else { <_>::default() };
        let group = if self.take("group") { self.group(&tables)? } else { Vec::new() };
        let having = if self.take("having") { self.conditions(&tables)? } else { <_>::default() };
        let order = if self.take("order") { Some(self.order(&tables)?) } else { None };
        let limit = if self.take("limit") { Some(self.number()?) } else { None };
        while self.take(";") {}
        if block {
            self.expect(")")?;
            while self.take(";") {}
        }
        let operations = [
            ("intersect", SetOperation::Intersect),
            ("union", SetOperation::Union),
            ("except", SetOperation::Except),
        ];
        let then = match operations.into_iter().find(|(word, _)| self.take(word)) {
            Some((_, operation)) => Some((operation, Box::new(self.query()?))),
            None => None,
        };
        self.depth -= 1;
        Ok(Query { distinct, select, from, on, filter, group, having, order, limit, then })
    }

    fn from(&mut self) -> Parsed<(Vec<Source>, Conditions, Vec<usize>)> {
        let (mut from, mut on, mut tables) = (Vec::new(), Conditions::default(), Vec::new());
        loop {
            let block = self.take("(");
            if self.is("select") {
                from.push(Source::Query(Box::new(self.query()?)));
            } else {
                self.take("join");
                let table = self.table()?;
                if self.take("as") {
                    self.at += 1;
                }
                from.push(Source::Table(table));
                tables.push(table);
            }
            if self.take("on") {
                let more = self.conditions(&tables)?;
                if !on.all.is_empty() {
                    on.or.push(false);
                }
                on.all.extend(more.all);
                on.or.extend(more.or);
            }
            if block {
                self.expect(")")?;
            }
            if self.ends() {
                return Ok((from, on, tables));
            }
        }
    }

    fn table(&mut self) -> Parsed<usize> {
        let name = self.word()?;
        match self.resolve(&name) {
            Some(table) => Ok(table),
            None => Err(format!("no table `{name}`")),
        }
    }

    fn resolve(&self, name: &str) -> Option<usize> {
        let name = self.aliases.get(name).copied().unwrap_or(name);
        self.schema.table(name)
    }

    /// In lower case.
    fn word(&mut self) -> Parsed<String> {
        match self.token() {
            Some(token) if token.kind == Kind::Word => {
                let text = token.text.to_lowercase();
                self.at += 1;
                Ok(text)
            }
            _ => self.expected("a name"),
        }
    }

    fn number(&mut self) -> Parsed<f64> {
        let minus = self.take("-");
        match self.token() {
            Some(token) if token.kind == Kind::Number => match token.text.parse::<f64>() {
                Ok(number) => {
                    self.at += 1;
                    Ok(if minus { -number } else { number })
                }
                Err(_) => self.expected("a number"),
            },
            _ => self.expected("a number"),
        }
    }

    fn aggregate(&mut self) -> Option<Aggregate> {
        let all = [
            ("max", Aggregate::Max),
            ("min", Aggregate::Min),
            ("count", Aggregate::Count),
            ("sum", Aggregate::Sum),
            ("avg", Aggregate::Avg),
        ];
        all.into_iter().find(|(word, _)| self.take(word)).map(|(_, aggregate)| aggregate)
    }

    fn name(&mut self, tables: &[usize]) -> Parsed<String> {
        if self.take("*") {
            return Ok("*".into());
        }
        let word = self.word()?;
        let found = if self.take(".") {
            let column = self.word()?;
            self.resolve(&word).and_then(|table| self.schema.column(table, &column))
        } else {
            tables.iter().find_map(|&table| self.schema.column(table, &word))
        };
        match found {
            Some(column) => Ok(self.schema.full_name(column).to_lowercase()),
            None => Err(format!("no column `{word}` there")),
        }
    }

    fn column(&mut self, tables: &[usize]) -> Parsed<Column> {
        let block = self.take("(");
        let aggregate = self.aggregate();
        if aggregate.is_some() {
            self.expect("(")?;
        }
        let distinct = self.take("distinct");
        let name = self.name(tables)?;
        if aggregate.is_some() || block {
            self.expect(")")?;
        }
        Ok(Column { aggregate, name, distinct })
    }

    fn term(&mut self, tables: &[usize]) -> Parsed<Term> {
        let block = self.take("(");
        let first = self.column(tables)?;
        let second = match ["-", "+", "*", "/"].into_iter().find(|op| self.take(op)) {
            Some(op) => Some((op.chars().next().unwrap_or('-'), self.column(tables)?)),
            None => None,
        };
        if block {
            self.expect(")")?;
        }
        Ok(Term { first, second })
    }

    fn select(&mut self, tables: &[usize]) -> Parsed<(bool, Vec<Selected>)> {
        self.expect("select")?;
        let distinct = self.take("distinct");
        let mut terms = Vec::new();
        while self.token().is_some() && self.any(&CLAUSES).is_none() {
            let aggregate = self.aggregate();
            terms.push((aggregate, self.term(tables)?));
            self.take(",");
        }
        Ok((distinct, terms))
    }

    fn group(&mut self, tables: &[usize]) -> Parsed<Vec<Column>> {
        self.expect("by")?;
        let mut columns = vec![self.column(tables)?];
        while self.take(",") {
            columns.push(self.column(tables)?);
        }
        Ok(columns)
    }

    /// The last ASC or DESC counts for all, as with the script.
    fn order(&mut self, tables: &[usize]) -> Parsed<(bool, Vec<Term>)> {
        self.expect("by")?;
        let (mut descending, mut terms) = (false, Vec::new());
        loop {
            terms.push(self.term(tables)?);
            if let Some(word) = self.any(&["asc", "desc"]) {
                descending = word == "desc";
                self.at += 1;
            }
            if !self.take(",") {
                return Ok((descending, terms));
            }
        }
    }

    fn conditions(&mut self, tables: &[usize]) -> Parsed<Conditions> {
        let mut conditions = Conditions::default();
        loop {
            let term = self.term(tables)?;
            let not = self.take("not");
            let Some(op) = OPERATORS.into_iter().find(|op| self.take(op)) else {
                return self.expected("an operator");
            };
            let mut values = vec![Some(self.value(tables)?)];
            if op == "between" {
                self.expect("and")?;
                values.push(Some(self.value(tables)?));
            }
            conditions.all.push(Condition { not, op, term, values });
            if self.ends() || self.any(&JOINS).is_some() {
                return Ok(conditions);
            }
            match self.any(&["and", "or"]) {
                Some(word) => conditions.or.push(word == "or"),
                None if self.is("having") => return Ok(conditions),
                None => return self.expected("AND or OR"),
            }
            self.at += 1;
        }
    }

    fn value(&mut self, tables: &[usize]) -> Parsed<Value> {
        let block = self.take("(");
        let value = match self.token() {
            Some(token) if token.kind == Kind::Quoted => {
                let text = token.text.clone();
                self.at += 1;
                Value::Text(text)
            }
            Some(token) if token.kind == Kind::Number || token.is_symbol("-") => {
                Value::Number(self.number()?)
            }
            _ if self.is("select") => Value::Query(Box::new(self.query()?)),
            _ => Value::Column(self.column(tables)?),
        };
        if block {
            self.expect(")")?;
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::spider::schema::tests::shop;

    #[test]
    fn a_query_becomes_a_tree() {
        let sql = "SELECT T1.name, count(DISTINCT T2.id) FROM customer AS T1 JOIN orders AS T2 \
                   ON T1.id = T2.customer_id WHERE city = 'Rome' OR total NOT BETWEEN 1 AND -2.5 \
                   GROUP BY T1.name HAVING count(*) > 3 ORDER BY T1.name DESC LIMIT 5";
        let query = parse(&shop(), sql).unwrap();
        assert_eq!(query.from, [Source::Table(0), Source::Table(1)]);
        assert_eq!(query.select[0].1.first.name, "customer.name");
        assert_eq!(query.select[1].0, Some(Aggregate::Count));
        assert!(query.select[1].1.first.distinct);
        assert_eq!(query.on.all[0].term.first.name, "customer.id");
        assert_eq!((query.filter.all.len(), &query.filter.or[..]), (2, &[true][..]));
        assert_eq!(query.filter.all[0].term.first.name, "customer.city");
        let between = &query.filter.all[1];
        assert_eq!((between.not, between.op), (true, "between"));
        assert_eq!(between.values[1], Some(Value::Number(-2.5)));
        assert_eq!(query.having.all[0].term.first.aggregate, Some(Aggregate::Count));
        assert_eq!((query.order.unwrap().0, query.limit), (true, Some(5.0)));
    }

    #[test]
    fn queries_stand_in_queries() {
        let nested = "SELECT name FROM customer WHERE id IN (SELECT customer_id FROM orders)";
        let query = parse(&shop(), &format!("{nested} UNION {nested};")).unwrap();
        assert!(matches!(query.filter.all[0].values[0], Some(Value::Query(_))));
        assert!(matches!(query.then, Some((SetOperation::Union, _))));
        let inner = "SELECT count(*) FROM (SELECT DISTINCT city FROM customer)";
        assert!(matches!(parse(&shop(), inner).unwrap().from[..], [Source::Query(_)]));
    }

    #[test]
    fn what_is_not_in_the_grammar_is_an_error() {
        for sql in [
            "",
            "SELECT",
            "SELECT name",
            "SELECT name FROM",
            "SELECT name FROM nowhere",
            "SELECT nothing FROM customer",
            "SELECT name FROM customer c",
            "SELECT name FROM customer, orders",
            "SELECT name FROM customer WHERE",
            "SELECT name FROM customer WHERE id <> 3",
            "SELECT name FROM customer WHERE id = 3 name = 4",
            "SELECT name FROM customer AS orders",
            "SELECT count(name FROM customer",
        ] {
            assert!(parse(&shop(), sql).is_err(), "{sql}");
        }
        let deep = "SELECT name FROM customer WHERE id IN (".repeat(100_000);
        assert!(parse(&shop(), &deep).unwrap_err().contains("more than"));
    }
}
