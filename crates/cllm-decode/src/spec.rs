//! Decoders by name: what `--decoder` takes and what reports print.
//!
//! Grammar: `NAME[:OPTION[,OPTION]...]`, an option being `key=value`; the first may be the bare
//! value of the decoder's main option. [`Display`](fmt::Display) gives the shortest spelling that
//! parses back to the same decoder, so a name in a report can be pasted into a command.
//!
//! A new decoder is a variant of [`DecoderSpec`], a line in `NAMES` and an arm in each of
//! `parse`, `Display` and `build`.

use std::fmt;
use std::str::FromStr;

use crate::auto::Auto;
use crate::blocks::InFlight;
use crate::cost::CostModel;
use crate::decoder::Decoder;
use crate::draft::Draft;
use crate::jacobi::Jacobi;
use crate::jacobi_pool::{JacobiPool, PoolOptions};
use crate::lm::LmError;
use crate::lookahead::{Lookahead, LookaheadOptions};
use crate::prompt_lookup::PromptLookup;

/// The most rows, or guesses, that make sense to ask for: a forward of more rows costs time in
/// proportion, and no published model settles more than a few dozen tokens at once.
const MAX_BLOCK: usize = 1024;
/// The most columns, n-grams and tokens of lookahead decoding, whose product is a forward.
const MAX_LOOKAHEAD: usize = 64;
/// The most tokens of a key: longer ones find nothing that shorter ones do not.
const MAX_NGRAM: usize = 32;

/// The most tokens of earlier answers: some hundred megabytes.
const MAX_HISTORY: usize = 1 << 20;

/// What is listed when a name is unknown.
const NAMES: &str = "`ar`, `jacobi:N`, `jacobi-pool`, `lookahead`, `prompt-lookup`, \
                     `draft-model` or `auto`, as in jacobi:16";

/// A decoder and its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecoderSpec {
    /// `ar`: one token a forward.
    Ar,
    /// `jacobi:16`, `jacobi:n=16,draft=ngram`: see [`Jacobi`].
    Jacobi {
        /// Rows of the window, 1 to 1024.
        n: usize,
        /// Where first guesses come from.
        draft: Draft,
    },
    /// `jacobi-pool`,
    /// `jacobi-pool:8,candidates=2,tokens=4,ngram=3,blocks=2,spawn=85,draft=ngram`: see
    /// [`JacobiPool`].
    JacobiPool(PoolOptions),
    /// `lookahead`, `lookahead:w=7,n=5,g=7`: see [`Lookahead`].
    Lookahead(LookaheadOptions),
    /// `prompt-lookup`, `prompt-lookup:ngram=3,tokens=8,history=0`: see [`PromptLookup`].
    PromptLookup {
        /// The most tokens looked for.
        ngram: usize,
        /// Guesses.
        tokens: usize,
        /// Tokens of earlier answers remembered, 0 to 2^20.
        history: usize,
    },
    /// `draft-model`, `draft-model:4`: see [`DraftModel`](crate::DraftModel).
    DraftModel {
        /// Tokens drafted.
        tokens: usize,
    },
    /// `auto`, `auto:16`, `auto:n=16,history=65536,draft=context`: [`Auto`] around [`Jacobi`].
    Auto {
        /// The most rows.
        n: usize,
        /// Tokens of earlier answers remembered, 0 to 2^20.
        history: usize,
        /// Where first guesses come from.
        draft: Draft,
    },
}

/// What a name stands for, ready to run.
pub enum Built {
    /// Autoregressive decoding, which has a loop of its own: [`ar::generate`](crate::ar::generate).
    Ar,
    /// A decoder for the driver.
    Decoder(Box<dyn Decoder>),
    /// A decoder that needs a second model, to be made with
    /// [`DraftModel::new`](crate::DraftModel::new).
    DraftModel {
        /// Tokens drafted.
        tokens: usize,
    },
}

/// Default of `ngram` of prompt lookup.
const LOOKUP_NGRAM: usize = 3;
/// Default of `tokens` of prompt lookup.
const LOOKUP_TOKENS: usize = 8;
/// Default of `history` of prompt lookup: it is the plain decoder of that name.
const LOOKUP_HISTORY: usize = 0;
/// Default of `tokens` of a draft model.
const DRAFT_TOKENS: usize = 4;
/// Default of `n` of auto.
const AUTO_N: usize = 16;
/// Default of `history` of auto: some seven megabytes.
const AUTO_HISTORY: usize = 1 << 16;
/// Default of `draft` of auto: it also finds what prompt lookup would.
const AUTO_DRAFT: Draft = Draft::NGram;

impl DecoderSpec {
    /// The decoder. `seed` is for first guesses drawn at random, `costs` for `auto`.
    ///
    /// # Errors
    /// [`LmError::EmptyBlock`] for options out of their range; parsed ones are in it.
    pub fn build(self, seed: u64, costs: &CostModel) -> Result<Built, LmError> {
        let decoder: Box<dyn Decoder> = match self {
            Self::Ar => return Ok(Built::Ar),
            Self::DraftModel { tokens } => return Ok(Built::DraftModel { tokens }),
            Self::Jacobi { n, draft } => Box::new(Jacobi::new(n, draft, seed)?),
            Self::JacobiPool(options) => Box::new(JacobiPool::new(options, seed)?),
            Self::Lookahead(options) => Box::new(Lookahead::new(options, seed)?),
            Self::PromptLookup { ngram, tokens, history } => {
                Box::new(PromptLookup::new(ngram, tokens).remember(history))
            }
            Self::Auto { n, history, draft } => {
                let jacobi = Jacobi::new(n, draft, seed)?;
                Box::new(Auto::new(jacobi, n, costs.clone())?.remember(history))
            }
        };
        Ok(Built::Decoder(decoder))
    }
}

/// A name that is no decoder's, or options that are not its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSpec(String);

fn bad<T>(what: String) -> Result<T, BadSpec> {
    Err(BadSpec(what))
}

/// The options of one decoder, taken one by one.
struct Options<'a> {
    decoder: &'a str,
    given: Vec<(&'a str, &'a str)>,
    known: Vec<&'static str>,
}

impl<'a> Options<'a> {
    /// `main` is the key of a bare first value.
    fn parse(decoder: &'a str, text: &'a str, main: &'static str) -> Result<Self, BadSpec> {
        let mut given: Vec<(&str, &str)> = Vec::new();
        for (i, option) in text.split(',').map(str::trim).filter(|o| !o.is_empty()).enumerate() {
            let pair = match option.split_once('=') {
                Some(pair) => pair,
                None if i == 0 && !main.is_empty() => (main, option),
                None => return bad(format!("`{option}`: expected key=value")),
            };
            if given.iter().any(|(key, _)| *key == pair.0) {
                return bad(format!("`{}` is given twice", pair.0));
            }
            given.push(pair);
        }
        Ok(Self { decoder, given, known: Vec::new() })
    }

    fn take(&mut self, key: &'static str) -> Option<&'a str> {
        self.known.push(key);
        let at = self.given.iter().position(|(given, _)| *given == key)?;
        Some(self.given.remove(at).1)
    }

    /// A number from `least` to `most`.
    fn number(
        &mut self,
        key: &'static str,
        (least, most): (usize, usize),
        default: usize,
    ) -> Result<usize, BadSpec> {
        let Some(value) = self.take(key) else { return Ok(default) };
        match value.parse() {
            Ok(n) if (least..=most).contains(&n) => Ok(n),
            _ => bad(format!("`{key}={value}` of {}: expected {least} to {most}", self.decoder)),
        }
    }

    fn draft(&mut self, default: Draft) -> Result<Draft, BadSpec> {
        let Some(name) = self.take("draft") else { return Ok(default) };
        name.parse().map_err(|error: crate::draft::UnknownDraft| BadSpec(error.to_string()))
    }

    /// Whatever has not been taken is a mistake.
    fn finish(self, spec: DecoderSpec) -> Result<DecoderSpec, BadSpec> {
        let Some((key, _)) = self.given.first() else { return Ok(spec) };
        let names: Vec<_> = self.known.iter().map(|key| format!("`{key}`")).collect();
        match names.split_last() {
            None => bad(format!("`{}` takes no options", self.decoder)),
            Some((last, [])) => bad(format!("no option `{key}`; {} has {last}", self.decoder)),
            Some((last, others)) => bad(format!(
                "no option `{key}`; {} has {} and {last}",
                self.decoder,
                others.join(", ")
            )),
        }
    }
}

impl FromStr for DecoderSpec {
    type Err = BadSpec;

    fn from_str(text: &str) -> Result<Self, BadSpec> {
        let (name, options) = text.split_once(':').unwrap_or((text, ""));
        let open = |main| Options::parse(name, options, main);
        let (block, key) = ((1, MAX_BLOCK), (1, MAX_NGRAM));
        match name {
            "ar" if text != "ar" => bad("`ar` takes no options".into()),
            "ar" => Ok(Self::Ar),
            "jacobi" => {
                let mut options = open("n")?;
                if !options.given.iter().any(|(key, _)| *key == "n") {
                    return bad("jacobi needs a block length, as in jacobi:16".into());
                }
                let n = options.number("n", block, 1)?;
                let draft = options.draft(Draft::default())?;
                options.finish(Self::Jacobi { n, draft })
            }
            "jacobi-pool" => {
                let (mut options, default) = (open("n")?, PoolOptions::default());
                let spec = PoolOptions {
                    n: options.number("n", block, default.n)?,
                    candidates: options.number("candidates", (0, 64), default.candidates)?,
                    tokens: options.number("tokens", (1, 64), default.tokens)?,
                    ngram: options.number("ngram", key, default.ngram)?,
                    draft: options.draft(default.draft)?,
                    in_flight: InFlight {
                        blocks: options.number("blocks", (0, 16), default.in_flight.blocks)?,
                        spawn: options.number("spawn", (0, 100), default.in_flight.spawn)?,
                    },
                };
                options.finish(Self::JacobiPool(spec))
            }
            "lookahead" => {
                let (mut options, default) = (open("")?, LookaheadOptions::default());
                let spec = LookaheadOptions {
                    w: options.number("w", (1, MAX_LOOKAHEAD), default.w)?,
                    n: options.number("n", (2, MAX_LOOKAHEAD), default.n)?,
                    g: options.number("g", (0, MAX_LOOKAHEAD), default.g)?,
                };
                options.finish(Self::Lookahead(spec))
            }
            "prompt-lookup" => {
                let mut options = open("")?;
                let ngram = options.number("ngram", key, LOOKUP_NGRAM)?;
                let tokens = options.number("tokens", block, LOOKUP_TOKENS)?;
                let history = options.number("history", (0, MAX_HISTORY), LOOKUP_HISTORY)?;
                options.finish(Self::PromptLookup { ngram, tokens, history })
            }
            "draft-model" => {
                let mut options = open("tokens")?;
                let tokens = options.number("tokens", block, DRAFT_TOKENS)?;
                options.finish(Self::DraftModel { tokens })
            }
            "auto" => {
                let mut options = open("n")?;
                let n = options.number("n", block, AUTO_N)?;
                let history = options.number("history", (0, MAX_HISTORY), AUTO_HISTORY)?;
                let draft = options.draft(AUTO_DRAFT)?;
                options.finish(Self::Auto { n, history, draft })
            }
            _ => bad(format!("no decoder `{name}`; expected {NAMES}")),
        }
    }
}

impl fmt::Display for DecoderSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Options that are not at their default, the main one without its key.
        let mut shown: Vec<String> = Vec::new();
        let mut show = |key: &str, value: usize, default: usize| {
            if value != default {
                let key = if key.is_empty() { String::new() } else { format!("{key}=") };
                shown.push(format!("{key}{value}"));
            }
        };
        let mut drafts = None;
        let name = match *self {
            Self::Ar => "ar",
            Self::Jacobi { n, draft } => {
                show("", n, 0);
                drafts = Some((draft, Draft::default()));
                "jacobi"
            }
            Self::JacobiPool(options) => {
                let default = PoolOptions::default();
                show("", options.n, default.n);
                show("candidates", options.candidates, default.candidates);
                show("tokens", options.tokens, default.tokens);
                show("ngram", options.ngram, default.ngram);
                show("blocks", options.in_flight.blocks, default.in_flight.blocks);
                show("spawn", options.in_flight.spawn, default.in_flight.spawn);
                drafts = Some((options.draft, default.draft));
                "jacobi-pool"
            }
            Self::Lookahead(options) => {
                let default = LookaheadOptions::default();
                show("w", options.w, default.w);
                show("n", options.n, default.n);
                show("g", options.g, default.g);
                "lookahead"
            }
            Self::PromptLookup { ngram, tokens, history } => {
                show("ngram", ngram, LOOKUP_NGRAM);
                show("tokens", tokens, LOOKUP_TOKENS);
                show("history", history, LOOKUP_HISTORY);
                "prompt-lookup"
            }
            Self::DraftModel { tokens } => {
                show("", tokens, DRAFT_TOKENS);
                "draft-model"
            }
            Self::Auto { n, history, draft } => {
                show("", n, AUTO_N);
                show("history", history, AUTO_HISTORY);
                drafts = Some((draft, AUTO_DRAFT));
                "auto"
            }
        };
        if let Some((draft, default)) = drafts
            && draft != default
        {
            shown.push(format!("draft={draft}"));
        }
        let options = shown.join(",");
        f.pad(&if options.is_empty() { name.into() } else { format!("{name}:{options}") })
    }
}

/// Several decoders, separated by commas.
///
/// Options of a decoder are separated by commas too; a piece `key=value` without a name before
/// it belongs to the decoder before it: `ar,jacobi:16,draft=ngram,jacobi:32` are three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecoderList(pub Vec<DecoderSpec>);

impl FromStr for DecoderList {
    type Err = BadSpec;

    fn from_str(text: &str) -> Result<Self, BadSpec> {
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
                return bad(format!("`{decoder}` is given twice"));
            }
            decoders.push(decoder);
        }
        Ok(Self(decoders))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print_shortest() {
        let check = |text: &str, spec: DecoderSpec, printed: &str| {
            assert_eq!(text.parse(), Ok(spec), "{text}");
            assert_eq!(spec.to_string(), printed);
            assert_eq!(printed.parse(), Ok(spec), "{printed}");
            assert!(spec.build(0, &CostModel::default()).is_ok());
        };
        let jacobi = |n, draft| DecoderSpec::Jacobi { n, draft };
        check("ar", DecoderSpec::Ar, "ar");
        check("jacobi:16", jacobi(16, Draft::Context), "jacobi:16");
        check("jacobi:n=16", jacobi(16, Draft::Context), "jacobi:16");
        check("jacobi:n=1,draft=context", jacobi(1, Draft::Context), "jacobi:1");
        check("jacobi:8,draft=ngram", jacobi(8, Draft::NGram), "jacobi:8,draft=ngram");
        check(
            "jacobi:draft=last-token,n=8",
            jacobi(8, Draft::LastToken),
            "jacobi:8,draft=last-token",
        );
        let pool = PoolOptions { n: 8, candidates: 3, ..PoolOptions::default() };
        check(
            "jacobi-pool:n=8,candidates=3",
            DecoderSpec::JacobiPool(pool),
            "jacobi-pool:8,candidates=3",
        );
        check("jacobi-pool", DecoderSpec::JacobiPool(PoolOptions::default()), "jacobi-pool");
        let in_flight = InFlight { blocks: 2, spawn: 70 };
        check(
            "jacobi-pool:blocks=2,spawn=70",
            DecoderSpec::JacobiPool(PoolOptions { in_flight, ..PoolOptions::default() }),
            "jacobi-pool:blocks=2,spawn=70",
        );
        let small = DecoderSpec::Lookahead(LookaheadOptions::default());
        check("lookahead:w=7,n=5,g=7", small, "lookahead");
        let large = DecoderSpec::Lookahead(LookaheadOptions { w: 15, n: 5, g: 15 });
        check("lookahead:w=15,g=15", large, "lookahead:w=15,g=15");
        let lookup = |ngram, tokens, history| DecoderSpec::PromptLookup { ngram, tokens, history };
        check("prompt-lookup", lookup(3, 8, 0), "prompt-lookup");
        check(
            "prompt-lookup:ngram=2,tokens=10",
            lookup(2, 10, 0),
            "prompt-lookup:ngram=2,tokens=10",
        );
        check("prompt-lookup:history=9", lookup(3, 8, 9), "prompt-lookup:history=9");
        check("draft-model:tokens=6", DecoderSpec::DraftModel { tokens: 6 }, "draft-model:6");
        let auto = |n, history, draft| DecoderSpec::Auto { n, history, draft };
        check("auto", auto(16, 1 << 16, Draft::NGram), "auto");
        check("auto:n=32", auto(32, 1 << 16, Draft::NGram), "auto:32");
        check("auto:history=0", auto(16, 0, Draft::NGram), "auto:history=0");
        check("auto:draft=context", auto(16, 1 << 16, Draft::Context), "auto:draft=context");
    }

    #[test]
    fn bad_names_say_what_was_expected() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<DecoderSpec>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("", "no decoder ``");
        check("medusa", "expected `ar`, `jacobi:N`");
        check("ar:16", "no options");
        check("ar:", "no options");
        check("jacobi", "block length");
        check("jacobi:", "block length");
        check("jacobi:0", "`n=0` of jacobi: expected 1 to 1024");
        check("jacobi:-1", "expected 1 to 1024");
        check("jacobi:99999999999999999999999", "expected 1 to 1024");
        check("jacobi:16,draft=magic", "expected context");
        check("jacobi:16,8", "expected key=value");
        check("jacobi:16,n=8", "given twice");
        check("jacobi:16,window=8", "no option `window`; jacobi has `n` and `draft`");
        check("lookahead:7", "expected key=value");
        check("lookahead:n=1", "expected 2 to 64");
        check("draft-model:4,n=3", "no option `n`; draft-model has `tokens`");
        check("auto:n=", "expected 1 to 1024");
        check("auto:history=2000000", "expected 0 to 1048576");
    }

    #[test]
    fn lists_keep_options_with_their_decoder() {
        let list: DecoderList =
            "ar,jacobi:16,draft=ngram, lookahead:w=3,n=4,auto".parse().expect("a list");
        let names: Vec<_> = list.0.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["ar", "jacobi:16,draft=ngram", "lookahead:w=3,n=4", "auto"]);
        assert!("ar,ar".parse::<DecoderList>().is_err());
        assert!("ar,".parse::<DecoderList>().is_err());
        assert!("draft=ngram".parse::<DecoderList>().is_err());
    }
}
