//! How a byte-level vocabulary cuts text into words before merging, by the name a GGUF
//! file gives it in `tokenizer.ggml.pre`.
//!
//! The names are llama.cpp's. The expressions are those of the models' own
//! `tokenizer.json`, which llama.cpp rewrites for a weaker regex engine; ours takes the
//! originals, so that ids equal Hugging Face's. Only names of models in the supported
//! families are here: a wrong guess would cost quality silently, an error does not.

use serde_json::Value;
use tokenizers::normalizers::{NFC, NormalizerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;

/// One way to cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    cut: Cut,
    /// Canonical composition first.
    nfc: bool,
    /// A word that is in the vocabulary is one token whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether texts begin with the beginning-of-text token, unless the file says.
    pub(super) add_bos: bool,
}

#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Expressions in turn, each cutting the parts the former left.
    Split(&'static [&'static str]),
    /// GPT-2's expression.
    Gpt2,
    /// Every digit on its own, then GPT-2's expression.
    DigitsGpt2,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const PLAIN: PreTokenizer =
    PreTokenizer { names: &[], cut: Cut::Gpt2, nfc: false, ignore_merges: false, add_bos: false };

const KNOWN: [PreTokenizer; 9] = [
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0"],
        cut: Cut::Split(&[LLAMA3]),
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["smaug-bpe", "dbrx"], cut: Cut::Split(&[LLAMA3]), ..PLAIN },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen"],
        cut: Cut::Split(&[QWEN2]),
        nfc: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["tekken"],
        cut: Cut::Split(&[TEKKEN]),
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["smollm", "minerva-7b"], cut: Cut::DigitsGpt2, ..PLAIN },
    PreTokenizer { names: &["gpt-2", "mellum", "trillion"], cut: Cut::Gpt2, ..PLAIN },
    PreTokenizer {
        names: &["default"],
        cut: Cut::Split(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        cut: Cut::Split(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"]),
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-v3"],
        cut: Cut::Split(&[
            r"\p{N}{1,3}",
            "[一-龥぀-ゟ゠-ヿ]+",
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        ]),
        ..PLAIN
    },
];

impl PreTokenizer {
    /// By name; `None` (files older than the key) means `default`, as in llama.cpp.
    pub(super) fn named(name: Option<&str>) -> Result<Self, String> {
        let name = name.unwrap_or("default");
        KNOWN.into_iter().find(|known| known.names.contains(&name)).ok_or_else(|| {
            let supported: Vec<&str> =
                KNOWN.iter().flat_map(|known| known.names).copied().collect();
            format!(
                "tokenizer.ggml.pre is {name:?}, which is not supported; supported: {}",
                supported.join(", ")
            )
        })
    }

    /// The first name that cuts, normalises and merges like this; parts as `tokenizer.json`
    /// writes them.
    pub(super) fn name_of(
        pre_tokenizer: &Value,
        normalizer: &Value,
        ignore_merges: bool,
    ) -> Option<&'static str> {
        let known = KNOWN.into_iter().find(|known| {
            let built = known.build().ok().and_then(|pre| serde_json::to_value(pre).ok());
            let nfc = serde_json::to_value(known.normalizer()).ok();
            built.is_some_and(|built| steps(&built) == steps(pre_tokenizer))
                && nfc.as_ref() == Some(normalizer)
                && known.ignore_merges == ignore_merges
        });
        known.and_then(|known| known.names.first().copied())
    }

    pub(super) fn normalizer(&self) -> Option<NormalizerWrapper> {
        self.nfc.then(|| NormalizerWrapper::NFC(NFC))
    }

    pub(super) fn build(&self) -> Result<PreTokenizerWrapper, String> {
        let byte_level =
            |use_regex| PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, use_regex));
        let mut steps = Vec::new();
        match self.cut {
            Cut::Split(expressions) => {
                for &expression in expressions {
                    let split = Split::new(
                        SplitPattern::Regex(expression.into()),
                        SplitDelimiterBehavior::Isolated,
                        false,
                    )
                    .map_err(|error| format!("expression {expression}: {error}"))?;
                    steps.push(split.into());
                }
                steps.push(byte_level(false));
            }
            Cut::DigitsGpt2 => {
                steps.push(Digits::new(true).into());
                steps.push(byte_level(true));
            }
            Cut::Gpt2 => steps.push(byte_level(true)),
        }
        Ok(Sequence::new(steps).into())
    }
}

/// The steps of a splitting, one or a sequence, without what decides offsets only.
fn steps(pre_tokenizer: &Value) -> Vec<Value> {
    let mut steps = match pre_tokenizer.get("pretokenizers").and_then(Value::as_array) {
        Some(steps) => steps.clone(),
        None => vec![pre_tokenizer.clone()],
    };
    for step in steps.iter_mut().filter_map(Value::as_object_mut) {
        step.shift_remove("trim_offsets");
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_builds_and_unknown_names_are_listed() {
        for name in KNOWN.iter().flat_map(|known| known.names) {
            let built = PreTokenizer::named(Some(name)).and_then(|pre| pre.build());
            assert!(built.is_ok(), "{name}: {built:?}");
        }
        let error = PreTokenizer::named(Some("gemma9")).expect_err("unknown");
        assert!(error.contains("gemma9") && error.contains("llama-bpe"), "{error}");
    }
}
