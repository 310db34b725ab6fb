//! Whether two result sets say the same, as the official test-suite script sees it
//! (Zhong, Yu, Klein 2020).
//!
//! Rows are compared as a multiset, in order only where the gold query has ORDER BY; the
//! columns may stand in any order, but in the same one in every row. Integers and reals
//! are equal where their values are; a number and a text never are. Two empty results are
//! equal whatever their columns.
//!
//! The script tries permutations of columns. Here columns are assigned one after the
//! other, and a choice that already makes the rows differ is not pursued: the same
//! outcome without the factorial.

use std::collections::HashMap;

use rusqlite::types::Value;

/// The rows of a result, equally long each.
pub(crate) type Rows = Vec<Vec<Value>>;

/// Values to look at before two results are called different; only results made to be hard
/// come near.
const WORK: usize = 20_000_000;

/// Whether two results are the same; `ordered` if the order of rows matters.
pub(crate) fn equal(a: &Rows, b: &Rows, ordered: bool) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (Some(first), Some(other)) = (a.first(), b.first()) else { return true };
    if first.len() != other.len() {
        return false;
    }
    let mut numbers = HashMap::new();
    let (a, b) = (columns(a, &mut numbers), columns(b, &mut numbers));
    let rows = a.first().map_or(0, Vec::len);
    // Rows that agree in the columns so far are of one class; in order, each is its own.
    let classes: Vec<u32> = (0..rows).map(|row| if ordered { row as u32 } else { 0 }).collect();
    let (sorted_a, sorted_b) = (sorted(&a, ordered), sorted(&b, ordered));
    let mut search = Search {
        a: &a,
        b: &b,
        fits: &|i, j| sorted_a[i] == sorted_b[j],
        used: vec![false; b.len()],
        work: WORK,
    };
    search.assign(0, &classes, &classes)
}

/// What decides whether two values are equal.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Null,
    Integer(i64),
    Real(u64),
    Text(String),
    Blob(Vec<u8>),
}

fn key(value: &Value) -> Key {
    match value {
        Value::Null => Key::Null,
        Value::Integer(value) => Key::Integer(*value),
        // 2^63 is the first real above every i64.
        Value::Real(value) if value.fract() == 0.0 && value.abs() < 9_223_372_036_854_775_808.0 => {
            Key::Integer(*value as i64)
        }
        Value::Real(value) => Key::Real(value.to_bits()),
        Value::Text(value) => Key::Text(value.clone()),
        Value::Blob(value) => Key::Blob(value.clone()),
    }
}

/// The columns, with equal values as equal numbers.
fn columns(rows: &Rows, numbers: &mut HashMap<Key, u32>) -> Vec<Vec<u32>> {
    let width = rows.first().map_or(0, Vec::len);
    let mut columns = vec![Vec::with_capacity(rows.len()); width];
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row) {
            let next = numbers.len() as u32;
            column.push(*numbers.entry(key(value)).or_insert(next));
        }
    }
    columns
}

/// What two columns must have in common to be paired: their values, in order if it matters.
fn sorted(columns: &[Vec<u32>], ordered: bool) -> Vec<Vec<u32>> {
    let mut columns = columns.to_vec();
    if !ordered {
        columns.iter_mut().for_each(|column| column.sort_unstable());
    }
    columns
}

struct Search<'a> {
    a: &'a [Vec<u32>],
    b: &'a [Vec<u32>],
    fits: &'a dyn Fn(usize, usize) -> bool,
    used: Vec<bool>,
    work: usize,
}

impl Search<'_> {
    /// Whether the columns of `a` from `column` on can be paired with unused ones of `b`.
    fn assign(&mut self, column: usize, of_a: &[u32], of_b: &[u32]) -> bool {
        if column == self.a.len() {
            return true;
        }
        for candidate in 0..self.b.len() {
            if self.used[candidate] || !(self.fits)(column, candidate) {
                continue;
            }
            // Of equal columns one is as good as the other.
            let tried = |other: usize| !self.used[other] && self.b[other] == self.b[candidate];
            if (0..candidate).any(tried) || self.work == 0 {
                continue;
            }
            self.work = self.work.saturating_sub(of_a.len());
            let refined = refine(of_a, &self.a[column], of_b, &self.b[candidate]);
            let Some((next_a, next_b)) = refined else { continue };
            self.used[candidate] = true;
            if self.assign(column + 1, &next_a, &next_b) {
                return true;
            }
            self.used[candidate] = false;
        }
        false
    }
}

/// The classes of rows with one more column each, unless their multisets differ.
fn refine(of_a: &[u32], a: &[u32], of_b: &[u32], b: &[u32]) -> Option<(Vec<u32>, Vec<u32>)> {
    let mut classes: HashMap<(u32, u32), u32> = HashMap::new();
    let mut counts: Vec<i64> = Vec::new();
    let mut next = |pair: (u32, u32), step: i64| {
        let class = *classes.entry(pair).or_insert(counts.len() as u32);
        if class as usize == counts.len() {
            counts.push(0);
        }
        counts[class as usize] += step;
        class
    };
    let next_a = of_a.iter().zip(a).map(|(&class, &value)| next((class, value), 1)).collect();
    let next_b = of_b.iter().zip(b).map(|(&class, &value)| next((class, value), -1)).collect();
    counts.iter().all(|&count| count == 0).then_some((next_a, next_b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(row: &[i64]) -> Vec<Value> {
        row.iter().map(|&value| Value::Integer(value)).collect()
    }

    fn ints(rows: &[&[i64]]) -> Rows {
        rows.iter().map(|row| int(row)).collect()
    }

    #[test]
    fn rows_are_a_multiset_unless_their_order_matters() {
        let (a, b) = (ints(&[&[1], &[2], &[2]]), ints(&[&[2], &[1], &[2]]));
        assert!(equal(&a, &b, false) && !equal(&a, &b, true) && equal(&a, &a, true));
        assert!(!equal(&a, &ints(&[&[1], &[1], &[2]]), false), "counts differ");
        assert!(!equal(&a, &ints(&[&[1], &[2]]), false), "numbers of rows differ");
    }

    #[test]
    fn columns_may_be_permuted_but_alike_in_every_row() {
        let a = ints(&[&[1, 2], &[3, 4]]);
        assert!(equal(&a, &ints(&[&[2, 1], &[4, 3]]), true));
        assert!(!equal(&a, &ints(&[&[2, 1], &[3, 4]]), false));
        // Every column alone is the same multiset, the rows are not.
        let (a, b) = (ints(&[&[1, 1], &[2, 2]]), ints(&[&[1, 2], &[2, 1]]));
        assert!(!equal(&a, &b, false));
        assert!(!equal(&a, &ints(&[&[1], &[2]]), false), "numbers of columns differ");
    }

    #[test]
    fn numbers_are_equal_by_value_and_never_to_text() {
        let one = |value: Value| vec![vec![value]];
        assert!(equal(&one(Value::Integer(1)), &one(Value::Real(1.0)), false));
        assert!(equal(&one(Value::Real(-0.0)), &one(Value::Integer(0)), false));
        assert!(!equal(&one(Value::Integer(1)), &one(Value::Text("1".into())), false));
        assert!(!equal(&one(Value::Null), &one(Value::Text(String::new())), false));
        assert!(!equal(&one(Value::Real(0.1)), &one(Value::Real(0.2)), false));
    }

    #[test]
    fn empty_results_are_equal() {
        assert!(equal(&vec![], &vec![], true));
        assert!(!equal(&vec![], &ints(&[&[1]]), false));
    }

    #[test]
    fn many_columns_do_not_take_for_ever() {
        let row: Vec<i64> = (0..200).collect();
        let reversed: Vec<i64> = (0..200).rev().collect();
        assert!(equal(&ints(&[&row, &row]), &ints(&[&reversed, &reversed]), true));
        assert!(equal(&vec![int(&[5; 100]); 3], &vec![int(&[5; 100]); 3], false));
    }
}
