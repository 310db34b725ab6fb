//! The bytes every token stands for, in one table.
//!
//! Vocabularies spell bytes in two ways. Byte-level BPE writes each byte as one printable
//! character (GPT-2's `bytes_to_unicode`): printable Latin-1 stands for itself, the other
//! bytes, in order, for U+0100 and up; so `Ġ` is a space. SentencePiece writes a space as
//! `▁` and a byte that is no character as `<0x0A>`; a text begins with a space that is not
//! part of it.

use cllm_decode::Token;

use super::MAX_VOCAB;

/// How token spellings stand for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// One printable character a byte.
    ByteLevel,
    /// `▁` for a space, `<0xNN>` for a byte.
    SentencePiece {
        /// The first space of a text is not part of it.
        strip_first_space: bool,
    },
}

/// Bytes and kinds of all tokens, by id.
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Token t is `bytes[ends[t - 1]..ends[t]]`.
    ends: Vec<u32>,
    special: Vec<bool>,
    pub(super) spelling: Spelling,
}

impl Pieces {
    /// From the vocabulary with added tokens. Ids without a token get no bytes.
    pub(super) fn new(
        vocab: &[(String, Token)],
        is_special: impl Fn(Token) -> bool,
        spelling: Spelling,
    ) -> Result<Self, String> {
        let mut by_id: Vec<Option<&str>> = Vec::new();
        for (token, id) in vocab {
            let index = *id as usize;
            if index >= MAX_VOCAB {
                return Err(format!("token {token:?} has id {id}, expected less than {MAX_VOCAB}"));
            }
            if index >= by_id.len() {
                by_id.resize(index + 1, None);
            }
            if let Some(other) = by_id[index].replace(token) {
                return Err(format!("tokens {other:?} and {token:?} have the same id {id}"));
            }
        }
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(by_id.len());
        for token in &by_id {
            spelling.append(token.unwrap_or_default(), &mut bytes);
            ends.push(u32::try_from(bytes.len()).map_err(|_| "the vocabulary exceeds 4 GB")?);
        }
        let special = (0..by_id.len()).map(|id| is_special(id as Token)).collect();
        Ok(Self { bytes, ends, special, spelling })
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn bytes(&self, token: Token) -> &[u8] {
        let index = token as usize;
        let Some(&end) = self.ends.get(index) else { return &[] };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start as usize..end as usize]
    }

    pub(super) fn is_special(&self, token: Token) -> bool {
        self.special.get(token as usize).copied().unwrap_or(false)
    }
}

impl Spelling {
    fn append(self, token: &str, out: &mut Vec<u8>) {
        match self {
            Self::ByteLevel => {
                let start = out.len();
                for c in token.chars() {
                    match byte_of(c) {
                        Some(byte) => out.push(byte),
                        None => {
                            // An added token, which is written as it is.
                            out.truncate(start);
                            out.extend_from_slice(token.as_bytes());
                            return;
                        }
                    }
                }
            }
            Self::SentencePiece { .. } => match byte_token(token) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(token.replace('▁', " ").as_bytes()),
            },
        }
    }
}

/// The byte of a spelling `<0xNN>`.
fn byte_token(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let digits = hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if digits { u8::from_str_radix(hex, 16).ok() } else { None }
}

/// The byte that a character of a byte-level vocabulary stands for.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let spelled: Vec<(u8, char)> =
            (0..0x200).filter_map(char::from_u32).filter_map(|c| Some((byte_of(c)?, c))).collect();
        let mut bytes: Vec<u8> = spelled.iter().map(|(byte, _)| *byte).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        for (byte, c) in [(b' ', 'Ġ'), (b'\n', 'Ċ'), (0xAD, 'Ń'), (0x7F, 'ġ'), (b'a', 'a')] {
            assert!(spelled.contains(&(byte, c)), "{byte:#x} is not {c}");
        }
    }

    #[test]
    fn sentencepiece_bytes() {
        for (token, byte) in [("<0x0A>", Some(10)), ("<0xff>", Some(255)), ("<0x1>", None)] {
            assert_eq!(byte_token(token), byte);
        }
        assert_eq!(byte_token("<0x+1>"), None, "a sign is not a hex digit");
    }

    #[test]
    fn broken_ids_are_refused() {
        let vocab = |tokens: &[(&str, Token)]| {
            let owned: Vec<_> = tokens.iter().map(|(t, id)| (t.to_string(), *id)).collect();
            Pieces::new(&owned, |_| false, Spelling::ByteLevel)
        };
        assert!(vocab(&[("a", 0), ("b", u32::MAX)]).is_err_and(|e| e.contains("4294967295")));
        assert!(vocab(&[("a", 3), ("b", 3)]).is_err_and(|e| e.contains("same id 3")));
        let holes = vocab(&[("a", 0), ("b", 2)]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!([holes.bytes(0), holes.bytes(1), holes.bytes(2)], [&b"a"[..], b"", b"b"]);
    }
}
