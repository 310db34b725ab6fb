//! What forwards of one sequence cost on this machine: T(n), for the decoder that chooses
//! its own block length.
//!
//! Measured once for a machine, a model and a way of computing it, and kept in a small file
//! under `CLLM_HOME/costs`; so a load costs it nothing but the first time, and then well
//! under a second. The file is only a saving: whatever is wrong with it, or with the folder,
//! T(n) is measured again.
//!
//! A machine that is busy with something else says nonsense, and would go on saying it from the
//! file. So what is measured must look like a quiet machine's ([`calm`]): if it never does,
//! it is the best there is for this load, and the next one measures anew.
//!
//! The context is short, as attention is a small part of a forward until a context is
//! thousands of tokens long, and grows for one row and for n alike.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cllm_decode::{CausalLm, LmError};
use serde::{Deserialize, Serialize};

use crate::collect::whole;
use crate::stopwatch::{Bench, Shape, measure};

/// Row counts that are measured; others lie between. 16 and 32 rows are steps of the
/// kernels' tiles.
const ROWS: [usize; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
/// Forwards of each: the least counts, as what disturbs a forward only ever adds to it.
const REPEAT: usize = 5;
/// Measurements of all of them, at most, until one is calm.
const TRIES: usize = 3;
/// Of a calm machine: by how much of the least of its times the middle one exceeds it, at most, or
/// by how many milliseconds.
const SPREAD: (f64, f64) = (0.3, 0.1);
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

/// T(n) as `home` has it for `key`, or measured and, if the machine was calm, kept there.
pub(crate) fn of<L: CausalLm>(
    home: Option<&Path>,
    key: &str,
    lm: &mut L,
) -> Result<Costs, LmError> {
    kept(home, key, || time(lm))
}

/// The same with `time`, which says T(n) and whether it may be kept.
fn kept<E>(
    home: Option<&Path>,
    key: &str,
    time: impl FnOnce() -> Result<(Costs, bool), E>,
) -> Result<Costs, E> {
    let path = home.map(|home| path(home, key));
    if let Some(costs) = path.as_deref().and_then(|path| read(path, key)) {
        return Ok(costs);
    }
    let (milliseconds, calm) = time()?;
    let record = Record { version: VERSION, key: key.to_owned(), milliseconds };
    if let Some(path) = path.filter(|_| calm) {
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

/// Measures until the machine was calm, and says whether it was. A forward of more rows never
/// counts as cheaper than one of fewer: it could have had the fewer rows.
fn time<L: CausalLm>(lm: &mut L) -> Result<(Costs, bool), LmError> {
    let context = CONTEXT.min(lm.context_length() / 2);
    let rows: Vec<usize> =
        ROWS.into_iter().filter(|rows| context + rows <= lm.context_length()).collect();
    let shape = Shape { context, sequences: 1, all_rows: true };
    let mut bench = [Bench::new(lm, shape)?];
    let mut costs: Costs = rows.iter().map(|&rows| (rows, f64::INFINITY)).collect();
    for _ in 0..TRIES {
        let measured = measure(&mut bench, &rows, REPEAT)?;
        let mut times = milliseconds(&measured[0]);
        let calm = calm(&rows, &mut times);
        let mut most: f64 = 0.0;
        for ((_, cost), times) in costs.iter_mut().zip(&times) {
            *cost = times.iter().fold(*cost, |a, &b| a.min(b)).max(most);
            most = *cost;
        }
        if calm {
            return Ok((costs, true));
        }
    }
    Ok((costs, false))
}

fn milliseconds(times: &[Vec<Duration>]) -> Vec<Vec<f64>> {
    let of = |times: &Vec<Duration>| times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    times.iter().map(of).collect()
}

/// Whether the times of forwards of so many rows are those of a machine that does nothing else:
/// most of each row count's are near the least, and n rows cost no more than n forwards of one.
/// Sorts them.
fn calm(rows: &[usize], times: &mut [Vec<f64>]) -> bool {
    let (share, slack) = SPREAD;
    let near = |least: f64, time: f64| time <= least + (share * least).max(slack);
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    let one = times[0][0];
    let mut each = rows.iter().zip(times);
    each.all(|(&rows, t)| near(t[0], t[t.len() / 2]) && near(rows as f64 * one, t[0]))
}

#[cfg(test)]
mod tests {
    use cllm_decode::fake::{Fake, Kind};

    use super::*;

    #[test]
    fn calm_costs_are_measured_once_for_each_key() {
        let home = tempfile::tempdir().unwrap();
        let ask = |home, key: &str, calm| {
            let mut measured = false;
            let costs = kept::<LmError>(home, key, || {
                measured = true;
                Ok((vec![(1, 2.0), (8, 3.5)], calm))
            });
            assert_eq!(costs.unwrap(), [(1, 2.0), (8, 3.5)]);
            measured
        };
        assert!(ask(Some(home.path()), "a", true));
        assert!(!ask(Some(home.path()), "a", true));
        assert!(ask(Some(home.path()), "b", false));
        assert!(ask(Some(home.path()), "b", true), "what a busy machine said is not kept");
        assert!(!ask(Some(home.path()), "b", true));
        assert!(ask(None, "a", true), "without a folder it is measured every time");
        // A broken file, and a folder that cannot be made.
        fs::write(path(home.path(), "a"), "{\"version\": 1").unwrap();
        assert!(ask(Some(home.path()), "a", true));
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(ask(Some(&file), "a", true));
    }

    #[test]
    fn a_busy_machine_is_not_calm() {
        let calm = |times: [[f64; 5]; 3]| calm(&[1, 2, 8], &mut times.map(Vec::from));
        assert!(calm([[4.0, 4.1, 9.0, 4.2, 8.0], [4.3; 5], [6.0; 5]]), "two of five disturbed");
        assert!(!calm([[4.0, 4.1, 9.0, 5.9, 8.0], [4.3; 5], [6.0; 5]]), "three of five");
        assert!(!calm([[4.0; 5], [11.0; 5], [12.0; 5]]), "two rows for more than two of one");
        assert!(calm([[0.01, 0.02, 0.03, 0.04, 0.05], [0.03; 5], [0.1; 5]]), "too short to tell");
    }

    #[test]
    fn costs_rise_with_the_rows() {
        let (costs, _) = time(&mut Fake::new(Kind::Constant(1), 7, 512)).unwrap();
        assert_eq!(costs.iter().map(|c| c.0).collect::<Vec<_>>(), ROWS);
        assert!(costs.is_sorted_by(|a, b| a.1 <= b.1));
    }

    #[test]
    fn a_short_context_is_measured_as_far_as_it_goes() {
        let mut lm = Fake::new(Kind::Constant(1), 7, 12);
        let costs = of(None, "", &mut lm).unwrap();
        assert_eq!(costs.last().map(|c| c.0), Some(6));
    }
}
