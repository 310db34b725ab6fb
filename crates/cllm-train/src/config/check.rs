//! What values settings may have.

use serde_json::Value;

use super::{Config, NoiseHistory, Teacher};
use crate::TrainError;

impl Config {
    /// The first broken rule.
    pub(super) fn check(&self) -> Result<(), TrainError> {
        let rules = [
            ("num_train_epochs", self.num_train_epochs > 0.0, "more than 0"),
            ("max_rows_per_forward", self.max_rows_per_forward > 0, "at least 1"),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps > 0, "at least 1"),
            ("prompts_per_prefix", self.prompts_per_prefix > 0, "at least 1"),
            ("max_length", self.max_length > 1, "at least 2"),
            ("learning_rate", self.learning_rate > 0.0, "more than 0"),
            ("warmup_ratio", (0.0..=1.0).contains(&self.warmup_ratio), "0 to 1"),
            ("weight_decay", self.weight_decay >= 0.0, "at least 0"),
            ("adam_beta1", (0.0..1.0).contains(&self.adam_beta1), "at least 0, less than 1"),
            ("adam_beta2", (0.0..1.0).contains(&self.adam_beta2), "at least 0, less than 1"),
            ("adam_epsilon", self.adam_epsilon > 0.0, "more than 0"),
            ("max_grad_norm", self.max_grad_norm >= 0.0, "at least 0"),
            ("eval_block", (1..=1024).contains(&self.eval_block), "1 to 1024"),
            ("eval_max_new_tokens", self.eval_max_new_tokens > 0, "at least 1"),
            ("logging_steps", self.logging_steps > 0, "at least 1"),
            ("lora_r", self.lora_r > 0, "at least 1"),
            ("lora_alpha", self.lora_alpha > 0.0, "more than 0"),
            ("lora_dropout", (0.0..1.0).contains(&self.lora_dropout), "at least 0, less than 1"),
            ("lora_target_modules", !self.lora_target_modules.is_empty(), "at least one"),
            ("consistency_weight", self.consistency_weight >= 0.0, "at least 0"),
            ("ar_weight", self.ar_weight >= 0.0, "at least 0"),
            ("ar_weight", self.ar_weight + self.consistency_weight > 0.0, "one weight above 0"),
            ("noise_window", self.noise_window > 0, "at least 1"),
            (
                "noise_history",
                self.consistency == Teacher::Global || self.noise_history == NoiseHistory::Clean,
                "`clean` with `consistency: local`",
            ),
            ("augmented_share", (0.0..=1.0).contains(&self.augmented_share), "0 to 1"),
            (
                "noisy_copies",
                self.noisy_copies > 0 || self.consistency_weight == 0.0,
                "at least 1 with a consistency weight",
            ),
            ("max_loss_ratio", self.max_loss_ratio >= 0.0, "at least 0"),
            ("max_repetition_rate", self.max_repetition_rate >= 0.0, "at least 0"),
        ];
        let keys = self.keys();
        match rules.into_iter().find(|(_, kept, _)| !kept) {
            Some((key, _, expected)) => Err(TrainError::BadInput(format!(
                "`{key}`: expected {expected}, found {}",
                keys.get(key).unwrap_or(&Value::Null)
            ))),
            None if [self.learning_rate, self.num_train_epochs, self.max_grad_norm]
                .iter()
                .any(|value| !value.is_finite()) =>
            {
                Err(TrainError::BadInput("a setting is not a finite number".into()))
            }
            None => Ok(()),
        }
    }
}
