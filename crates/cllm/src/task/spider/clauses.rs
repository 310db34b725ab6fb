//! The second figure: the clauses of two queries compared as sets.
//!
//! Each query becomes, for each of its SELECTs in turn, the set of its selected
//! expressions, of its tables, of its conditions and so on, in lower case, with aliases
//! resolved. This is stricter than Spider's official exact match in one way (constants
//! must be equal; that one ignores them) and rougher in another (there is no parse: the
//! order of operands inside a condition matters). So it has a name of its own, clause
//! match, and is no figure to compare across papers.

use std::collections::{BTreeMap, HashMap};

use super::tokens::{Kind, Token, prepare, tokens};

/// The clauses of a query: keyword to sorted items, per SELECT in order.
type Clauses = Vec<BTreeMap<String, Vec<String>>>;

/// Whether two queries have the same clauses.
pub(crate) fn equal(a: &str, b: &str) -> bool {
    clauses(a) == clauses(b)
}

fn clauses(sql: &str) -> Clauses {
    let sql = prepare(sql, true).to_lowercase();
    let tokens = tokens(&sql);
    let aliases = aliases(&tokens);
    let mut all: Clauses = Vec::new();
    // Open SELECTs, innermost last: its number, the parentheses around it, its clause.
    let mut open: Vec<(usize, usize, String)> = Vec::new();
    let mut depth = 0;
    let mut item = String::new();
    for (i, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" if token.kind == Kind::Symbol => depth += 1,
            ")" if token.kind == Kind::Symbol => {
                depth = usize::saturating_sub(depth, 1);
                if open.last().is_some_and(|&(_, inside, _)| inside > depth) {
                    flush(&mut all, &open, &mut item);
                    open.pop();
                }
            }
            _ => {}
        }
        if token.is("select") {
            flush(&mut all, &open, &mut item);
            if open.last().is_some_and(|&(_, inside, _)| inside == depth) {
                open.pop();
            }
            open.push((all.len(), depth, "select".into()));
            all.push(BTreeMap::new());
            continue;
        }
        let Some((_, inside, clause)) = open.last() else { continue };
        let top = depth == *inside;
        let begins = ["from", "where", "group", "having", "order", "limit"];
        let between = token.is("and") && before(&tokens, i, "between");
        if top && begins.iter().any(|word| token.is(word)) {
            flush(&mut all, &open, &mut item);
            if let Some(last) = open.last_mut() {
                last.2.clone_from(&token.text);
            }
        } else if top && ["union", "intersect", "except"].iter().any(|word| token.is(word)) {
            flush(&mut all, &open, &mut item);
            item.clone_from(&token.text);
        } else if top && (token.is_symbol(",") && clause != "order")
            || top && ["and", "join", "on"].iter().any(|word| token.is(word)) && !between
        {
            flush(&mut all, &open, &mut item);
        } else if token.is("as") || token.is("by") || token.is("asc") || token.is("inner") {
            // No meaning of their own here.
        } else if !(i > 0 && is_alias(&tokens, i, &aliases)) {
            let text = aliases.get(&token.text).filter(|_| token.kind == Kind::Word);
            item.push_str(text.unwrap_or(&token.text));
            item.push(' ');
        }
    }
    flush(&mut all, &open, &mut item);
    for clause in all.iter_mut().flat_map(BTreeMap::values_mut) {
        clause.sort_unstable();
    }
    all
}

/// Ends an item of the clause under way.
fn flush(all: &mut Clauses, open: &[(usize, usize, String)], item: &mut String) {
    if let Some((number, _, clause)) = open.last()
        && !item.is_empty()
    {
        all[*number].entry(clause.clone()).or_default().push(std::mem::take(item));
    }
    item.clear();
}

/// Whether the `and` at `i` belongs to a BETWEEN: `x between 1 and 2`.
fn before(tokens: &[Token], i: usize, word: &str) -> bool {
    (2..=3).any(|back| i.checked_sub(back).is_some_and(|at| tokens[at].is(word)))
}

/// Tables by alias.
fn aliases(tokens: &[Token]) -> HashMap<String, String> {
    let mut aliases = HashMap::new();
    for (i, token) in tokens.iter().enumerate() {
        if token.is("as") && i > 0 && tokens[i - 1].kind == Kind::Word {
            let Some(alias) = tokens.get(i + 1).filter(|alias| alias.kind == Kind::Word) else {
                continue;
            };
            let named = i > 1 && (tokens[i - 2].is("from") || tokens[i - 2].is("join"));
            if named || i > 1 && tokens[i - 2].is_symbol(",") {
                aliases.insert(alias.text.clone(), tokens[i - 1].text.clone());
            }
        }
    }
    aliases
}

/// Whether the token is where an alias is given: `t AS x`.
fn is_alias(tokens: &[Token], i: usize, aliases: &HashMap<String, String>) -> bool {
    tokens[i - 1].is("as") && aliases.contains_key(&tokens[i].text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_case_aliases_and_the_order_of_items_do_not_matter() {
        let gold = "SELECT T1.name ,  count(*) FROM customer AS T1 JOIN orders AS T2 \
                    ON T1.id  =  T2.customer_id WHERE a > 1 AND b = \"x\" GROUP BY T1.name";
        let same = "select count(*), c.NAME from customer as c join orders as o \
                    on c.id = o.customer_id where b = 'x' and a > 1 group by c.name;";
        assert!(equal(gold, same));
        assert!(equal("SELECT a FROM t ORDER BY b ASC", "SELECT a FROM t ORDER BY b"));
        assert!(equal("SELECT a FROM t", "SELECT a FROM t"));
    }

    #[test]
    fn everything_else_does() {
        let differ = |a: &str, b: &str| assert!(!equal(a, b), "{a} | {b}");
        differ("SELECT a FROM t", "SELECT b FROM t");
        differ("SELECT a FROM t", "SELECT DISTINCT a FROM t");
        differ("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 2");
        differ("SELECT a FROM t WHERE b BETWEEN 1 AND 2", "SELECT a FROM t WHERE b = 2");
        differ("SELECT a FROM t ORDER BY a, b", "SELECT a FROM t ORDER BY b, a");
        differ("SELECT a FROM t ORDER BY a DESC", "SELECT a FROM t ORDER BY a");
        differ("SELECT a FROM t UNION SELECT b FROM t", "SELECT a FROM t EXCEPT SELECT b FROM t");
        differ(
            "SELECT a FROM t WHERE b IN (SELECT c FROM u)",
            "SELECT a FROM t WHERE b IN (SELECT d FROM u)",
        );
        differ("", "SELECT 1");
    }
}
