//! Where results go: part files of a folder.

use std::collections::BTreeMap;

use cllm_decode::collect::{Collected, Sink};
use cllm_decode::{Finish, Token};
use cllm_model::Tokenizer;
use serde_json::Value;

use super::{CollectArgs, Failing};
use crate::collect::check::Check;
use crate::collect::{clean, part};
use crate::console::note;
use crate::record::Record;

/// A part under way.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Prompts not yet kept or dropped.
    pub(super) left: usize,
    pub(super) rows: Vec<part::Row>,
    pub(super) dropped: BTreeMap<String, usize>,
}

/// Sorts what comes into parts and writes each when it is complete.
pub(super) struct Folder<'a> {
    pub(super) arguments: &'a CollectArgs,
    pub(super) records: &'a [Record],
    pub(super) settings: &'a Value,
    pub(super) check: &'a Check,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) open: BTreeMap<usize, Open>,
    pub(super) error: Option<anyhow::Error>,
}

impl Folder<'_> {
    /// A prompt is dropped.
    pub(super) fn drop_one(&mut self, id: u64, reason: &str) {
        self.settle(id, |open| *open.dropped.entry(reason.to_owned()).or_default() += 1);
    }

    /// A prompt is kept or dropped; its part may be complete.
    fn settle(&mut self, id: u64, change: impl FnOnce(&mut Open)) {
        let p = id as usize / self.arguments.part_size.get();
        let Some(open) = self.open.get_mut(&p) else { return };
        change(open);
        open.left -= 1;
        if open.left > 0 {
            return;
        }
        let mut open = self.open.remove(&p).unwrap_or_default();
        open.rows.sort_by_key(|row| row.collected.id);
        let Some(out) = &self.arguments.out else { return };
        let path = part::path(out, p);
        let augment = self.arguments.augment.then_some(self.arguments.seed);
        match part::write(&path, self.settings, &open.rows, open.dropped, augment) {
            Ok(counts) => note(format_args!(
                "{}: {} of {} prompts kept, {} blocks",
                path.display(),
                counts.kept,
                counts.prompts,
                counts.blocks
            )),
            Err(error) => self.error = Some(error),
        }
    }
}

impl Failing for Folder<'_> {
    fn failed(&self) -> bool {
        self.error.is_some()
    }
}

impl Sink for Folder<'_> {
    fn answered(&mut self, id: u64, answer: &[Token], finish: Option<Finish>) -> bool {
        let text = self.tokenizer.decode(answer, true);
        let fault = match clean::fault(answer, &text, finish) {
            Some(reason) => Ok(Some(reason)),
            None => self.check.fault(&self.records[id as usize], &text),
        };
        match fault {
            Ok(None) => return true,
            Ok(Some(reason)) => self.drop_one(id, reason),
            Err(error) => self.error = Some(error),
        }
        false
    }

    fn collected(&mut self, collected: Collected) {
        let id = collected.id;
        let answer = self.tokenizer.decode(&collected.answer, true);
        let reference = self.records[id as usize].answer.clone();
        self.settle(id, |open| open.rows.push(part::Row { collected, answer, reference }));
    }
}
