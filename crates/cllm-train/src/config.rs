//! The settings of a run, by the names that transformers, PEFT and TRL have for them.
//!
//! A YAML file of `key: value` lines, and the same keys from the command line on top of it.
//! An unknown key is an error that names the nearest known one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::TrainError;
use crate::data::weigh::Coefficients;
use crate::data::{ArAnswers, BatchSize, Batches, Consistency, History, NoiseSchedule, Packing};
use crate::learner::AdamW;
use crate::model::LINEAR_MODULES;
use crate::schedule::Schedule;

mod check;
#[cfg(test)]
mod tests;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),* }
    };
}

words! {
    /// Which parameters are trained.
    FinetuningType {
        /// Low-rank adapters on the frozen model.
        Lora,
        /// All of the model's.
        Full,
    }
}
words! {
    /// `adapter_dtype`: torch's names.
    AdapterDtype {
        /// As trained.
        Float32,
        /// IEEE half precision.
        Float16,
        /// The upper half of a float32.
        Bfloat16,
    }
}
words! {
    /// `frozen_compute`: how frozen weights are stored and multiplied, forward and backward.
    FrozenCompute {
        /// Unrounded.
        F32,
        /// Weights, activations and gradients in bf16, sums in f32.
        Bf16,
        /// All three in 8 bits with a scale per row and 32 elements, as SwitchBack has them
        /// (Wortsman et al. 2023) but with finer scales.
        W8,
    }
}
words! {
    /// `noise_schedule`.
    Noise {
        /// Uniform over the states before y*.
        Uniform,
        /// From little noise to much over `noise_window` blocks.
        Progressive,
    }
}
words! {
    /// `noise_history`.
    NoiseHistory {
        /// Noisy blocks see the clean answer.
        Clean,
        /// Noisy blocks see noisy blocks.
        Noisy,
    }
}
words! {
    /// `consistency`.
    Teacher {
        /// The fixed point.
        Global,
        /// The next state.
        Local,
    }
}
words! {
    /// `ar_answers`.
    Answers {
        /// The teacher's answer.
        Teacher,
        /// The data's own answer.
        Reference,
        /// The data's own answer, and the teacher's from where it goes another way.
        Both,
    }
}
words! {
    /// `metric_for_best_model`.
    Metric {
        /// Loss on held-out examples; lower is better.
        EvalLoss,
        /// Tokens settled a forward on held-out prompts; higher is better.
        MeanAcceptanceLength,
    }
}

/// The settings. `0` switches off what is counted in steps, and limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of transformers; docs/train.md has a table")]
pub struct Config {
    pub output_dir: String,
    pub seed: u64,
    pub num_train_epochs: f64,
    pub max_steps: i64,
    pub per_device_train_batch_size: usize,
    pub max_rows_per_forward: usize,
    pub gradient_accumulation_steps: usize,
    pub max_length: usize,
    pub prompts_per_prefix: usize,
    pub learning_rate: f64,
    pub lr_scheduler_type: Schedule,
    pub warmup_ratio: f64,
    pub warmup_steps: u64,
    pub weight_decay: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    pub max_grad_norm: f64,
    pub logging_steps: u64,
    pub eval_prompts: usize,
    pub eval_max_new_tokens: usize,
    pub eval_block: usize,
    pub eval_steps: u64,
    pub save_steps: u64,
    pub save_total_limit: usize,
    pub metric_for_best_model: Metric,
    pub finetuning_type: FinetuningType,
    pub lora_r: usize,
    pub lora_alpha: f64,
    pub lora_dropout: f64,
    pub lora_target_modules: Vec<String>,
    pub adapter_dtype: AdapterDtype,
    pub device: String,
    pub frozen_compute: FrozenCompute,
    pub gradient_checkpointing: bool,
    pub consistency_weight: f64,
    pub ar_weight: f64,
    pub ar_answers: Answers,
    pub consistency: Teacher,
    pub noise_schedule: Noise,
    pub noise_window: usize,
    pub noise_history: NoiseHistory,
    pub noisy_copies: usize,
    pub augmented_share: f64,
    pub max_loss_ratio: f64,
    pub max_repetition_rate: f64,
}

impl Default for Config {
    fn default() -> Self {
        let adam = AdamW::default();
        Self {
            output_dir: String::new(),
            seed: 42,
            num_train_epochs: 1.0,
            max_steps: -1,
            per_device_train_batch_size: 0,
            max_rows_per_forward: 2048,
            gradient_accumulation_steps: 1,
            max_length: 2048,
            prompts_per_prefix: 8,
            learning_rate: 1e-4,
            lr_scheduler_type: Schedule::Cosine,
            warmup_ratio: 0.03,
            warmup_steps: 0,
            weight_decay: adam.weight_decay,
            adam_beta1: adam.beta1,
            adam_beta2: adam.beta2,
            adam_epsilon: adam.epsilon,
            max_grad_norm: 1.0,
            logging_steps: 1,
            eval_prompts: 16,
            eval_max_new_tokens: 256,
            eval_block: 16,
            eval_steps: 100,
            save_steps: 100,
            save_total_limit: 3,
            metric_for_best_model: Metric::EvalLoss,
            finetuning_type: FinetuningType::Lora,
            lora_r: 16,
            lora_alpha: 32.0,
            lora_dropout: 0.0,
            lora_target_modules: LINEAR_MODULES.map(str::to_owned).into(),
            adapter_dtype: AdapterDtype::Float32,
            device: "cpu".into(),
            frozen_compute: FrozenCompute::Bf16,
            gradient_checkpointing: false,
            consistency_weight: 1.0,
            ar_weight: 1.0,
            ar_answers: Answers::Teacher,
            consistency: Teacher::Global,
            noise_schedule: Noise::Uniform,
            noise_window: 4,
            noise_history: NoiseHistory::Clean,
            noisy_copies: 1,
            augmented_share: 0.0,
            max_loss_ratio: 3.0,
            max_repetition_rate: 0.5,
        }
    }
}

/// The keys of a YAML document.
///
/// # Errors
/// Text that is no YAML mapping.
pub fn parse_yaml(text: &str) -> Result<Map<String, Value>, TrainError> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Map::new());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let what = error.to_string();
        let first = what.lines().next().unwrap_or_default();
        TrainError::BadInput(format!("expected `key: value` lines of YAML: {first}"))
    })
}

impl Config {
    /// Settings from layers of keys, later ones on top, each with the name it has for the
    /// user.
    ///
    /// # Errors
    /// An unknown key, a value of another type, or one out of range.
    pub fn from_layers(layers: &[(&str, Map<String, Value>)]) -> Result<Self, TrainError> {
        let defaults = Self::default().keys();
        let mut all = defaults.clone();
        for (origin, layer) in layers {
            let bad = |key: &str, what: String| {
                TrainError::BadInput(format!("{origin}: `{key}`: {what}"))
            };
            for (key, value) in layer {
                if !defaults.contains_key(key) {
                    return Err(bad(key, format!("unknown key{}", nearest(key, &defaults))));
                }
                // One key at a time, for a message that names it.
                let mut one = defaults.clone();
                one.insert(key.clone(), value.clone());
                serde_json::from_value::<Self>(Value::Object(one))
                    .map_err(|error| bad(key, error.to_string()))?;
                all.insert(key.clone(), value.clone());
            }
        }
        let config: Self = serde_json::from_value(Value::Object(all))
            .map_err(|error| TrainError::BadInput(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// All keys with their values.
    #[must_use]
    pub fn keys(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(keys)) => keys,
            _ => Map::new(),
        }
    }

    /// The optimizer's settings.
    #[must_use]
    pub fn adam(&self) -> AdamW {
        AdamW {
            beta1: self.adam_beta1,
            beta2: self.adam_beta2,
            epsilon: self.adam_epsilon,
            weight_decay: self.weight_decay,
        }
    }

    /// The coefficients of the losses.
    #[must_use]
    pub fn coefficients(&self) -> Coefficients {
        Coefficients { consistency: self.consistency_weight, ar: self.ar_weight }
    }

    /// How examples become forwards.
    #[must_use]
    pub fn batches(&self) -> Batches {
        let answers = match self.ar_answers {
            Answers::Teacher => ArAnswers::Teacher,
            Answers::Reference => ArAnswers::Data,
            Answers::Both => ArAnswers::Both,
        };
        let packing = Packing {
            seed: self.seed,
            noisy_copies: if self.consistency_weight > 0.0 { self.noisy_copies } else { 0 },
            noise: match self.noise_schedule {
                Noise::Uniform => NoiseSchedule::Uniform,
                Noise::Progressive => NoiseSchedule::Progressive { window: self.noise_window },
            },
            augmented_share: self.augmented_share,
            history: match self.noise_history {
                NoiseHistory::Clean => History::Clean,
                NoiseHistory::Noisy => History::Noisy,
            },
            consistency: match self.consistency {
                Teacher::Global => Consistency::Global,
                Teacher::Local => Consistency::Local,
            },
            ar: (self.ar_weight > 0.0).then_some(answers),
        };
        let size = match self.per_device_train_batch_size {
            0 => BatchSize::Rows(self.max_rows_per_forward),
            examples => BatchSize::Examples(examples),
        };
        Batches { packing, size, bundle: self.prompts_per_prefix }
    }
}

/// `; did you mean ...?`, if a known key is near.
fn nearest(key: &str, known: &Map<String, Value>) -> String {
    let distance = |other: &String| strsim::damerau_levenshtein(key, other);
    match known.keys().min_by_key(|other| distance(other)) {
        Some(other) if distance(other) <= other.len() / 2 => {
            format!("; did you mean `{other}`?")
        }
        _ => String::new(),
    }
}
