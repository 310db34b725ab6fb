//! Three kinds of n-grams, told apart by a rule simple enough to check by eye:
//!
//! 1. any digit makes it *numbers*;
//! 2. else it is *syntax* if it has no word, if one of its words is a keyword of SQL or of a
//!    programming language, or if it has an operator or a bracket;
//! 3. else it is a *phrase*. Commas, full stops and quotes between words change nothing.
//!
//! Keywords of SQL count in capitals only, and none that is a common English word is a keyword
//! of a language: `for`, `in`, `is`, `if`, `not` are words.

use serde::Serialize;

/// What an n-gram is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Words.
    Phrases,
    /// Punctuation, keywords, operators.
    Syntax,
    /// Something with a digit.
    Numbers,
}

const SQL: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "JOIN",
    "ON",
    "AS",
    "GROUP",
    "ORDER",
    "BY",
    "HAVING",
    "LIMIT",
    "DISTINCT",
    "COUNT",
    "SUM",
    "AVG",
    "MIN",
    "MAX",
    "AND",
    "OR",
    "NOT",
    "IN",
    "LIKE",
    "BETWEEN",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "ASC",
    "DESC",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "TABLE",
    "VALUES",
    "NULL",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "EXISTS",
    "INNER",
    "LEFT",
    "OUTER",
];

const LANGUAGES: &[&str] = &[
    "def", "elif", "lambda", "async", "await", "const", "struct", "enum", "impl", "fn", "var",
    "elseif", "printf", "println", "typedef", "None", "nullptr", "endif",
];

const OPERATORS: &str = "=<>+*/%|&^~()[]{};#`@\\_";

/// The kind of an n-gram.
pub(crate) fn kind(text: &str) -> Kind {
    if text.chars().any(char::is_numeric) {
        return Kind::Numbers;
    }
    let words = text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let keyword = |word: &str| SQL.contains(&word) || LANGUAGES.contains(&word);
    if words.clone().next().is_none()
        || words.into_iter().any(keyword)
        || text.contains(|c| OPERATORS.contains(c))
    {
        return Kind::Syntax;
    }
    Kind::Phrases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_what_it_says() {
        for text in [" 12", "#### 48", " = $5", "T1", " half of 3"] {
            assert_eq!(kind(text), Kind::Numbers, "{text}");
        }
        for text in [".\n", " GROUP BY", "SELECT name", "def f", " x = y", "(a", "\n\n", "user_id"]
        {
            assert_eq!(kind(text), Kind::Syntax, "{text}");
        }
        for text in [" how many", ", so she has", "The answer is", " in order", "it's", "für"] {
            assert_eq!(kind(text), Kind::Phrases, "{text}");
        }
    }
}
