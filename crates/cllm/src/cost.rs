//! What forwards of one sequence cost on this machine: T(n), for the decoder that chooses
//! its own block length.
//!
//! Measured once for a machine, a model and a way of computing it, and kept in a small file
//! under `CLLM_HOME/costs`; so a load costs it nothing but the first time, and then well
//! under a second. The file is only a saving: whatever is wrong with it, or with the folder,
//! T(n) is measured again.
//!
//! The context is short, as attention is a small part of a forward until a context is
//! thousands of tokens long, and grows for one row and for n alike.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use cllm_decode::{CausalLm, LmError};
use serde::{Deserialize, Serialize};

use crate::collect::whole;
use crate::stopwatch::{Bench, Shape, measure};

/// Row counts that are measured; others lie between. 16 and 32 rows are steps of the
/// kernels' tiles.
const ROWS: [usize; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
/// Forwards of each: the least counts, as what disturbs a forward only ever adds to it.
const REPEAT: usize = 5;
/// Tokens in the cache meanwhile.
const CONTEXT: usize = 128;
/// Of the file.
const VERSION: u32 = 1;

/// Milliseconds of a forward, by rows.
pub(crate) type Costs = Vec<(usize, f64)>;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    key: String,
    milliseconds: Costs,
}

/// T(n) as `home` has it for `key`, or measured and kept there.
pub(crate) fn of<L: CausalLm>(
    home: Option<&Path>,
    key: &str,
    lm: &mut L,
) -> Result<Costs, LmError> {
    let path = home.map(|home| path(home, key));
    if let Some(costs) = path.as_deref().and_then(|path| read(path, key)) {
        return Ok(costs);
    }
    let milliseconds = time(lm)?;
    let record = Record { version: VERSION, key: key.to_owned(), milliseconds };
    if let Some(path) = path {
        // Not kept, not fatal.
        let _ = write(&path, &record);
    }
    Ok(record.milliseconds)
}

fn path(home: &Path, key: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    home.join("costs").join(format!("{:016x}.json", hasher.finish()))
}

fn read(path: &Path, key: &str) -> Option<Costs> {
    let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let good = |&(rows, time): &(usize, f64)| rows > 0 && time.is_finite() && time > 0.0;
    let usable = record.version == VERSION
        && record.key == key
        && record.milliseconds.first().is_some_and(|&(rows, _)| rows == 1)
        && record.milliseconds.iter().all(good)
        && record.milliseconds.is_sorted_by(|a, b| a.0 < b.0);
    usable.then_some(record.milliseconds)
}

fn write(path: &Path, record: &Record) -> anyhow::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let tag = std::process::id().to_string();
    whole::write(path, &tag, |file| Ok(file.write_all(&serde_json::to_vec(record)?)?))
}

/// Measures. A forward of more rows never counts as cheaper than one of fewer: it could
/// have had the fewer rows.
fn time<L: CausalLm>(lm: &mut L) -> Result<Costs, LmError> {
    let context = CONTEXT.min(lm.context_length() / 2);
    let rows: Vec<usize> =
        ROWS.into_iter().filter(|rows| context + rows <= lm.context_length()).collect();
    let shape = Shape { context, sequences: 1, all_rows: true };
    let times = measure(&mut [Bench::new(lm, shape)?], &rows, REPEAT)?;
    let mut least: f64 = 0.0;
    let times = times[0].iter().map(|times| {
        let time = times.iter().min().map_or(0.0, |time| time.as_secs_f64() * 1e3);
        least = least.max(time);
        least
    });
    Ok(rows.into_iter().zip(times).collect())
}

#[cfg(test)]
mod tests {
    use cllm_decode::fake::{Fake, Kind};

    use super::*;

    #[test]
    fn costs_are_measured_once_for_each_key() {
        let home = tempfile::tempdir().unwrap();
        let mut lm = Fake::new(Kind::Constant(1), 7, 512);
        let mut ask = |home, key: &str| {
            let before = lm.forwards;
            let costs = of(home, key, &mut lm).unwrap();
            assert_eq!(costs.iter().map(|c| c.0).collect::<Vec<_>>(), ROWS);
            assert!(costs.is_sorted_by(|a, b| a.1 <= b.1));
            lm.forwards > before
        };
        assert!(ask(Some(home.path()), "a"));
        assert!(!ask(Some(home.path()), "a"));
        assert!(ask(Some(home.path()), "b"));
        assert!(ask(None, "a"), "without a folder it is measured every time");
        // A broken file, and a folder that cannot be made.
        fs::write(path(home.path(), "a"), "{\"version\": 1").unwrap();
        assert!(ask(Some(home.path()), "a"));
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(ask(Some(&file), "a"));
    }

    #[test]
    fn a_short_context_is_measured_as_far_as_it_goes() {
        let mut lm = Fake::new(Kind::Constant(1), 7, 12);
        let costs = of(None, "", &mut lm).unwrap();
        assert_eq!(costs.last().map(|c| c.0), Some(6));
    }
}
