//! An analysis for people.

use std::fmt;

use super::Analysis;
use super::kind::Kind;
use crate::console::BOLD;
use crate::figures::cell;
use crate::table::Table;

/// Characters of an n-gram that a line has room for.
const ROOM: usize = 40;
/// Columns of positions that a line has room for.
const MOST_BINS: usize = 8;

impl fmt::Display for Analysis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.figures())?;
        write!(
            f,
            "\n{BOLD}share of forwards that settle so many tokens{BOLD:#}\n{}",
            self.acceptance()
        )?;
        write!(
            f,
            "\n{BOLD}tokens settled / rows of a forward, by position in the answer{BOLD:#}\n{}",
            self.by_position()
        )?;
        for kind in [Kind::Phrases, Kind::Syntax, Kind::Numbers] {
            if let Some(table) = self.collocations(kind) {
                let name = format!("{kind:?}").to_lowercase();
                write!(f, "\n{BOLD}collocations: {name}{BOLD:#}\n{table}")?;
            }
        }
        Ok(())
    }
}

impl Analysis {
    fn figures(&self) -> Table {
        let mut table = Table::new(
            1,
            [
                "model",
                "answers",
                "tokens",
                "forwards",
                "accepted",
                "of ended",
                "fast-forwarded",
                "stationary",
                "iterations/block",
                "EOS",
                "repetition",
            ],
        );
        for model in &self.models {
            let tokens = model.figures.tokens.max(1) as f64;
            let share = |count: usize| format!("{count} ({:.0} %)", 100.0 * count as f64 / tokens);
            table.row([
                model.name.clone(),
                model.answers.to_string(),
                model.figures.tokens.to_string(),
                model.figures.forwards.to_string(),
                cell(model.figures.mean_acceptance_length, 2),
                cell(model.mean_acceptance_length_ended, 2),
                share(model.fast_forwarded_tokens),
                share(model.stationary_tokens),
                cell(model.blocks.mean_iterations, 1),
                format!("{:.0} %", 100.0 * model.eos_share),
                cell(model.repetition_rate.map(|rate| 100.0 * rate), 1) + " %",
            ]);
        }
        table
    }

    fn acceptance(&self) -> Table {
        let mut table = Table::new(1, ["model", "1", "2", "3", "4", "5-8", "9 and more"]);
        for model in &self.models {
            let all = model.acceptance.iter().map(|bin| bin.forwards).sum::<usize>().max(1);
            let share = |from, to| {
                let bins = model.acceptance.iter().filter(|b| (from..=to).contains(&b.settled));
                let forwards = bins.map(|bin| bin.forwards).sum::<usize>();
                format!("{:.1} %", 100.0 * forwards as f64 / all as f64)
            };
            let bins = [(0, 1), (2, 2), (3, 3), (4, 4), (5, 8), (9, usize::MAX)];
            let cells = bins.map(|(from, to)| share(from, to));
            table.row([model.name.clone()].into_iter().chain(cells));
        }
        table
    }

    fn by_position(&self) -> Table {
        let bins = self.models.iter().flat_map(|model| &model.acceptance_by_position);
        let mut starts: Vec<usize> = bins.map(|bin| bin.from).collect();
        starts.sort_unstable();
        starts.dedup();
        starts.truncate(MOST_BINS);
        let names = starts.iter().map(|start| format!("from {start}"));
        let mut table = Table::new(1, ["model".to_owned()].into_iter().chain(names));
        for model in &self.models {
            let cells = starts.iter().map(|start| {
                let bin = model.acceptance_by_position.iter().find(|bin| bin.from == *start);
                bin.map_or_else(String::new, |bin| {
                    format!("{:.2} / {:.1}", bin.mean_acceptance_length, bin.mean_rows)
                })
            });
            table.row([model.name.clone()].into_iter().chain(cells));
        }
        table
    }

    fn collocations(&self, kind: Kind) -> Option<Table> {
        let base = self.baseline.as_deref().unwrap_or("baseline");
        let mut table = Table::new(2, ["model", "n-gram", "lift", "together", "", "example"]);
        let mut any = false;
        for one in self.collocations.iter().filter(|one| one.kind == kind) {
            any = true;
            let example = one.examples.first().map(|example| {
                visible(&format!("{}[{}]{}", example.before, example.text, example.after))
            });
            let beside = one.baseline_together.zip(one.baseline_occurrences);
            table.row([
                one.model.clone(),
                visible(&one.text),
                cell(one.lift, 1),
                format!("{} of {}", one.together, one.occurrences),
                beside.map_or_else(String::new, |(k, n)| format!("{base}: {k} of {n}")),
                example.unwrap_or_default(),
            ]);
        }
        any.then_some(table)
    }
}

/// On one line, cut to what there is room for; blanks at the ends and line breaks are seen.
fn visible(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| match c {
            '\n' => '⏎',
            c if c.is_control() => '·',
            c => c,
        })
        .collect();
    let cut: String = text.chars().take(ROOM).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("\"{cut}{more}\"")
}

#[cfg(test)]
mod tests {
    use super::super::{Named, Settings, analyse};
    use crate::trace::read::tests::traced;

    #[test]
    fn the_tables_name_models_and_n_grams() {
        let answers = || vec![traced(1, &[(&[20], 1), (&[21, 22], 2), (&[2], 1)])];
        let named = |name: &str| Named { name: name.into(), answers: answers() };
        let settings = Settings { min_count: 1, ..Settings::default() };
        let analysis = analyse(&[named("only")], None, settings).unwrap();
        let text = anstream::adapter::strip_str(&analysis.to_string()).to_string();
        assert!(text.contains("only"), "{text}");
        assert!(text.contains("\" 21 22\"     -    1 of 1"), "{text}");
        assert!(text.contains("66.7 %"), "{text}");
        assert!(text.contains("from 0") && text.contains("1.33 / "), "{text}");
    }
}
