//! The network in training: a Llama-family model on burn, its losses, its optimizer.
//!
//! `network` is the forward pass, `linear` a layer with or without LoRA, `attention`
//! what rows see, `loss` the LM head with both losses and their gradient, `parameters`
//! what is trained, with AdamW. `trainer` puts them together behind
//! [`crate::learner::Learner`].
//!
//! Weights are f32 and so is all arithmetic. Parameters are named as their files name them:
//! as in PEFT for LoRA, as in Hugging Face for full training.

mod attention;
mod cpu;
mod device;
#[cfg(test)]
mod golden_tests;
mod linear;
mod loss;
mod network;
mod parameters;
mod trainer;

pub use burn::tensor::Device;
pub use device::Place;
pub use linear::LoraConfig;
pub use network::{LINEAR_MODULES, Trainable, WeightSource};
pub use trainer::{Trainer, TrainerConfig};
