//! GSM8K (Cobbe et al. 2021): grade-school mathematics, the answer a number after `####`.
//!
//! The question is the whole user message, without examples or instructions. Two readings
//! of an answer are scored apart:
//!
//! * [`answer`], the data set's own: the number after the first `####`.
//! * [`last_number`], the "flexible" one of common harnesses: the last number in the text.
//!   A model that never learnt the `####` can be right there.
//!
//! Both are compared as text after the harnesses' clean-up: no commas, no `$`, no dot at
//! the end. So `18.00` is not `18`, as there.

use cllm_model::Message;
use serde::Deserialize;

/// A line of the data set.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Problem {
    /// The question.
    pub(crate) question: String,
    /// The worked solution with the answer after `####`.
    pub(crate) answer: String,
}

/// The conversation to answer.
pub(crate) fn prompt(question: &str) -> Vec<Message> {
    vec![Message::new("user", question)]
}

/// The number after the first `####`, cleaned; `None` if there is none.
pub(crate) fn answer(text: &str) -> Option<String> {
    let (_, after) = text.split_once("####")?;
    let number: String = after.trim_start().chars().take_while(|&c| in_number(c)).collect();
    clean(&number)
}

/// The last number anywhere in the text, cleaned; `None` if there is none.
pub(crate) fn last_number(text: &str) -> Option<String> {
    text.split(|c| !in_number(c)).rev().find_map(|piece| {
        // A minus belongs to a number only at its beginning: `16-3` ends with 3.
        let start = piece.rfind('-').map_or(0, |at| if at == 0 { 0 } else { at + 1 });
        clean(&piece[start..])
    })
}

/// Whether the number after `####` is that of the solution `gold`.
pub(crate) fn is_correct(text: &str, gold: &str) -> bool {
    answer(text).is_some_and(|found| Some(found) == answer(gold))
}

/// Whether the last number is the one after `####` in `gold`.
pub(crate) fn is_correct_flexible(text: &str, gold: &str) -> bool {
    last_number(text).is_some_and(|found| Some(found) == answer(gold))
}

fn in_number(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, '-' | '.' | ',' | '$')
}

fn clean(number: &str) -> Option<String> {
    let number: String = number.chars().filter(|c| !matches!(c, ',' | '$')).collect();
    let number = number.trim_end_matches(['.', '-']);
    number.contains(|c: char| c.is_ascii_digit()).then(|| number.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_after_the_marks_is_the_answer() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(answer(text).as_deref(), expected, "{text}");
        };
        check("2+2=<<2+2=4>>4\n#### 4", Some("4"));
        check("#### $1,234.", Some("1234"));
        check("####-7 apples", Some("-7"));
        check("#### 2.50.", Some("2.50"));
        check("#### 4\n#### 5", Some("4"));
        check("#### four", None);
        check("#### $.", None);
        check("the answer is 4", None);
    }

    #[test]
    fn the_last_number_is_the_fallback() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(last_number(text).as_deref(), expected, "{text}");
        };
        check("first 3, then $1,018.", Some("1018"));
        check("16-3", Some("3"));
        check("it is -5 degrees", Some("-5"));
        check("7 - that is all.", Some("7"));
        check("none at all ... -", None);
    }

    #[test]
    fn an_answer_is_right_in_one_reading_or_both() {
        let gold = "They paid 1000 + 234.\n#### 1,234";
        assert!(is_correct("#### 1234", gold) && is_correct_flexible("#### 1234", gold));
        assert!(!is_correct("so $1,234.", gold) && is_correct_flexible("so $1,234.", gold));
        assert!(!is_correct("#### 1235", gold) && !is_correct_flexible("", gold));
    }
}
