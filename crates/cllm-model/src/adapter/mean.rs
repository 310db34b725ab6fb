//! The weighted mean of adapters.

use super::{Adapter, LoraPair};
use crate::error::ModelError;

/// How far weights may be from a sum of 1: they are typed by people.
const SLACK: f64 = 1e-6;

impl Adapter {
    /// The weighted mean of adapters, of their factors: `A = sum w_i A_i`, `B = sum w_i B_i`.
    /// Weights are finite and add up to 1.
    ///
    /// It is meant for adapters of which one was trained from the other, or all from the
    /// same one: between such models weights can be averaged, and a mean of a model and the
    /// one it was trained from is often better than either at what the first has forgotten (WiSE-FT,
    /// Wortsman et al. 2021). Adapters with another beginning have other factors for the same
    /// update, and their mean means nothing.
    ///
    /// # Errors
    /// No adapter; weights that do not add up to 1; adapters with other modules, shapes or scales
    /// than the first's.
    pub fn mean(parts: &[(f64, Self)]) -> Result<Self, ModelError> {
        let Some(((_, first), _)) = parts.split_first() else {
            return Err(ModelError::Text("a mean of no adapters: expected at least one".into()));
        };
        let sum: f64 = parts.iter().map(|part| part.0).sum();
        if sum.is_nan() || (sum - 1.0).abs() > SLACK {
            let what = format!("weights of adapters: expected a sum of 1, found {sum}");
            return Err(ModelError::Text(what));
        }
        for (_, other) in parts {
            alike(first, other).map_err(|what| ModelError::Unsupported {
                path: other.path.clone(),
                what: format!("{what} ({}): no mean of the two", first.path.display()),
            })?;
        }
        let mean = |k: usize, factor: fn(&LoraPair) -> &[f32]| {
            let mut sums = vec![0.0; factor(&first.pairs[k]).len()];
            for (weight, part) in parts {
                let values = factor(&part.pairs[k]).iter();
                sums.iter_mut().zip(values).for_each(|(sum, &v)| *sum += weight * f64::from(v));
            }
            sums.into_iter().map(|sum| sum as f32).collect()
        };
        let pairs = first.pairs.iter().enumerate().map(|(k, pair)| LoraPair {
            a: mean(k, |pair| &pair.a),
            b: mean(k, |pair| &pair.b),
            module: pair.module.clone(),
            ..*pair
        });
        Self::new(first.config.clone(), pairs.collect())
    }
}

/// Whether factors of two adapters stand for each other's.
fn alike(first: &Adapter, other: &Adapter) -> Result<(), String> {
    let modules = |adapter: &Adapter| adapter.pairs.len();
    if modules(first) != modules(other) {
        return Err(format!("has {} modules, the first {}", modules(other), modules(first)));
    }
    for (a, b) in first.pairs.iter().zip(&other.pairs) {
        if a.module != b.module {
            return Err(format!("has an update of {}, the first of {}", b.module, a.module));
        }
        let shape = |pair: &LoraPair| (pair.outputs, pair.inputs, pair.rank);
        if shape(a) != shape(b) {
            let what = "(out, in, r)";
            let (a, b, module) = (shape(a), shape(b), &a.module);
            return Err(format!("{module}: {what} {b:?}, the first {a:?}"));
        }
        let scale = |adapter: &Adapter| adapter.config.scale(&a.module);
        if scale(first) != scale(other) {
            let (first, other) = (scale(first), scale(other));
            return Err(format!("{}: scale {other}, the first {first}", a.module));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::LoraConfig;

    fn adapter(alpha: f64, module: &str, a: [f32; 2], b: [f32; 3]) -> Adapter {
        let config = LoraConfig { r: 1, lora_alpha: alpha, ..LoraConfig::default() };
        let (a, b, module) = (a.to_vec(), b.to_vec(), module.to_owned());
        let pair = LoraPair { module, rank: 1, inputs: 2, outputs: 3, a, b };
        Adapter::new(config, vec![pair]).unwrap()
    }

    #[test]
    fn factors_are_averaged() {
        let one = adapter(2.0, "q_proj", [1.0, 2.0], [0.0, 4.0, -8.0]);
        let two = adapter(2.0, "q_proj", [5.0, 2.0], [8.0, 0.0, 8.0]);
        let mean = Adapter::mean(&[(0.75, one.clone()), (0.25, two)]).unwrap();
        assert_eq!(mean.pairs()[0].a, [2.0, 2.0]);
        assert_eq!(mean.pairs()[0].b, [2.0, 3.0, -4.0]);
        assert_eq!(mean.config(), one.config());
        // Of one it is the same.
        assert_eq!(Adapter::mean(&[(1.0, one.clone())]).unwrap().pairs(), one.pairs());
    }

    #[test]
    fn what_has_no_mean_is_refused() {
        let one = adapter(2.0, "q_proj", [1.0, 2.0], [0.0, 4.0, -8.0]);
        let refuses = |parts: &[(f64, Adapter)], what: &str| {
            let error = Adapter::mean(parts).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        refuses(&[], "at least one");
        refuses(&[(0.9, one.clone())], "sum of 1, found 0.9");
        refuses(&[(f64::NAN, one.clone())], "sum of 1");
        let other = |alpha, module| adapter(alpha, module, [0.0; 2], [0.0; 3]);
        refuses(&[(0.5, one.clone()), (0.5, other(4.0, "q_proj"))], "scale 4, the first 2");
        refuses(&[(0.5, one.clone()), (0.5, other(2.0, "v_proj"))], "v_proj, the first of q_proj");
        let mut short = one.clone();
        short.pairs.clear();
        refuses(&[(0.5, one), (0.5, short)], "0 modules, the first 1");
    }
}
