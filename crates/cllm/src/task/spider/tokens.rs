//! SQL cut into tokens: as much of the language as comparing and seeding need.
//!
//! Left out: everything a parser is for. SQLite itself judges whether a query is one.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A keyword or a name.
    Word,
    /// `'..'` or `".."`; the latter is a name where a column has it, as in SQLite.
    Quoted,
    /// A number, without its sign.
    Number,
    /// Anything else.
    Symbol,
}

/// A token and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its text, without quotes.
    pub(crate) text: String,
    /// Its first byte.
    pub(crate) start: usize,
    /// The byte after it.
    pub(crate) end: usize,
}

impl Token {
    /// Whether it is this keyword, given in lower case.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Whether it is this symbol.
    pub(crate) fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }
}

/// The tokens of `text`. A quote that is never closed reaches to the end.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let byte = bytes[at];
        let (kind, value) = match byte {
            _ if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'\'' | b'"' | b'`' => {
                let value = quoted(text, &mut at);
                (if byte == b'`' { Kind::Word } else { Kind::Quoted }, value)
            }
            b'0'..=b'9' => {
                at = run(bytes, at, |b| b.is_ascii_alphanumeric() || b == b'.');
                (Kind::Number, text[start..at].to_owned())
            }
            _ if in_word(byte) => {
                at = run(bytes, at, |b| in_word(b) || b.is_ascii_digit());
                (Kind::Word, text[start..at].to_owned())
            }
            _ => {
                let two = bytes.get(at..at + 2);
                let long = two.is_some_and(|two| {
                    matches!(two, b"<=" | b">=" | b"!=" | b"<>" | b"==" | b"||")
                });
                at += if long { 2 } else { 1 };
                (Kind::Symbol, text[start..at].to_owned())
            }
        };
        tokens.push(Token { kind, text: value, start, end: at });
    }
    tokens
}

/// Reads a quoted text; a doubled quote stands for one.
fn quoted(text: &str, at: &mut usize) -> String {
    let quote = text.as_bytes()[*at];
    let mut value = String::new();
    *at += 1;
    loop {
        let rest = &text[*at..];
        let Some(length) = rest.bytes().position(|b| b == quote) else {
            value.push_str(rest);
            *at = text.len();
            return value;
        };
        value.push_str(&rest[..length]);
        *at += length + 1;
        if text.as_bytes().get(*at) != Some(&quote) {
            return value;
        }
        value.push(quote as char);
        *at += 1;
    }
}

/// Bytes beyond ASCII belong to words, so that no character is ever cut.
fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn run(bytes: &[u8], at: usize, belongs: impl Fn(u8) -> bool) -> usize {
    at + bytes[at..].iter().take_while(|&&byte| belongs(byte)).count()
}

/// The query without DISTINCT, and with `> =` closed up: what the official script does to
/// both queries before it runs them.
pub(crate) fn prepare(sql: &str, keep_distinct: bool) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut copied = 0;
    let tokens = tokens(sql);
    for (i, token) in tokens.iter().enumerate() {
        let split = token.kind == Kind::Symbol
            && matches!(token.text.as_str(), ">" | "<" | "!")
            && tokens.get(i + 1).is_some_and(|next| next.is_symbol("="));
        let dropped = if split {
            token.end..tokens[i + 1].start
        } else if !keep_distinct && token.is("distinct") {
            token.start..token.end
        } else {
            continue;
        };
        text.push_str(&sql[copied..dropped.start]);
        copied = dropped.end;
    }
    text.push_str(&sql[copied..]);
    text.trim().trim_end_matches(';').trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<String> {
        tokens(sql).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn words_numbers_quotes_and_symbols_are_told_apart() {
        let expected = ["a", ".", "b", ">=", "1.5", "or", "c", "=", "it's", "!="];
        assert_eq!(texts("a.b>=1.5 or c='it''s' !="), expected);
        assert_eq!(texts("naïve \"x y"), ["naïve", "x y"]);
        assert_eq!(tokens("'a'")[0].kind, Kind::Quoted);
        assert!(tokens("SELECT")[0].is("select") && !tokens("'select'")[0].is("select"));
    }

    #[test]
    fn queries_are_prepared_as_the_official_script_does() {
        let check = |sql, expected| assert_eq!(prepare(sql, false), expected);
        check("SELECT DISTINCT a FROM t WHERE b > = 3 ;", "SELECT  a FROM t WHERE b >= 3");
        check("SELECT 'distinct > ='", "SELECT 'distinct > ='");
        assert_eq!(prepare("SELECT distinct a", true), "SELECT distinct a");
    }
}
