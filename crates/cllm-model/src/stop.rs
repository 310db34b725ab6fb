//! Stop strings: texts that end an answer.
//!
//! A stop string may be spread over several pieces of text, and no part of it may be
//! shown. So the end of the text is held back as long as it could be the beginning of one.
//! The earliest to be completed wins; of several that end at the same byte, the one that
//! begins first. The result does not depend on how the text is cut into pieces.

use crate::error::ModelError;

/// Watches a text that comes in pieces.
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text not shown yet; never contains a whole stop string.
    held: String,
    /// Bytes of the text before `held`.
    shown: usize,
    hit: Option<StopHit>,
}

/// A stop string that was completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopHit {
    /// Index into the list of stop strings.
    pub index: usize,
    /// Byte of the text at which it begins: the answer is the text before.
    pub start: usize,
    /// Byte after its last.
    pub end: usize,
}

impl StopStrings {
    /// Watches for any of these; none is fine. An empty one would end every answer before
    /// it began, so it is refused.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Result<Self, ModelError> {
        let stops: Vec<String> = stops.into_iter().map(Into::into).collect();
        if let Some(index) = stops.iter().position(String::is_empty) {
            return Err(ModelError::Text(format!("stop string {index} is empty")));
        }
        Ok(Self { stops, held: String::new(), shown: 0, hit: None })
    }

    /// Takes the next piece and returns the text that is safe to show. After a hit, which
    /// [`Self::hit`] tells, nothing more comes.
    pub fn push(&mut self, piece: &str) -> String {
        if self.hit.is_some() {
            return String::new();
        }
        self.held.push_str(piece);
        let found = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, index))
        });
        if let Some((end, start, index)) = found.min() {
            self.hit = Some(StopHit { index, start: self.shown + start, end: self.shown + end });
            self.held.truncate(start);
            return self.release(start);
        }
        self.release(self.held.len() - self.beginning())
    }

    /// The text is over: returns what was held back in vain.
    pub fn finish(&mut self) -> String {
        self.release(self.held.len())
    }

    /// The stop string that was completed, if any.
    pub fn hit(&self) -> Option<&StopHit> {
        self.hit.as_ref()
    }

    /// Bytes at the end of `held` that could begin a stop string.
    fn beginning(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(1) - 1;
        let from = self.held.len().saturating_sub(longest);
        let starts = (from..self.held.len()).filter(|&at| self.held.is_char_boundary(at));
        let could_begin =
            |&at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..]));
        starts.into_iter().find(could_begin).map_or(0, |at| self.held.len() - at)
    }

    fn release(&mut self, count: usize) -> String {
        self.shown += count;
        self.held.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything shown, and the hit, for a text in the given pieces.
    fn run(stops: &[String], pieces: &[&str]) -> (String, Option<StopHit>) {
        let mut watch = StopStrings::new(stops.iter().map(String::as_str)).expect("no empty stop");
        let mut text = String::new();
        for piece in pieces {
            text.push_str(&watch.push(piece));
        }
        text.push_str(&watch.finish());
        (text, watch.hit().cloned())
    }

    /// The definition: at every end, from the first, any stop string that ends there.
    fn oracle(stops: &[String], text: &str) -> (String, Option<StopHit>) {
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let ending = stops.iter().enumerate().filter(|(_, stop)| text[..end].ends_with(*stop));
            let first = ending.map(|(index, stop)| (end - stop.len(), index)).min();
            if let Some((start, index)) = first {
                return (text[..start].to_owned(), Some(StopHit { index, start, end }));
            }
        }
        (text.to_owned(), None)
    }

    #[test]
    fn holds_back_only_what_could_be_a_stop() {
        let mut watch = StopStrings::new(["\n\n", "END"]).expect("stops");
        assert_eq!(watch.push("a\n"), "a");
        assert_eq!(watch.push("bE"), "\nb");
        assert_eq!(watch.push("NX"), "ENX");
        assert_eq!(watch.push("yEN"), "y");
        assert_eq!(watch.push("D and more"), "");
        assert_eq!(watch.hit(), Some(&StopHit { index: 1, start: 7, end: 10 }));
        assert_eq!(watch.push("never seen"), "");
        assert_eq!(watch.finish(), "");
        assert!(StopStrings::new(["a", ""]).is_err_and(|e| e.to_string().contains("1 is empty")));
    }

    proptest! {
        #[test]
        fn equals_the_definition_however_the_text_is_cut(
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            text in "[abé]{0,24}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.retain(|&cut| text.is_char_boundary(cut));
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(run(&stops, &pieces), oracle(&stops, &text));
        }
    }
}
