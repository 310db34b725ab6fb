//! Decoders by name: what `--decoder` takes and what reports print.
//!
//! Grammar: `NAME[:OPTION[,OPTION]...]`, an option being `key=value`; the first may be
//! the bare block length. [`Display`](fmt::Display) gives the shortest spelling that
//! parses back to the same decoder, so a name in a report can be pasted into a command.

use std::fmt;
use std::str::FromStr;

use cllm_decode::{Decoder, Draft, Jacobi, LmError};

/// The longest block that makes sense to ask for: a forward of more rows costs time in
/// proportion, and no published model settles more than a few dozen tokens at once.
const MAX_BLOCK: usize = 1024;

/// A decoder and its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecoderSpec {
    /// Autoregressive greedy decoding: one token a forward.
    Ar,
    /// Jacobi decoding with a window of `n` tokens.
    Jacobi {
        /// Block length, 1 to [`MAX_BLOCK`].
        n: usize,
        /// Where first guesses come from.
        draft: Draft,
    },
}

impl DecoderSpec {
    /// The decoder, for the driver; `None` for autoregressive decoding, which has a loop
    /// of its own. `seed` is for first guesses drawn at random.
    pub(crate) fn build(self, seed: u64) -> Result<Option<Box<dyn Decoder>>, LmError> {
        Ok(match self {
            Self::Ar => None,
            Self::Jacobi { n, draft } => Some(Box::new(Jacobi::new(n, draft, seed)?)),
        })
    }
}

impl FromStr for DecoderSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, options) = match text.split_once(':') {
            Some((name, options)) => (name, Some(options)),
            None => (text, None),
        };
        match (name, options) {
            ("ar", None) => Ok(Self::Ar),
            ("ar", Some(_)) => Err("`ar` takes no options".into()),
            ("jacobi", options) => jacobi(options.unwrap_or("")),
            _ => Err(format!("no decoder `{name}`; expected `ar` or `jacobi:N`, as in jacobi:16")),
        }
    }
}

fn jacobi(options: &str) -> Result<DecoderSpec, String> {
    let (mut n, mut draft) = (None, None);
    for (i, option) in options.split(',').filter(|o| !o.is_empty()).enumerate() {
        let (key, value) = match option.split_once('=') {
            Some(pair) => pair,
            None if i == 0 => ("n", option),
            None => return Err(format!("`{option}`: expected key=value")),
        };
        match key {
            "n" => set(&mut n, key, block_length(value)?)?,
            "draft" => set(&mut draft, key, value.parse::<Draft>().map_err(|e| e.to_string())?)?,
            _ => return Err(format!("no option `{key}`; jacobi has `n` and `draft`")),
        }
    }
    let n = n.ok_or("jacobi needs a block length, as in jacobi:16")?;
    Ok(DecoderSpec::Jacobi { n, draft: draft.unwrap_or_default() })
}

fn set<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    if slot.replace(value).is_some() {
        return Err(format!("`{key}` is given twice"));
    }
    Ok(())
}

fn block_length(value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(n @ 1..=MAX_BLOCK) => Ok(n),
        _ => Err(format!("block length `{value}`: expected 1 to {MAX_BLOCK}")),
    }
}

impl fmt::Display for DecoderSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ar => f.write_str("ar"),
            Self::Jacobi { n, draft } => {
                write!(f, "jacobi:{n}")?;
                if *draft != Draft::default() {
                    write!(f, ",draft={draft}")?;
                }
                Ok(())
            }
        }
    }
}

/// Several decoders, separated by commas.
///
/// Options of a decoder are separated by commas too; a piece `key=value` without a name
/// before it belongs to the decoder before it: `ar,jacobi:16,draft=ngram,jacobi:32` are
/// three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecoderList(pub(crate) Vec<DecoderSpec>);

impl FromStr for DecoderList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut items: Vec<String> = Vec::new();
        for piece in text.split(',') {
            match items.last_mut() {
                Some(last) if piece.contains('=') && !piece.contains(':') => {
                    *last = format!("{last},{piece}");
                }
                _ => items.push(piece.trim().to_owned()),
            }
        }
        let mut decoders = Vec::new();
        for item in items {
            let decoder: DecoderSpec = item.parse()?;
            if decoders.contains(&decoder) {
                return Err(format!("`{decoder}` is given twice"));
            }
            decoders.push(decoder);
        }
        Ok(Self(decoders))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn jacobi(n: usize, draft: Draft) -> DecoderSpec {
        DecoderSpec::Jacobi { n, draft }
    }

    #[test]
    fn names_parse_and_print_shortest() {
        let check = |text: &str, spec: DecoderSpec, printed: &str| {
            assert_eq!(text.parse(), Ok(spec), "{text}");
            assert_eq!(spec.to_string(), printed);
            assert_eq!(printed.parse(), Ok(spec), "{printed}");
        };
        check("ar", DecoderSpec::Ar, "ar");
        check("jacobi:16", jacobi(16, Draft::default()), "jacobi:16");
        check("jacobi:n=16", jacobi(16, Draft::default()), "jacobi:16");
        check("jacobi:n=1,draft=context", jacobi(1, Draft::Context), "jacobi:1");
        check("jacobi:8,draft=ngram", jacobi(8, Draft::NGram), "jacobi:8,draft=ngram");
        check(
            "jacobi:draft=last-token,n=8",
            jacobi(8, Draft::LastToken),
            "jacobi:8,draft=last-token",
        );
    }

    #[test]
    fn bad_names_say_what_was_expected() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<DecoderSpec>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("", "no decoder ``");
        check("medusa", "expected `ar` or `jacobi:N`");
        check("ar:16", "no options");
        check("jacobi", "block length");
        check("jacobi:", "block length");
        check("jacobi:0", "expected 1 to 1024");
        check("jacobi:-1", "expected 1 to 1024");
        check("jacobi:99999999999999999999999", "expected 1 to 1024");
        check("jacobi:16,draft=magic", "expected context");
        check("jacobi:16,8", "expected key=value");
        check("jacobi:16,n=8", "given twice");
        check("jacobi:16,window=8", "no option `window`");
    }

    #[test]
    fn lists_keep_options_with_their_decoder() {
        let list: DecoderList = "ar,jacobi:16,draft=ngram, jacobi:n=32".parse().unwrap();
        let expected = [DecoderSpec::Ar, jacobi(16, Draft::NGram), jacobi(32, Draft::default())];
        assert_eq!(list.0, expected);
        assert!("ar,ar".parse::<DecoderList>().unwrap_err().contains("twice"));
        assert!("ar,".parse::<DecoderList>().is_err());
        assert!("draft=ngram".parse::<DecoderList>().is_err());
    }
}
