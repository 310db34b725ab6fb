//! When a run has collapsed.
//!
//! Consistency training has a bad end: a model that says one token for ever settles all of
//! it at once. It shows in held-out answers, as repetition, and often in the loss, which
//! climbs or stops being a number. A single long or strange batch does not count: the median
//! of the last 5 losses is compared with the median of the 100 before.

/// Losses that have to be high.
const LATEST: usize = 5;
/// Losses they are compared with.
const BEFORE: usize = 100;
/// Fewest losses to compare with.
const FEWEST: usize = 20;

/// Adds the loss of a step to the recent ones; what is wrong, if something is. `most` is how
/// many times higher the loss may get, 0 for no limit.
pub fn watch(recent: &mut Vec<f64>, loss: f64, grad_norm: f64, most: f64) -> Option<String> {
    if !loss.is_finite() || !grad_norm.is_finite() {
        return Some(format!("the loss is {loss}, the gradient's norm {grad_norm}"));
    }
    recent.push(loss);
    if recent.len() > LATEST + BEFORE {
        recent.remove(0);
    }
    let (before, latest) = recent.split_at(recent.len().saturating_sub(LATEST));
    if most == 0.0 || before.len() < FEWEST {
        return None;
    }
    let (before, latest) = (median(before), median(latest));
    (latest > most * before)
        .then(|| format!("the loss rose from {before:.3} to {latest:.3}, more than {most} times"))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rise_that_stays_is_a_collapse_and_one_bad_batch_is_not() {
        let mut recent = Vec::new();
        for i in 0..300 {
            let loss = if i % 10 == 0 { 50.0 } else { 2.0 };
            assert_eq!(watch(&mut recent, loss, 1.0, 3.0), None, "{i}");
        }
        assert_eq!(recent.len(), LATEST + BEFORE);
        let verdicts: Vec<_> = (0..3).map(|_| watch(&mut recent, 7.0, 1.0, 3.0)).collect();
        assert!(verdicts[1].is_none());
        assert!(verdicts[2].as_ref().is_some_and(|what| what.contains("from 2.000 to 7.000")));
        assert_eq!(watch(&mut recent, 9.0, 1.0, 0.0), None, "no limit");
    }

    #[test]
    fn what_is_no_number_is_a_collapse_at_once() {
        assert!(watch(&mut Vec::new(), f64::NAN, 1.0, 0.0).is_some());
        assert!(watch(&mut Vec::new(), 1.0, f64::INFINITY, 3.0).is_some());
    }
}
