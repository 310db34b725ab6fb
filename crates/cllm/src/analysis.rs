//! How models settle their answers: what `cllm analyze` says, made of traces.
//!
//! Every figure is a count or a ratio of counts that stand beside it, pooled over all answers
//! of a model. Only decode forwards count; the first token of an answer, which prefill
//! gives, is in none of them. [`settling`] counts how fast positions settle, [`collocation`]
//! finds the n-grams that settle together, [`text`] prints both.

pub(crate) mod collocation;
mod kind;
mod settling;
mod text;

use std::collections::BTreeMap;

use cllm_decode::Token;
use serde::Serialize;

use crate::exit::bad_input;
use crate::trace::read::Traced;

/// What an analysis calls itself in JSON.
pub(crate) const FORMAT: &str = "cllm-analysis";
/// Raised when a reader of the last version would go wrong.
pub(crate) const VERSION: u32 = 1;

/// What is counted as a collocation, and against whom.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    /// The longest n-gram.
    pub(crate) longest: usize,
    /// How often a model must say an n-gram.
    pub(crate) min_count: usize,
    /// How many to list, of each kind and model.
    pub(crate) top: usize,
    /// Tokens of a block; by default the longest window of the traces.
    pub(crate) block: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { longest: 8, min_count: 3, top: 10, block: None }
    }
}

/// Answers of one model.
#[derive(Debug)]
pub(crate) struct Named {
    /// What to call it.
    pub(crate) name: String,
    /// Its answers.
    pub(crate) answers: Vec<Traced>,
}

/// The report, and the JSON document.
#[derive(Debug, Serialize)]
pub(crate) struct Analysis {
    format: &'static str,
    version: u32,
    settings: Settings,
    /// The model that lifts are relative to; null if there is only one.
    baseline: Option<String>,
    models: Vec<settling::Model>,
    collocations: Vec<collocation::Collocation>,
}

/// Analyses all; `baseline` names the model that lifts are relative to, by default the one
/// called `teacher`, or else the first that is not autoregressive.
pub(crate) fn analyse(
    all: &[Named],
    baseline: Option<&str>,
    settings: Settings,
) -> anyhow::Result<Analysis> {
    one_vocabulary(all)?;
    let baseline = find_baseline(all, baseline)?;
    let windows = all.iter().flat_map(|named| &named.answers).flat_map(Traced::decode);
    let block = settings.block.or(windows.map(|forward| forward.output.len()).max()).unwrap_or(1);
    let models = all.iter().map(|named| settling::Model::of(named, block)).collect();
    let collocations = collocation::rank(all, baseline, &settings);
    let baseline = baseline.map(|index| all[index].name.clone());
    Ok(Analysis { format: FORMAT, version: VERSION, settings, baseline, models, collocations })
}

/// Token ids mean the same in all traces, or n-grams could not be compared.
fn one_vocabulary(all: &[Named]) -> anyhow::Result<()> {
    let mut texts: BTreeMap<Token, (&str, &str)> = BTreeMap::new();
    for Named { name, answers } in all {
        for (token, text) in answers.iter().flat_map(|answer| &answer.texts) {
            let (other, found) = *texts.entry(*token).or_insert((name, text));
            if found != text {
                bad_input!(
                    "token {token} is {found:?} in `{other}` and {text:?} in `{name}`: expected \
                     traces of one tokenizer"
                );
            }
        }
    }
    Ok(())
}

fn find_baseline(all: &[Named], asked: Option<&str>) -> anyhow::Result<Option<usize>> {
    let index = |name: &str| all.iter().position(|named| named.name == name);
    if let Some(name) = asked {
        let Some(found) = index(name) else {
            let names: Vec<_> = all.iter().map(|named| format!("`{}`", named.name)).collect();
            bad_input!("no model `{name}` to compare with; expected one of {}", names.join(", "));
        };
        return Ok(Some(found));
    }
    let jumps = |named: &Named| !autoregressive(named);
    let several = all.iter().filter(|named| jumps(named)).count() > 1;
    let first = all.iter().position(jumps);
    Ok(if several { index("teacher").or(first) } else { None })
}

/// Whether every forward settled a token and had no guess.
fn autoregressive(named: &Named) -> bool {
    named.answers.iter().flat_map(Traced::decode).all(|forward| forward.output.len() <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::read::tests::traced;

    fn named(name: &str, answer: Traced) -> Named {
        Named { name: name.into(), answers: vec![answer] }
    }

    #[test]
    fn the_teacher_is_the_baseline_unless_another_is_named() {
        let ar = || traced(3, &[(&[4], 1), (&[5], 1)]);
        let jacobi = || traced(3, &[(&[4, 5], 2)]);
        let all = [named("ar", ar()), named("base", jacobi()), named("teacher", jacobi())];
        assert_eq!(find_baseline(&all, None).unwrap(), Some(2));
        assert_eq!(find_baseline(&all[..2], None).unwrap(), None, "only one that guesses");
        assert_eq!(find_baseline(&all, Some("base")).unwrap(), Some(1));
        let error = find_baseline(&all, Some("x")).unwrap_err().to_string();
        assert!(error.contains("expected one of `ar`, `base`, `teacher`"), "{error}");
    }

    #[test]
    fn traces_of_two_tokenizers_are_refused() {
        let mut other = traced(3, &[(&[4, 5], 2)]);
        other.texts.insert(4, "x".into());
        let all = [named("a", traced(3, &[(&[4, 5], 2)])), named("b", other)];
        let error = analyse(&all, None, Settings::default()).unwrap_err().to_string();
        assert!(error.contains("token 4 is \" 4\" in `a` and \"x\" in `b`"), "{error}");
    }
}
