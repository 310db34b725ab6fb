//! Tokens a second of training steps on random tokens.
//!
//!     cargo run --release -p cllm-train --example speed -- MODEL [full|lora] [T] [STEPS]

use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::Device;
use cllm_model::Checkpoint;
use cllm_train::learner::{AdamW, Learner};
use cllm_train::model::{LINEAR_MODULES, LoraConfig, Trainable, Trainer, TrainerConfig};
use cllm_train::packed::{Packed, TokenTarget};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stdout, reason = "a program for the terminal")]
fn main() {
    let mut args = std::env::args().skip(1);
    let path = PathBuf::from(args.next().expect("a model"));
    let mode = args.next().unwrap_or_else(|| "lora".into());
    let mut number = |default: usize| args.next().map_or(default, |n| n.parse().expect("a number"));
    let (t, steps) = (number(256), number(4));
    let checkpoint = Checkpoint::open(&path).expect("a model");
    let config = checkpoint.config().expect("a configuration");
    let source = |name: &str| checkpoint.tensor_f32(&config, name).map_err(|e| e.to_string());
    let trainable = match mode.as_str() {
        "full" => Trainable::Full,
        _ => Trainable::Lora(LoraConfig {
            r: 16,
            alpha: 32.0,
            dropout: 0.0,
            target_modules: LINEAR_MODULES.map(String::from).to_vec(),
            seed: 1,
        }),
    };
    let kernels = match std::env::var("KERNELS").as_deref() {
        Ok("none") => None,
        Ok("f32") => Some(cllm_kernels::Format::F32),
        Ok("w8") => Some(cllm_kernels::Format::W8),
        _ => Some(cllm_kernels::Format::Bf16),
    };
    let settings = TrainerConfig {
        trainable,
        optimizer: AdamW::default(),
        gradient_checkpointing: false,
        kernels,
        seed: 0,
    };
    let mut trainer = Trainer::new(&config, &source, settings, &Device::flex()).expect("a model");
    // Half prompt, half answer.
    let tokens: Vec<u32> = (0..t).map(|i| (i * i * 31 % config.vocab_size) as u32).collect();
    let mut packed = Packed::default();
    packed.push(&tokens, 0, &[]);
    packed.tokens_scored = (t / 2..t - 1)
        .map(|row| TokenTarget { row, token: tokens[row + 1], weight: 2.0 / t as f32 })
        .collect();
    for step in 0..steps {
        let start = Instant::now();
        let losses = trainer.accumulate(&packed).expect("a batch");
        let backward = start.elapsed();
        let norm = trainer.step(1e-4, Some(1.0));
        let whole = start.elapsed();
        println!(
            "step {step}: loss {:.4}, gradient norm {norm:.3}, {:.0} tokens/s ({:.0} without \
             optimizer)",
            losses.total(),
            t as f64 / whole.as_secs_f64(),
            t as f64 / backward.as_secs_f64(),
        );
    }
}
