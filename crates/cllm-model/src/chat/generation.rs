//! `{% generation %}` blocks: the parts of a template that the assistant wrote.
//!
//! transformers adds the tag to jinja2 as a call block. minijinja takes no new tags but has
//! call blocks, so the tags are rewritten to `{% call __generation__() %}` and
//! `{% endcall %}`, which keeps scoping and whitespace control exactly as they are there.
//! To learn where the blocks are in the text, a second rendering puts marks around them:
//! two noncharacters that Unicode reserves for such internal use.

use std::ops::Range;

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, State};

/// The function that renders a block.
pub(super) const FUNCTION: &str = "__generation__";
/// The variable that turns marks on.
pub(super) const MARKS: &str = "__generation_marks__";

const OPEN: char = '\u{FDD0}';
const CLOSE: char = '\u{FDD1}';

/// Renders the body, between marks if they are on.
pub(super) fn block(state: &mut State<'_, '_>, kwargs: Kwargs) -> Result<Value, Error> {
    let caller: Value = kwargs.get("caller")?;
    let body = caller.call(state, &[])?;
    let marks = state.lookup(MARKS).is_some_and(|value| value.is_true());
    Ok(if marks { Value::from(format!("{OPEN}{body}{CLOSE}")) } else { body })
}

/// The text without marks, and the ranges that were between them. `None` if the marks do
/// not pair up.
pub(super) fn take_marks(marked: &str) -> Option<(String, Vec<Range<usize>>)> {
    let mut text = String::with_capacity(marked.len());
    let mut ranges = Vec::new();
    let mut open = Vec::new();
    for c in marked.chars() {
        match c {
            OPEN => open.push(text.len()),
            CLOSE => ranges.push(open.pop()?..text.len()),
            c => text.push(c),
        }
    }
    open.is_empty().then_some((text, ranges))
}

/// Rewrites `generation` and `endgeneration` tags into call blocks. Tags inside comments,
/// strings and raw blocks stay as they are.
pub(super) fn rewrite_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut raw = false;
    while let Some(start) = rest.find("{") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let length = if tag.starts_with("{%") {
            let length = tag_length(tag, "%}");
            let content = tag[..length].trim_start_matches("{%").trim_end_matches("%}");
            let name = content.trim_matches(['-', '+']).trim();
            match name {
                "raw" => raw = true,
                "endraw" => raw = false,
                _ => {}
            }
            let replacement = match name {
                "generation" if !raw => Some(format!("call {FUNCTION}()")),
                "endgeneration" if !raw => Some("endcall".to_owned()),
                _ => None,
            };
            match replacement {
                Some(new) => out.push_str(&tag[..length].replacen(name, &new, 1)),
                None => out.push_str(&tag[..length]),
            }
            length
        } else {
            let length = if raw {
                1
            } else if tag.starts_with("{#") {
                tag.find("#}").map_or(tag.len(), |end| end + 2)
            } else if tag.starts_with("{{") {
                tag_length(tag, "}}")
            } else {
                1
            };
            out.push_str(&tag[..length]);
            length
        };
        rest = &tag[length..];
    }
    out.push_str(rest);
    out
}

/// Bytes of the tag that `text` begins with, up to and with `end`, which does not count
/// inside a string. A tag without an end reaches to the end of the text.
fn tag_length(text: &str, end: &str) -> usize {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut index = 2;
    while index < bytes.len() {
        match (quote, bytes[index]) {
            (Some(_), b'\\') => index += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if bytes[index..].starts_with(end.as_bytes()) => return index + end.len(),
            _ => {}
        }
        index += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_rewritten_where_they_are_tags() {
        let check = |source: &str, expected: &str| assert_eq!(rewrite_tags(source), expected);
        check(
            "a{% generation %}b{% endgeneration %}",
            "a{% call __generation__() %}b{% endcall %}",
        );
        check(
            "{%- generation -%}\n{%-endgeneration+%}",
            "{%- call __generation__() -%}\n{%-endcall+%}",
        );
        check("{# {% generation %} #}", "{# {% generation %} #}");
        check("{{ '{% generation %}' }}", "{{ '{% generation %}' }}");
        check("{% set x = '%}{% generation %}' %}", "{% set x = '%}{% generation %}' %}");
        check(
            "{% raw %}{% generation %}{{{% endraw %}{% generation %}",
            "{% raw %}{% generation %}{{{% endraw %}{% call __generation__() %}",
        );
        check("{% if generation %}{ {", "{% if generation %}{ {");
        check("{% generation", "{% call __generation__()");
        check("é{%\tgeneration\n%}ü", "é{%\tcall __generation__()\n%}ü");
        check("{{ 'it\\'s' }}{%generation%}", "{{ 'it\\'s' }}{%call __generation__()%}");
    }

    #[test]
    fn marks_give_byte_ranges() {
        let marked = format!("é{OPEN}ab{CLOSE}c{OPEN}{CLOSE}");
        assert_eq!(take_marks(&marked), Some(("éabc".into(), vec![2..4, 5..5])));
        assert_eq!(take_marks(&format!("{OPEN}a")), None);
        assert_eq!(take_marks(&format!("a{CLOSE}")), None);
    }
}
