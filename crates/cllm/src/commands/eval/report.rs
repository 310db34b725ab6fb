//! What all answers together say.

use std::collections::BTreeMap;

use serde::Serialize;

use super::record::Record;
use crate::figures::{Figures, cell};
use crate::table::Table;

/// The results of a run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Results {
    /// Questions answered.
    pub(super) examples: usize,
    /// Share of right answers among those that could be judged, by the figure's name.
    pub(super) scores: BTreeMap<String, Option<f64>>,
    /// Answers that could not be judged, by the figure's name.
    pub(super) unjudged: BTreeMap<String, usize>,
    /// Cost and speed.
    #[serde(flatten)]
    pub(super) figures: Figures,
    /// The mean acceptance length of the answers that ended with a stop token.
    pub(super) mean_acceptance_length_ended: Option<f64>,
    /// See [`super::settling`].
    pub(super) fast_forwarded_tokens: usize,
    /// See [`super::settling`].
    pub(super) stationary_tokens: usize,
    /// Share of answers that ended with a stop token.
    pub(super) eos_share: f64,
    /// Share of 4-grams that stood earlier in the same answer.
    pub(super) repetition_rate: Option<f64>,
    /// Share of answers whose tokens are AR's; null where that was not checked.
    pub(super) exact: Option<f64>,
    /// `tokens_per_second` over AR's, where both were measured.
    pub(super) speedup: Option<f64>,
    /// AR's `total_seconds` over these.
    pub(super) total_speedup: Option<f64>,
}

impl Results {
    /// Sums up.
    pub(super) fn of(records: &[Record]) -> Self {
        let figures = Figures::pool(records.iter().map(|record| &record.figures));
        let ended = records.iter().filter(|record| record.ended());
        let ended_figures = Figures::pool(ended.clone().map(|record| &record.figures));
        let (mut judged, mut right, mut unjudged) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (name, score) in records.iter().flat_map(|record| &record.scored.scores) {
            *judged.entry(name).or_insert(0usize) += usize::from(score.is_some());
            *right.entry(name).or_insert(0usize) += usize::from(*score == Some(true));
            *unjudged.entry(name.clone()).or_insert(0) += usize::from(score.is_none());
        }
        let share = |name: &&String| {
            let all = judged[name];
            (all > 0).then(|| right[name] as f64 / all as f64)
        };
        let scores = judged.keys().map(|name| ((*name).clone(), share(name))).collect();
        let checked: Vec<_> = records.iter().filter_map(|r| r.ar.as_ref()).collect();
        let ar = Figures::pool(checked.iter().map(|against| &against.figures));
        let exact = checked.iter().filter(|against| against.exact).count();
        let grams = records
            .iter()
            .fold((0, 0), |sum, record| (sum.0 + record.four_grams.0, sum.1 + record.four_grams.1));
        Self {
            examples: records.len(),
            scores,
            unjudged,
            mean_acceptance_length_ended: ended_figures.mean_acceptance_length,
            fast_forwarded_tokens: records.iter().map(|r| r.fast_forwarded_tokens).sum(),
            stationary_tokens: records.iter().map(|r| r.stationary_tokens).sum(),
            eos_share: ended.count() as f64 / records.len().max(1) as f64,
            repetition_rate: (grams.0 > 0).then(|| grams.1 as f64 / grams.0 as f64),
            exact: (!checked.is_empty()).then(|| exact as f64 / checked.len() as f64),
            speedup: figures.tokens_per_second.zip(ar.tokens_per_second).map(|(a, b)| a / b),
            total_speedup: (ar.total_seconds > 0.0 && figures.total_seconds > 0.0)
                .then(|| ar.total_seconds / figures.total_seconds),
            figures,
        }
    }

    /// For people.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(1, ["figure", "value"]);
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        row("examples", self.examples.to_string());
        for (name, score) in &self.scores {
            row(&format!("score: {}", name.replace('_', " ")), percent(*score));
        }
        for (name, count) in self.unjudged.iter().filter(|(_, count)| **count > 0) {
            row(&format!("not judged: {}", name.replace('_', " ")), count.to_string());
        }
        row("mean acceptance length", cell(self.figures.mean_acceptance_length, 2));
        row("  of answers that ended", cell(self.mean_acceptance_length_ended, 2));
        row("tokens/s", cell(self.figures.tokens_per_second, 1));
        row("tokens", self.figures.tokens.to_string());
        row("forwards", self.figures.forwards.to_string());
        row("fast-forwarded tokens", self.fast_forwarded_tokens.to_string());
        row("stationary tokens", self.stationary_tokens.to_string());
        row("ended with EOS", percent(Some(self.eos_share)));
        row("repetition rate", percent(self.repetition_rate));
        if self.exact.is_some() {
            row("exact", cell(self.exact, 3));
            row("speed-up", cell(self.speedup, 2));
            row("speed-up with prefill", cell(self.total_speedup, 2));
        }
        table
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |share| format!("{:.1} %", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use super::super::log::tests::record;
    use super::super::record::Against;
    use super::*;

    #[test]
    fn answers_are_pooled_and_those_that_ended_stand_apart() {
        let figures = |tokens, forwards, seconds| {
            let one =
                Figures { tokens, forwards, seconds, total_seconds: seconds, ..Default::default() };
            Figures::pool([&one])
        };
        let (mut a, mut b) = (record(1), record(2));
        a.figures = figures(30, 10, 1.0);
        a.scored.scores.insert("s".into(), Some(true));
        a.ar = Some(Against { exact: true, figures: figures(30, 30, 3.0) });
        b.figures = figures(70, 10, 1.0);
        b.finish_reason = "length".into();
        b.scored.scores.insert("s".into(), None);
        b.ar = Some(Against { exact: false, figures: figures(70, 70, 7.0) });
        let results = Results::of(&[a, b]);
        assert_eq!(results.figures.mean_acceptance_length, Some(5.0));
        assert_eq!(results.mean_acceptance_length_ended, Some(3.0));
        assert_eq!((results.scores["s"], results.unjudged["s"]), (Some(1.0), 1));
        assert_eq!((results.exact, results.eos_share), (Some(0.5), 0.5));
        assert_eq!((results.speedup, results.total_speedup), (Some(5.0), Some(5.0)));
        assert_eq!((results.fast_forwarded_tokens, results.stationary_tokens), (2, 4));
        assert!(results.table().to_string().contains("score: s"));
        assert_eq!(Results::of(&[]).exact, None);
    }
}
