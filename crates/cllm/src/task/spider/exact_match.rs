//! Spider's exact set match, the second figure (Yu et al. 2018, arXiv 1809.08887, and the
//! script that came with it): the same clauses with the same items, in any order.
//!
//! As in the script, constants and DISTINCT do not count, of join conditions only OR, NOT, IN
//! and LIKE do, a column is the column its foreign key names, and a query that is read by a
//! condition must be the same item by item, with its DISTINCT and its foreign keys.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::query::{
    Column, Condition, Conditions, Query, SetOperation, Source, Term, Value, parse,
};
use super::schema::Schema;

/// Whether two queries match; `None` if the gold query cannot be read.
pub(crate) fn equal(schema: &Schema, found: &str, gold: &str) -> Option<bool> {
    let gold = normal(schema, parse(schema, gold).ok()?);
    Some(parse(schema, found).is_ok_and(|found| matches(&normal(schema, found), &gold)))
}

fn normal(schema: &Schema, mut query: Query) -> Query {
    drop_values(&mut query);
    let tables = query.from.iter().filter_map(|source| match source {
        Source::Table(table) => Some(schema.tables[*table].to_lowercase()),
        Source::Query(_) => None,
    });
    let (tables, keys) = (tables.collect(), keys(schema));
    rename(&mut query, &tables, &keys);
    query
}

/// Columns that foreign keys join, by name, with the first of them.
fn keys(schema: &Schema) -> HashMap<String, String> {
    let mut groups: Vec<BTreeSet<usize>> = Vec::new();
    for &(child, parent) in &schema.foreign_keys {
        let pair = [child, parent];
        match groups.iter_mut().find(|group| pair.iter().any(|key| group.contains(key))) {
            Some(group) => group.extend(pair),
            None => groups.push(BTreeSet::from(pair)),
        }
    }
    let name = |column: usize| schema.full_name(column).to_lowercase();
    let named = |group: BTreeSet<usize>| {
        let first = group.first().copied().map(name).unwrap_or_default();
        group.into_iter().map(move |column| (name(column), first.clone())).collect::<Vec<_>>()
    };
    groups.into_iter().flat_map(named).collect()
}

fn drop_values(query: &mut Query) {
    for conditions in [&mut query.on, &mut query.filter, &mut query.having] {
        for value in conditions.all.iter_mut().flat_map(|condition| &mut condition.values) {
            match value {
                Some(Value::Query(query)) => drop_values(query),
                other => *other = None,
            }
        }
    }
    if let Some((_, then)) = &mut query.then {
        drop_values(then);
    }
}

/// Gives columns of `tables` their key's name; DISTINCT goes.
fn rename(query: &mut Query, tables: &HashSet<String>, keys: &HashMap<String, String>) {
    let column = |column: &mut Column| {
        let table = column.name.split('.').next().unwrap_or_default();
        if let Some(key) = keys.get(&column.name).filter(|_| tables.contains(table)) {
            column.name.clone_from(key);
        }
        column.distinct = false;
    };
    let term = |term: &mut Term| {
        column(&mut term.first);
        term.second.iter_mut().for_each(|(_, second)| column(second));
    };
    query.distinct = false;
    query.select.iter_mut().for_each(|(_, one)| term(one));
    for conditions in [&mut query.on, &mut query.filter, &mut query.having] {
        conditions.all.iter_mut().for_each(|condition| term(&mut condition.term));
    }
    query.group.iter_mut().for_each(column);
    query.order.iter_mut().flat_map(|(_, terms)| terms).for_each(term);
    if let Some((_, then)) = &mut query.then {
        rename(then, tables, keys);
    }
}

fn matches(found: &Query, gold: &Query) -> bool {
    let short = |query: &Query| -> Vec<String> {
        let name = |column: &Column| column.name.rsplit('.').next().unwrap_or_default().into();
        query.group.iter().map(name).collect()
    };
    let names = |query: &Query| -> Vec<String> {
        query.group.iter().map(|column| column.name.clone()).collect()
    };
    let joiners = |query: &Query| query.filter.or.iter().copied().collect::<BTreeSet<bool>>();
    same_items(&found.select, &gold.select)
        && same_items(&found.filter.all, &gold.filter.all)
        && joiners(found) == joiners(gold)
        && same_items(&short(found), &short(gold))
        && (gold.group.is_empty() || names(found) == names(gold) && found.having == gold.having)
        && found.order == gold.order
        && (gold.order.is_none() || found.limit.is_some() == gold.limit.is_some())
        && match (&found.then, &gold.then) {
            (None, None) => true,
            (Some((a, found)), Some((b, gold))) => a == b && matches(found, gold),
            _ => false,
        }
        && keywords(found) == keywords(gold)
        && same_items(&found.from, &gold.from)
}

/// Equal but for the order.
fn same_items<T: PartialEq>(found: &[T], gold: &[T]) -> bool {
    let mut left: Vec<&T> = gold.iter().collect();
    let mut one = |item: &T| match left.iter().position(|other| *other == item) {
        Some(i) => {
            left.swap_remove(i);
            true
        }
        None => false,
    };
    found.len() == gold.len() && found.iter().all(&mut one)
}

fn keywords(query: &Query) -> BTreeSet<&'static str> {
    let parts: [&Conditions; 3] = [&query.on, &query.filter, &query.having];
    let any = |is: fn(&Condition) -> bool| parts.iter().any(|part| part.all.iter().any(is));
    let order = query.order.as_ref().map(|order| order.0);
    let then = query.then.as_ref().map(|then| then.0);
    let all = [
        ("where", !query.filter.all.is_empty()),
        ("group", !query.group.is_empty()),
        ("having", !query.having.all.is_empty()),
        ("order", order.is_some()),
        ("desc", order == Some(true)),
        ("limit", query.limit.is_some()),
        ("intersect", then == Some(SetOperation::Intersect)),
        ("union", then == Some(SetOperation::Union)),
        ("except", then == Some(SetOperation::Except)),
        ("or", parts.iter().any(|part| part.or.contains(&true))),
        ("not", any(|condition| condition.not)),
        ("in", any(|condition| condition.op == "in")),
        ("like", any(|condition| condition.op == "like")),
    ];
    all.into_iter().filter(|word| word.1).map(|word| word.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::spider::schema::tests::shop;

    fn check(found: &str, gold: &str) -> bool {
        equal(&shop(), found, gold).unwrap()
    }

    #[test]
    fn order_case_aliases_constants_distinct_and_keys_do_not_matter() {
        let gold = "SELECT T1.name ,  count(*) FROM customer AS T1 JOIN orders AS T2 \
                    ON T1.id  =  T2.customer_id WHERE total > 1 AND city = \"x\" GROUP BY T1.name";
        let same = "select count(*), c.NAME from customer as c join orders as o \
                    on c.id = o.customer_id where city = 'y' and total > 2 group by c.name;";
        assert!(check(gold, gold) && check(same, gold));
        let pair = |a: &str, b: &str| assert!(check(a, b), "{a} | {b}");
        pair("SELECT DISTINCT name FROM customer", "SELECT name FROM customer");
        pair("SELECT name FROM customer LIMIT 2", "SELECT name FROM customer LIMIT 1");
        pair(
            "SELECT name FROM customer ORDER BY name ASC",
            "SELECT name FROM customer ORDER BY name",
        );
        // orders.customer_id is customer.id.
        let joined = "FROM customer AS a JOIN orders AS b ON a.id = b.customer_id";
        pair(&format!("SELECT b.customer_id {joined}"), &format!("SELECT a.id {joined}"));
    }

    #[test]
    fn everything_else_does() {
        let differ = |a: &str, b: &str| assert!(!check(a, b), "{a} | {b}");
        differ("SELECT name FROM customer", "SELECT city FROM customer");
        differ("SELECT name FROM customer", "SELECT name, city FROM customer");
        differ("SELECT max(id) FROM customer", "SELECT min(id) FROM customer");
        differ("SELECT id FROM customer", "SELECT id FROM orders");
        differ("SELECT name FROM customer WHERE id = 1", "SELECT name FROM customer WHERE id > 1");
        differ(
            "SELECT name FROM customer WHERE id = 1 OR city = 'a'",
            "SELECT name FROM customer WHERE id = 1 AND city = 'a'",
        );
        differ(
            "SELECT name FROM customer WHERE name LIKE 'a'",
            "SELECT name FROM customer WHERE name NOT LIKE 'a'",
        );
        differ(
            "SELECT city FROM customer GROUP BY city HAVING count(*) > 1",
            "SELECT city FROM customer GROUP BY city",
        );
        differ(
            "SELECT name FROM customer ORDER BY id DESC LIMIT 1",
            "SELECT name FROM customer ORDER BY id DESC",
        );
        differ(
            "SELECT name FROM customer ORDER BY id DESC",
            "SELECT name FROM customer ORDER BY id ASC",
        );
        differ(
            "SELECT name FROM customer UNION SELECT city FROM customer",
            "SELECT name FROM customer EXCEPT SELECT city FROM customer",
        );
        differ(
            "SELECT name FROM customer WHERE id IN (SELECT id FROM orders)",
            "SELECT name FROM customer WHERE id IN (SELECT customer_id FROM orders)",
        );
        differ("no query", "SELECT name FROM customer");
    }

    #[test]
    fn a_gold_query_that_cannot_be_read_says_nothing() {
        assert_eq!(equal(&shop(), "SELECT name FROM customer", "SELECT x FROM y"), None);
    }
}
