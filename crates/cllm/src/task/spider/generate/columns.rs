//! The content, column by column: those that refer to another take their values from it.

use rusqlite::types::Value;

use super::super::hints::Hints;
use super::super::schema::{Schema, Type};
use super::random::Random;

/// Rows of a table that refers to others, and of one that does not. Few enough for
/// thousands of databases in a minute.
const CHILD_ROWS: (usize, usize) = (30, 30);
const PARENT_ROWS: (usize, usize) = (10, 8);

/// Consonants and vowels make words; nobody's names.
const SYLLABLES: [&str; 20] = [
    "ba", "de", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va", "ze", "fi", "go", "hu", "ja",
    "ce", "wi", "yo", "xa",
];

/// What a column is made of.
pub(super) struct Columns<'a> {
    schema: &'a Schema,
    seed: u64,
    /// For each column those it takes its values from.
    parents: Vec<Vec<usize>>,
    /// For each column the constants of the gold query.
    wanted: Vec<Vec<String>>,
    rows: Vec<usize>,
    done: Vec<Option<Vec<Value>>>,
    under_way: Vec<bool>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(schema: &'a Schema, hints: &Hints, seed: u64) -> Self {
        let n = schema.columns.len();
        let mut parents = vec![Vec::new(); n];
        for &(child, parent) in &schema.foreign_keys {
            if child != parent {
                parents[child].push(parent);
            }
        }
        // What the query joins without a declared key shares values, too.
        for &(a, b) in &hints.joins {
            let (child, parent) = if schema.primary_keys.contains(&a) { (b, a) } else { (a, b) };
            if a != b && parents[a].is_empty() && parents[b].is_empty() {
                parents[child].push(parent);
            }
        }
        let mut wanted = vec![Vec::new(); n];
        for (&column, values) in &hints.values {
            // A constant is needed where the values come from.
            let mut root = column;
            for _ in 0..n {
                let Some(&parent) = parents[root].first() else { break };
                root = parent;
            }
            wanted[root].extend(values.iter().cloned());
            if root != column {
                wanted[column].extend(values.iter().cloned());
            }
        }
        let mut random = Random::new(seed, 0);
        let rows = (0..schema.tables.len()).map(|t| {
            let refers = (0..n).any(|c| schema.columns[c].table == t && !parents[c].is_empty());
            let (least, more) = if refers { CHILD_ROWS } else { PARENT_ROWS };
            least + random.below(more)
        });
        let rows = rows.collect();
        Self { schema, seed, parents, wanted, rows, done: vec![None; n], under_way: vec![false; n] }
    }

    /// The values of every column; those of one table are equally many.
    pub(super) fn generate(mut self) -> Vec<Vec<Value>> {
        for column in 0..self.schema.columns.len() {
            self.column(column);
        }
        let mut content: Vec<Vec<Value>> =
            self.done.iter_mut().map(|values| values.take().unwrap_or_default()).collect();
        // A key that refers to another key has at most as many values: its table shrinks.
        for table in 0..self.rows.len() {
            let of_table =
                content.iter().zip(&self.schema.columns).filter(|(_, c)| c.table == table);
            let rows = of_table.map(|(values, _)| values.len()).min().unwrap_or(0);
            for (values, column) in content.iter_mut().zip(&self.schema.columns) {
                if column.table == table {
                    values.truncate(rows);
                }
            }
        }
        // What referred to a row that is gone, or goes round in a circle, is mended; where a
        // key is concerned its row goes, which may take others with it.
        let mut random = Random::new(self.seed, u64::MAX);
        for _ in 0..=self.schema.columns.len() {
            if !self.mend(&mut content, &mut random) {
                break;
            }
        }
        content
    }

    /// Makes every reference point at a value; says whether there was anything to do.
    fn mend(&self, content: &mut [Vec<Value>], random: &mut Random) -> bool {
        let mut changed = false;
        for column in 0..content.len() {
            let Some((&first, others)) = self.parents[column].split_first() else { continue };
            let in_all =
                |value: &&Value| others.iter().all(|&other| content[other].contains(value));
            let mut allowed: Vec<Value> = content[first].iter().filter(in_all).cloned().collect();
            if allowed.is_empty() {
                allowed.clone_from(&content[first]);
            }
            let table = self.schema.columns[column].table;
            for row in (0..content[column].len()).rev() {
                if allowed.contains(&content[column][row]) {
                    continue;
                }
                changed = true;
                if allowed.is_empty() || self.unique(column) {
                    for (values, other) in content.iter_mut().zip(&self.schema.columns) {
                        if other.table == table {
                            values.remove(row);
                        }
                    }
                } else {
                    content[column][row] = random.of(&allowed).clone();
                }
            }
        }
        changed
    }

    fn column(&mut self, column: usize) {
        if self.done[column].is_some() {
            return;
        }
        self.under_way[column] = true;
        let parents: Vec<usize> = self.parents[column].clone();
        let parents = parents.into_iter().filter(|&parent| !self.under_way[parent]);
        let parents: Vec<usize> = parents.collect();
        for &parent in &parents {
            self.column(parent);
        }
        let mut random = Random::new(self.seed, column as u64 + 1);
        let values = match self.pool(&parents) {
            Some(pool) => self.referring(column, pool, &mut random),
            None => self.own(column, &mut random),
        };
        self.done[column] = Some(values);
        self.under_way[column] = false;
    }

    /// What a column may refer to: values of its first parent, of all where there are any.
    fn pool(&self, parents: &[usize]) -> Option<Vec<Value>> {
        let values = |&column: &usize| self.done[column].as_deref();
        let (first, others) = parents.split_first()?;
        let mut all: Vec<Value> = Vec::new();
        for value in values(first)? {
            if !all.contains(value) {
                all.push(value.clone());
            }
        }
        let in_all = |value: &&Value| {
            others.iter().all(|o| values(o).is_none_or(|values| values.contains(value)))
        };
        let common: Vec<Value> = all.iter().filter(in_all).cloned().collect();
        Some(if common.is_empty() { all } else { common })
    }

    fn referring(&self, column: usize, mut pool: Vec<Value>, random: &mut Random) -> Vec<Value> {
        random.shuffle(&mut pool);
        let rows = self.rows[self.schema.columns[column].table];
        if self.unique(column) {
            pool.truncate(rows);
            return pool;
        }
        if pool.is_empty() {
            return Vec::new();
        }
        let matches = |value: &&Value| self.wanted[column].iter().any(|text| says(value, text));
        let wanted: Vec<Value> = pool.iter().filter(matches).cloned().collect();
        let mut draw = || {
            if !wanted.is_empty() && random.percent(30) {
                return random.of(&wanted).clone();
            }
            pool[random.skewed(pool.len())].clone()
        };
        (0..rows).map(|_| draw()).collect()
    }

    /// Primary keys are, unless they are part of a key of several columns, of which
    /// Spider's file names one: then the table refers to several others.
    fn unique(&self, column: usize) -> bool {
        let table = self.schema.columns[column].table;
        let refers = |c: usize| {
            self.schema.columns[c].table == table
                && self.schema.foreign_keys.iter().any(|key| key.0 == c)
        };
        self.schema.primary_keys.contains(&column)
            && !(refers(column) && (0..self.done.len()).filter(|&c| refers(c)).count() > 1)
    }

    /// Values of a column that refers to nothing.
    fn own(&self, column: usize, random: &mut Random) -> Vec<Value> {
        let rows = self.rows[self.schema.columns[column].table];
        let wanted: Vec<Value> =
            self.wanted[column].iter().flat_map(|text| self.near(column, text, random)).collect();
        if self.unique(column) {
            let mut values: Vec<Value> = Vec::new();
            for value in wanted {
                if values.len() < rows && !values.contains(&value) {
                    values.push(value);
                }
            }
            let mut number = 0;
            while values.len() < rows {
                number += 1;
                let value = match self.schema.columns[column].kind {
                    Type::Number => Value::Integer(number),
                    _ => self.fresh(column, random),
                };
                // Words repeat; with their number they do not.
                let value = match value {
                    Value::Text(text) if values.contains(&Value::Text(text.clone())) => {
                        Value::Text(format!("{text}{number}"))
                    }
                    value => value,
                };
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            random.shuffle(&mut values);
            return values;
        }
        // Some columns group rows, others hardly.
        let kinds = if random.percent(50) { 3 + random.below(5) } else { 2 * rows };
        let pool: Vec<Value> = (0..kinds).map(|_| self.fresh(column, random)).collect();
        let mut draw = || {
            let list = if !wanted.is_empty() && random.percent(60) { &wanted } else { &pool };
            random.of(list).clone()
        };
        (0..rows).map(|_| draw()).collect()
    }

    /// A value a constant asks for, several times, and its neighbours.
    fn near(&self, column: usize, text: &str, random: &mut Random) -> Vec<Value> {
        let kind = self.schema.columns[column].kind;
        if kind == Type::Number
            && let Ok(number) = text.parse::<f64>()
        {
            let step = if number.fract() == 0.0 { 1.0 } else { 0.5 };
            let far = 1.0 + random.below((number.abs() as usize).saturating_add(3)) as f64;
            let all = [number, number, number + step, number - step, number + far, number - far];
            return all.map(number_value).into();
        }
        // LIKE: something in place of the wild cards. The bare text is a near miss of it.
        let bare: String = text.chars().filter(|c| *c != '%').collect();
        let bare = bare.replace('_', "a");
        let mut values = vec![Value::Text(bare.clone()); 2];
        if text.contains('%') {
            let filled = text.replace('%', &word(random));
            values = vec![Value::Text(filled); 2];
            values.push(Value::Text(bare));
        } else if let Ok(number) = text.parse::<i64>() {
            // A number written as text: a year, a code.
            values.extend([1, -1].map(|by| Value::Text(number.saturating_add(by).to_string())));
        }
        values
    }

    /// A value out of nothing.
    fn fresh(&self, column: usize, random: &mut Random) -> Value {
        let name = self.schema.columns[column].name.to_lowercase();
        let year = || name.contains("year");
        match self.schema.columns[column].kind {
            Type::Number if year() => Value::Integer(1990 + random.below(30) as i64),
            Type::Number if name.contains("age") && name.len() < 8 => {
                Value::Integer(18 + random.below(50) as i64)
            }
            // Averages and comparisons of reals, too.
            Type::Number if column.is_multiple_of(4) => {
                number_value(random.below(2000) as f64 / 4.0)
            }
            Type::Number => Value::Integer(random.below(1000) as i64),
            Type::Text if year() => Value::Text((1990 + random.below(30)).to_string()),
            Type::Text if self.numeric(column) => Value::Text(random.below(1000).to_string()),
            Type::Text if name.contains("date") => Value::Text(date(random)),
            Type::Text => Value::Text(word(random)),
            Type::Time if year() => Value::Text((1990 + random.below(30)).to_string()),
            Type::Time => Value::Text(date(random)),
            Type::Boolean | Type::Others => match self.wanted[column].first() {
                Some(text) if text.parse::<f64>().is_err() => {
                    Value::Text(random.of(&["T", "F", "Yes", "No"]).to_string())
                }
                _ => Value::Integer(random.below(2) as i64),
            },
        }
    }

    /// Whether the gold query takes a text column for numbers.
    fn numeric(&self, column: usize) -> bool {
        let wanted = &self.wanted[column];
        !wanted.is_empty() && wanted.iter().all(|text| text.parse::<f64>().is_ok())
    }
}

fn says(value: &Value, text: &str) -> bool {
    match value {
        Value::Integer(value) => text.parse() == Ok(*value as f64),
        Value::Real(value) => text.parse() == Ok(*value),
        Value::Text(value) => value == text,
        _ => false,
    }
}

fn number_value(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        Value::Integer(number as i64)
    } else {
        Value::Real(number)
    }
}

fn word(random: &mut Random) -> String {
    let syllables = (0..2 + random.below(2)).map(|_| *random.of(&SYLLABLES));
    let mut word: String = syllables.collect();
    word[..1].make_ascii_uppercase();
    word
}

fn date(random: &mut Random) -> String {
    let (year, month, day) = (2005 + random.below(15), 1 + random.below(12), 1 + random.below(28));
    format!("{year}-{month:02}-{day:02}")
}
