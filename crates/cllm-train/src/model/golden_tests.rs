//! Losses and every gradient against PyTorch (`goldens/training.py`), whose forwards are
//! plain causal ones: packing, masks and gradients are checked at once.

use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use cllm_decode::Token;
use cllm_kernels::Format;
use cllm_model::Checkpoint;
use safetensors::SafeTensors;
use serde_json::Value;

use super::{LoraConfig, Place, Trainable, Trainer, TrainerConfig};
use crate::learner::{AdamW, Learner, NamedTensor};
use crate::packed::{Packed, RowTarget, TokenTarget};

struct Case {
    name: String,
    facts: Value,
    tensors: Vec<NamedTensor>,
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens")
}

fn cases() -> Vec<Case> {
    let folder = goldens().join("training");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let facts: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let bytes = std::fs::read(path.with_extension("safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let named = |(name, view): (String, safetensors::tensor::TensorView<'_>)| NamedTensor {
            name,
            shape: view.shape().to_vec(),
            data: view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        };
        let tensors = file.tensors().into_iter().map(named).collect();
        let name = facts["name"].as_str().unwrap().to_owned();
        cases.push(Case { name, facts, tensors });
    }
    assert!(cases.len() >= 11, "{} cases in {}", cases.len(), folder.display());
    cases
}

fn numbers(value: &Value) -> Vec<Token> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as Token).collect()
}

impl Case {
    fn text(&self, key: &str) -> &str {
        self.facts[key].as_str().unwrap()
    }

    fn number(&self, key: &str) -> f64 {
        self.facts[key].as_f64().unwrap()
    }

    fn dropout(&self) -> f64 {
        self.facts["dropout"].as_f64().unwrap_or(0.0)
    }

    /// The case as one forward.
    fn packed(&self) -> Packed {
        let facts = &self.facts;
        let (prompt, answer) = (numbers(&facts["prompt"]), numbers(&facts["answer"]));
        let n = facts["block"].as_u64().unwrap() as usize;
        let history = facts["noisy_history"].as_bool().unwrap();
        let mut packed = Packed::default();
        let p = packed.push(&prompt, 0, &[]);
        let clean = packed.push(&answer, p.len(), std::slice::from_ref(&p));
        // The row before each token of the answer.
        let before = |i: usize| if i == 0 { p.end - 1 } else { clean.start + i - 1 };
        packed.tokens_scored = (0..answer.len())
            .map(|i| TokenTarget {
                row: before(i),
                token: answer[i],
                weight: (self.number("ar_weight") / answer.len() as f64) as f32,
            })
            .collect();
        if self.text("objective") == "ar" {
            return packed;
        }
        let later = facts["later"].as_array().unwrap();
        let mut past: Vec<Range<usize>> = Vec::new();
        for (b, state) in facts["states"].as_array().unwrap().iter().enumerate() {
            let (state, settled) = (numbers(state), &answer[b * n..][..n]);
            let wrong = (0..n).find(|&i| state[i] != settled[i]).unwrap();
            let mut sees = vec![p.clone()];
            match history {
                true => sees.extend(past.iter().cloned()),
                false => sees.push(clean.start..clean.start + b * n),
            }
            let student = packed.push(&state, p.len() + b * n, &sees);
            past.push(student.clone());
            let teacher = match self.text("objective") {
                "local" => packed.push(&numbers(&later[b]), p.len() + b * n, &sees).start,
                _ => clean.start + b * n,
            };
            packed.rows_scored.extend((wrong + 1..n).map(|i| RowTarget {
                student: student.start + i - 1,
                teacher: teacher + i - 1,
                weight: 0.0,
            }));
        }
        let count = packed.rows_scored.len() as f64;
        for target in &mut packed.rows_scored {
            target.weight = (self.number("consistency_weight") / count) as f32;
        }
        packed
    }

    fn trainer(&self, gradient_checkpointing: bool, kernels: Option<Format>) -> Trainer {
        self.trainer_on(&Place { device: Device::flex(), kernels }, gradient_checkpointing)
    }

    fn trainer_on(&self, place: &Place, gradient_checkpointing: bool) -> Trainer {
        let checkpoint =
            Checkpoint::open(&goldens().join("models").join(self.text("model"))).unwrap();
        let config = checkpoint.config().unwrap();
        let trainable = match self.facts["lora"].as_array() {
            None => Trainable::Full,
            Some(targets) => Trainable::Lora(LoraConfig {
                r: self.facts["r"].as_u64().unwrap() as usize,
                alpha: self.number("alpha"),
                dropout: self.dropout(),
                target_modules: targets.iter().map(|t| t.as_str().unwrap().into()).collect(),
                seed: 1,
            }),
        };
        let source = |name: &str| checkpoint.tensor_f32(&config, name).map_err(|e| e.to_string());
        let settings = TrainerConfig {
            trainable,
            optimizer: AdamW { beta1: 0.8, beta2: 0.95, epsilon: 1e-6, weight_decay: 0.1 },
            gradient_checkpointing,
            kernels: place.kernels,
            seed: 0,
        };
        let mut trainer = Trainer::new(&config, &source, settings, &place.device).unwrap();
        let values: Vec<NamedTensor> = self
            .tensors
            .iter()
            .filter_map(|t| {
                let name = t.name.strip_prefix("value.")?;
                Some(NamedTensor { name: name.into(), ..t.clone() })
            })
            .collect();
        if !values.is_empty() {
            trainer.restore(&values, &[]).unwrap();
        }
        trainer
    }
}

/// The largest difference, in units of the expected values' root mean square.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let square: f32 = expected.iter().map(|x| x * x).sum();
    let scale = (square / expected.len() as f32).sqrt();
    found.iter().zip(expected).map(|(a, b)| (a - b).abs() / scale).fold(0.0, f32::max)
}

/// The root mean square of the differences, in the same units.
fn spread(found: &[f32], expected: &[f32]) -> f32 {
    let square: f32 = expected.iter().map(|x| x * x).sum();
    let off: f32 = found.iter().zip(expected).map(|(a, b)| (a - b) * (a - b)).sum();
    (off / square).sqrt()
}

fn check(case: &Case, gradient_checkpointing: bool, kernels: Option<Format>) {
    check_on(case, &Place { device: Device::flex(), kernels }, gradient_checkpointing);
}

fn check_on(case: &Case, place: &Place, gradient_checkpointing: bool) {
    // Weights, activations and gradients of frozen layers rounded to 8 bits.
    let rounded = matches!(place.kernels, Some(Format::Bf16 | Format::W8));
    let (loss_tolerance, tolerance) = if rounded { (2e-2, 0.3) } else { (1e-4, 2e-3) };
    let name = &case.name;
    let mut trainer = case.trainer_on(place, gradient_checkpointing);
    let packed = case.packed();
    let evaluated = trainer.evaluate(&packed).unwrap();
    let losses = trainer.accumulate(&packed).unwrap();
    // An evaluation drops nothing.
    let same = (losses.total() - evaluated.total()).abs() < 1e-4;
    assert_eq!(same, case.dropout() == 0.0, "{name}: {losses:?} {evaluated:?}");
    for (found, key) in [(losses.tokens, "ar_loss"), (losses.rows, "consistency_loss")] {
        let expected = case.number(key);
        assert!(
            (found - expected).abs() < loss_tolerance * expected.max(1.0),
            "{name}: {key} {found}"
        );
    }
    let expected: Vec<_> = case.tensors.iter().filter(|t| plain(&t.name)).collect();
    let found = trainer.gradients();
    // All that is trained has a gradient, and nothing else is.
    assert_eq!(found.len(), expected.len(), "{name}");
    for (tensor, gradient) in found {
        let gradient = gradient.unwrap_or_else(|| panic!("{name}: {tensor} has no gradient"));
        let expected = expected.iter().find(|t| t.name == tensor).expect(&tensor);
        // With 8 bits and a scale per group single numbers may be far off; most are not.
        let (worst, tolerance) = match place.kernels {
            Some(Format::W8) => (spread(&gradient, &expected.data), 0.25),
            _ => (difference(&gradient, &expected.data), tolerance),
        };
        assert!(worst < tolerance, "{name}: {tensor} differs by {worst} of its size");
    }
}

#[test]
fn losses_and_gradients_are_pytorchs() {
    cases().iter().for_each(|case| check(case, false, None));
}

#[test]
fn our_kernels_give_the_same() {
    for format in [Format::F32, Format::Bf16, Format::W8] {
        // Dropout lies outside the kernels, and scales up what 8 bits round.
        let cases =
            cases().into_iter().filter(|case| case.dropout() == 0.0 || format == Format::F32);
        cases.for_each(|case| check(&case, false, Some(format)));
    }
}

/// On a graphics driver that computes on the CPU, such as Mesa's lavapipe.
#[cfg(feature = "wgpu")]
#[test]
fn a_gpu_backend_gives_the_same() {
    match super::Place::named("wgpu:cpu", Format::F32) {
        Ok(place) => cases().iter().for_each(|case| check_on(case, &place, false)),
        Err(what) => println!("skipped: {what}"),
    }
}

#[test]
fn recomputing_blocks_changes_no_gradient() {
    cases().iter().for_each(|case| check(case, true, None));
}

/// Whether a golden tensor is a gradient.
fn plain(name: &str) -> bool {
    !name.starts_with("value.") && !name.starts_with("stepped.")
}

/// Three steps of AdamW with clipping and decay, learning rates and norms as in
/// `goldens/training.py`.
#[test]
fn optimizer_steps_are_pytorchs() {
    let mut checked = 0;
    for case in cases().iter().filter(|case| !case.facts["lora"].is_null()) {
        for kernels in [None, Some(Format::F32)] {
            let mut trainer = case.trainer(false, kernels);
            let gradients =
                case.tensors.iter().filter(|t| plain(&t.name)).cloned().collect::<Vec<_>>();
            for (lr, norm) in [(0.02, 1.0), (0.03, 0.5), (0.01, 100.0)] {
                trainer.set_gradients(&gradients);
                trainer.step(lr, Some(norm));
            }
            for found in trainer.parameters() {
                let name = format!("stepped.{}", found.name);
                let expected = case.tensors.iter().find(|t| t.name == name).expect("a golden");
                let before =
                    case.tensors.iter().find(|t| t.name == format!("value.{}", found.name));
                let moved = difference(&before.expect("a golden").data, &expected.data);
                let worst = difference(&found.data, &expected.data);
                assert!(moved > 0.05 && worst < 1e-4, "{name}: {worst} (moved {moved})");
                checked += 1;
            }
        }
    }
    assert!(checked > 100);
}

/// Two examples in one forward give the sum of what they give alone.
#[test]
fn packed_examples_do_not_see_each_other() {
    // What is dropped depends on a row's place in the forward.
    for case in cases().into_iter().filter(|case| case.dropout() == 0.0) {
        let one = case.packed();
        let mut two = one.clone();
        let shift = one.len();
        for s in &one.segments {
            let moved = |r: &Range<usize>| r.start + shift..r.end + shift;
            let sees: Vec<_> = s.sees.iter().map(moved).collect();
            two.push(&one.tokens[s.rows.clone()], one.positions[s.rows.start], &sees);
        }
        let token = |t: &TokenTarget| TokenTarget { row: t.row + shift, ..*t };
        two.tokens_scored.extend(one.tokens_scored.iter().map(token));
        let row = |t: &RowTarget| RowTarget {
            student: t.student + shift,
            teacher: t.teacher + shift,
            ..*t
        };
        two.rows_scored.extend(one.rows_scored.iter().map(row));
        let mut trainer = case.trainer(false, None);
        let alone = trainer.accumulate(&one).unwrap();
        trainer.accumulate(&one).unwrap();
        let twice = trainer.gradients();
        let mut trainer = case.trainer(false, None);
        let together = trainer.accumulate(&two).unwrap();
        assert!((together.total() - 2.0 * alone.total()).abs() < 1e-3);
        for ((name, a), (_, b)) in twice.into_iter().zip(trainer.gradients()) {
            let worst = difference(&b.unwrap(), &a.unwrap());
            assert!(worst < 2e-3, "{}: {name} differs by {worst}", case.name);
        }
    }
}
