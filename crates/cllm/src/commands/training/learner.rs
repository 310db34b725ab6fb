//! The network in training: the one place where the loop meets the numerics.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use cllm_decode::{CausalLm, Draft, Finish, Request, Sequence, Token};
use cllm_kernels::Format;
use cllm_model::adapter::{Adapter, FloatType, LoraConfig, LoraPair, PREFIX, Targets};
use cllm_model::export::{SHARD_BYTES, write_folder};
use cllm_model::{Checkpoint, Compute, LoadOptions, Model};
use cllm_train::config::{Config, FinetuningType, FrozenCompute};
use cllm_train::learner::{Learner, NamedTensor};
use cllm_train::model::{self, Place, Trainable, Trainer, TrainerConfig};
use cllm_train::train::Decoded;

use crate::contest::four_grams;
use crate::decoder::{DecoderSpec, Making};
use crate::exit::bad_input;
use crate::figures::Figures;
use crate::run::{Run, run};
use crate::session::Session;

/// The learner of a run: the session's model with the parameters that `config` trains. With
/// LoRA the session's adapter, if there is one, is what training goes on from.
pub(crate) fn learner(session: &Session, config: &Config) -> anyhow::Result<Box<dyn Learner>> {
    let Model { path, adapters, .. } = &session.model;
    let mut checkpoint = Checkpoint::open(path)?;
    let lora = config.finetuning_type == FinetuningType::Lora;
    if !lora {
        for adapter in adapters {
            checkpoint.add_adapter(Adapter::open(adapter)?)?;
        }
    }
    let network = checkpoint.config()?;
    let source = |name: &str| checkpoint.tensor_f32(&network, name).map_err(|e| e.to_string());
    let trainable = match lora {
        false => Trainable::Full,
        true => Trainable::Lora(model::LoraConfig {
            r: config.lora_r,
            alpha: config.lora_alpha,
            dropout: config.lora_dropout,
            target_modules: config.lora_target_modules.clone(),
            seed: config.seed,
        }),
    };
    let frozen = match config.frozen_compute {
        FrozenCompute::F32 => Format::F32,
        FrozenCompute::Bf16 => Format::Bf16,
        FrozenCompute::W8 => Format::W8,
    };
    let place = match Place::named(&config.device, frozen) {
        Ok(place) => place,
        Err(what) => bad_input!("`device`: {what}"),
    };
    let settings = TrainerConfig {
        trainable,
        optimizer: config.adam(),
        gradient_checkpointing: config.gradient_checkpointing,
        kernels: place.kernels,
        seed: config.seed,
    };
    let failed = |what: String| anyhow!("{}: {what}", path.display());
    let mut trainer = Trainer::new(&network, &source, settings, &place.device).map_err(failed)?;
    match (lora, &adapters[..]) {
        (false, _) | (_, []) => {}
        (true, [adapter]) => go_on(&mut trainer, adapter, config)?,
        (true, _) => bad_input!(
            "training goes on from one adapter, found {}: put them together with `cllm merge`",
            adapters.len()
        ),
    }
    Ok(Box::new(trainer))
}

/// Starts from the values of an adapter.
fn go_on(trainer: &mut Trainer, path: &Path, config: &Config) -> anyhow::Result<()> {
    let adapter = Adapter::open(path)?;
    let mut values = Vec::new();
    for pair in adapter.pairs() {
        let scale = adapter.config().scale(&pair.module);
        let ours = config.lora_alpha / config.lora_r as f64;
        if (f64::from(scale) - ours).abs() > 1e-6 * ours.abs() {
            bad_input!(
                "{}: {} is scaled by {scale}, this run by lora_alpha / lora_r = {ours}",
                path.display(),
                pair.module
            );
        }
        let mut add = |which: &str, shape: [usize; 2], data: &[f32]| {
            let name = format!("{PREFIX}{}.{which}.weight", pair.module);
            values.push(NamedTensor { name, shape: shape.to_vec(), data: data.to_vec() });
        };
        add("lora_A", [pair.rank, pair.inputs], &pair.a);
        add("lora_B", [pair.outputs, pair.rank], &pair.b);
    }
    if let Err(what) = trainer.restore(&values, &[]) {
        bad_input!(
            "{}: not the adapter this run trains (lora_r {}, lora_target_modules {:?}): {what}",
            path.display(),
            config.lora_r,
            config.lora_target_modules
        );
    }
    Ok(())
}

/// What a run leaves.
#[derive(Debug)]
pub(crate) enum Trained {
    /// A folder that PEFT and `--adapter` take.
    Adapter(PathBuf),
    /// A Hugging Face folder: all weights were trained.
    Model(PathBuf),
}

/// Writes what was trained: `adapter/` or `model/` in `folder`. `model` is the file or folder
/// that training began with, `base` its name.
pub(crate) fn export(
    learner: &dyn Learner,
    config: &Config,
    (model, base): (&Path, &str),
    folder: &Path,
    kind: FloatType,
) -> anyhow::Result<Trained> {
    let all = learner.parameters();
    if config.finetuning_type != FinetuningType::Lora {
        let mut checkpoint = Checkpoint::open(model)?;
        for tensor in all {
            checkpoint.replace(&tensor.name, tensor.data)?;
        }
        let folder = folder.join("model");
        write_folder(&checkpoint, &folder, kind, SHARD_BYTES)?;
        return Ok(Trained::Model(folder));
    }
    let mut pairs = Vec::new();
    for a in &all {
        let Some(module) = a.name.strip_suffix(".lora_A.weight") else { continue };
        let name = format!("{module}.lora_B.weight");
        let b = all.iter().find(|t| t.name == name).with_context(|| format!("no {name}"))?;
        pairs.push(LoraPair {
            module: module.strip_prefix(PREFIX).unwrap_or(module).to_owned(),
            rank: a.shape[0],
            inputs: a.shape[1],
            outputs: b.shape[0],
            a: a.data.clone(),
            b: b.data.clone(),
        });
    }
    let settings = LoraConfig {
        r: config.lora_r,
        lora_alpha: config.lora_alpha,
        lora_dropout: config.lora_dropout,
        target_modules: Some(Targets::Names(config.lora_target_modules.clone())),
        base_model_name_or_path: Some(base.to_owned()),
        ..LoraConfig::default()
    };
    let folder = folder.join("adapter");
    Adapter::new(settings, pairs)?.write(&folder, kind)?;
    Ok(Trained::Adapter(folder))
}

/// Where an evaluation writes what was trained, in the output folder.
const EVALUATED: &str = ".eval";

/// Held-out prompts that are answered at every evaluation.
pub(crate) struct Prompts {
    pub(crate) prompts: Vec<Vec<Token>>,
    pub(crate) max_new_tokens: usize,
    pub(crate) block: usize,
}

/// Answers held-out prompts with the parameters as they are, on the engine that will run
/// them, in w8 if all weights are trained. `None` if there are no prompts.
pub(crate) fn measure(
    session: &Session,
    config: &Config,
    prompts: &Prompts,
    learner: &dyn Learner,
) -> Result<Option<Decoded>, String> {
    let decode = || -> anyhow::Result<Option<Decoded>> {
        if prompts.prompts.is_empty() {
            return Ok(None);
        }
        // Beside the checkpoints: a whole model may be too much for the folder of temporary
        // files. Always the same name, so that what a killed run left is taken away.
        let out = Path::new(&config.output_dir);
        if out.join(EVALUATED).exists() {
            std::fs::remove_dir_all(out.join(EVALUATED))?;
        }
        let folder = tempfile::Builder::new().prefix(EVALUATED).rand_bytes(0).tempdir_in(out)?;
        let of = (&*session.model.path, &*session.name);
        let mut model = match export(learner, config, of, folder.path(), FloatType::F32)? {
            Trained::Adapter(adapter) => {
                let options = LoadOptions { adapters: vec![adapter], ..LoadOptions::default() };
                Model::load(&session.model.path, &options)?
            }
            Trained::Model(trained) => {
                let compute = Compute::W8;
                Model::load(&trained, &LoadOptions { compute, ..LoadOptions::default() })?
            }
        };
        let decoder = DecoderSpec::Jacobi { n: prompts.block, draft: Draft::default() };
        let (mut runs, mut grams) = (Vec::new(), (0, 0));
        for prompt in &prompts.prompts {
            let request = Request {
                prompt: prompt.clone(),
                max_new_tokens: prompts.max_new_tokens,
                stop_tokens: model.stop_tokens.clone(),
                ..Request::default()
            };
            let mut text = Sequence::new(model.lm.new_cache());
            let mut go = |_| std::ops::ControlFlow::Continue(());
            let run =
                run(&mut model.lm, &mut text, decoder, &Making::default(), &request, &mut go)?;
            let (all, repeated) = four_grams(&run.answer.tokens);
            grams = (grams.0 + all, grams.1 + repeated);
            runs.push(run);
        }
        // An answer that runs into the limit repeats itself, as a rule, and settles many tokens
        // a forward: it counts in the other two figures only.
        let ended = |run: &&Run| run.answer.finish == Finish::StopToken;
        let of_ended = Figures::of(runs.iter().filter(ended));
        Ok(Some(Decoded {
            mean_acceptance_length: of_ended.mean_acceptance_length.unwrap_or(1.0),
            repetition_rate: grams.1 as f64 / f64::max(grams.0 as f64, 1.0),
            eos_share: runs.iter().filter(ended).count() as f64 / runs.len() as f64,
        }))
    };
    decode().map_err(|error| format!("{error:#}"))
}
