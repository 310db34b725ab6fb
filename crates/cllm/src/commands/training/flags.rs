//! The settings as flags: each a key of the YAML file, with dashes.

use clap::Args;
use clap::builder::FalseyValueParser;
use serde::Serialize;

/// Flags given; the others are as the file or the defaults say.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Settings")]
pub(crate) struct Flags {
    /// Folder of logs and checkpoints.
    #[arg(long, env = "CLLM_OUTPUT_DIR", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dir: Option<String>,

    /// Seed of order, noise and dropout.
    #[arg(long, env = "CLLM_SEED", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,

    /// Passes over the data.
    #[arg(long, env = "CLLM_NUM_TRAIN_EPOCHS", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    num_train_epochs: Option<f64>,

    /// Optimizer steps, instead of epochs.
    #[arg(long, env = "CLLM_MAX_STEPS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_steps: Option<i64>,

    /// Examples a forward, instead of a number of rows.
    #[arg(long, env = "CLLM_PER_DEVICE_TRAIN_BATCH_SIZE", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    per_device_train_batch_size: Option<usize>,

    /// Most rows a forward.
    #[arg(long, env = "CLLM_MAX_ROWS_PER_FORWARD", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_rows_per_forward: Option<usize>,

    /// Forwards an optimizer step.
    #[arg(long, env = "CLLM_GRADIENT_ACCUMULATION_STEPS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    gradient_accumulation_steps: Option<usize>,

    /// Drop examples of more tokens.
    #[arg(long, env = "CLLM_MAX_LENGTH", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<usize>,

    /// Most examples that share the rows of a common beginning; 1: none do.
    #[arg(long, env = "CLLM_PROMPTS_PER_PREFIX", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    prompts_per_prefix: Option<usize>,

    /// Highest learning rate.
    #[arg(long, env = "CLLM_LEARNING_RATE", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    learning_rate: Option<f64>,

    /// `cosine`, `linear`, `constant` or `constant_with_warmup`.
    #[arg(long, env = "CLLM_LR_SCHEDULER_TYPE", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lr_scheduler_type: Option<String>,

    /// Share of steps that warm up.
    #[arg(long, env = "CLLM_WARMUP_RATIO", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    warmup_ratio: Option<f64>,

    /// Steps that warm up, instead of a share.
    #[arg(long, env = "CLLM_WARMUP_STEPS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    warmup_steps: Option<u64>,

    /// Weight decay of AdamW.
    #[arg(long, env = "CLLM_WEIGHT_DECAY", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_decay: Option<f64>,

    /// Decay of AdamW's mean of gradients.
    #[arg(long, env = "CLLM_ADAM_BETA1", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    adam_beta1: Option<f64>,

    /// Decay of AdamW's mean of squared gradients.
    #[arg(long, env = "CLLM_ADAM_BETA2", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    adam_beta2: Option<f64>,

    /// Added to the root of that.
    #[arg(long, env = "CLLM_ADAM_EPSILON", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    adam_epsilon: Option<f64>,

    /// Clip the gradients' norm; 0: never.
    #[arg(long, env = "CLLM_MAX_GRAD_NORM", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_grad_norm: Option<f64>,

    /// Log every N steps.
    #[arg(long, env = "CLLM_LOGGING_STEPS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    logging_steps: Option<u64>,

    /// Evaluate held-out examples every N steps; 0: never.
    #[arg(long, env = "CLLM_EVAL_STEPS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_steps: Option<u64>,

    /// Held-out prompts that an evaluation answers.
    #[arg(long, env = "CLLM_EVAL_PROMPTS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_prompts: Option<usize>,

    /// Most tokens of such an answer.
    #[arg(long, env = "CLLM_EVAL_MAX_NEW_TOKENS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_max_new_tokens: Option<usize>,

    /// Block length it is decoded with.
    #[arg(long, env = "CLLM_EVAL_BLOCK", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_block: Option<usize>,

    /// Write a checkpoint every N steps; 0: at the end only.
    #[arg(long, env = "CLLM_SAVE_STEPS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    save_steps: Option<u64>,

    /// Most checkpoints kept, beside the best; 0: all.
    #[arg(long, env = "CLLM_SAVE_TOTAL_LIMIT", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    save_total_limit: Option<usize>,

    /// `eval_loss` or `mean_acceptance_length`.
    #[arg(long, env = "CLLM_METRIC_FOR_BEST_MODEL", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_for_best_model: Option<String>,

    /// `lora` or `full`.
    #[arg(long, env = "CLLM_FINETUNING_TYPE", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    finetuning_type: Option<String>,

    /// Rank of the adapters.
    #[arg(long, env = "CLLM_LORA_R", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lora_r: Option<usize>,

    /// Scale of the adapters, times the rank.
    #[arg(long, env = "CLLM_LORA_ALPHA", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lora_alpha: Option<f64>,

    /// Dropout before the adapters.
    #[arg(long, env = "CLLM_LORA_DROPOUT", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lora_dropout: Option<f64>,

    /// Linear layers with adapters, separated by commas.
    #[arg(long, env = "CLLM_LORA_TARGET_MODULES", value_name = "NAMES", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lora_target_modules: Vec<String>,

    /// Numbers of the adapter written at the end: `float32`, `float16` or `bfloat16`.
    #[arg(long, env = "CLLM_ADAPTER_DTYPE", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter_dtype: Option<String>,

    /// `cpu`, or a GPU by the feature this build has for it: `cuda`, `rocm`, `metal`,
    /// `vulkan`, `wgpu`, `cuda:1` for the second.
    #[arg(long, env = "CLLM_DEVICE", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,

    /// Frozen weights on the CPU, forward and backward: `f32`, `bf16` or `w8`.
    #[arg(long, env = "CLLM_FROZEN_COMPUTE", value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    frozen_compute: Option<String>,

    /// Keep block inputs only and compute the rest again: less memory, slower.
    #[arg(long, env = "CLLM_GRADIENT_CHECKPOINTING", value_parser = FalseyValueParser::new())]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gradient_checkpointing: bool,

    /// Weight of the consistency loss.
    #[arg(long, env = "CLLM_CONSISTENCY_WEIGHT", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    consistency_weight: Option<f64>,

    /// Weight of the AR loss.
    #[arg(long, env = "CLLM_AR_WEIGHT", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ar_weight: Option<f64>,

    /// Answers of the AR loss: `teacher`, `reference` (the data's) or `both`.
    #[arg(long, env = "CLLM_AR_ANSWERS", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ar_answers: Option<String>,

    /// `global` (the fixed point) or `local` (the next state).
    #[arg(long, env = "CLLM_CONSISTENCY", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    consistency: Option<String>,

    /// States shown: `uniform` or `progressive`.
    #[arg(long, env = "CLLM_NOISE_SCHEDULE", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    noise_schedule: Option<String>,

    /// Blocks from no noise to all, with `progressive`.
    #[arg(long, env = "CLLM_NOISE_WINDOW", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    noise_window: Option<usize>,

    /// Noisy blocks see `clean` or `noisy` blocks before them.
    #[arg(long, env = "CLLM_NOISE_HISTORY", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    noise_history: Option<String>,

    /// Noisy copies of an answer a forward.
    #[arg(long, env = "CLLM_NOISY_COPIES", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    noisy_copies: Option<usize>,

    /// Share of blocks that show an augmented state.
    #[arg(long, env = "CLLM_AUGMENTED_SHARE", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    augmented_share: Option<f64>,

    /// Stop if the loss rises so many times; 0: never.
    #[arg(long, env = "CLLM_MAX_LOSS_RATIO", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_loss_ratio: Option<f64>,

    /// Stop if held-out answers repeat more 4-grams; 0: never.
    #[arg(long, env = "CLLM_MAX_REPETITION_RATE", value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_repetition_rate: Option<f64>,
}
