//! What decoders are made with beside their names: the costs of forwards for `auto`, a second
//! model for `draft-model`. The names themselves are `cllm_decode::spec`'s.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;

use clap::Args;
use cllm_decode::spec::Built;
use cllm_decode::{CostModel, Decoder, LmError};
pub(crate) use cllm_decode::{DecoderList, DecoderSpec};
use cllm_model::{Llama, LoadOptions, Model, Tokenizer};

use crate::cli::ModelArgs;
use crate::cost;
use crate::exit::bad_input;
use crate::machine::Machine;
use crate::progress::Meter;
use crate::source::{self, ModelRef, SourceOptions};

/// A second model.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct DraftArgs {
    /// The smaller model that `--decoder draft-model` has guess; same tokenizer.
    #[arg(long, env = "CLLM_DRAFT_MODEL", value_name = "MODEL")]
    pub(crate) draft_model: Option<ModelRef>,
}

/// What decoders are made with.
#[derive(Default)]
pub(crate) struct Making {
    /// Of first guesses that are drawn.
    seed: u64,
    /// T(n) of the model, or what is typical, as long as nobody needs it.
    pub(crate) costs: CostModel,
    /// The second model, if there is one.
    pub(crate) draft: Option<RefCell<Llama>>,
    /// Decoders between two requests: some learn from one to the next.
    made: RefCell<HashMap<DecoderSpec, Box<dyn Decoder>>>,
}

impl fmt::Debug for Making {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Making").field("costs", &self.costs).finish_non_exhaustive()
    }
}

impl Making {
    /// The decoder for a name: the one that has been given back, or a new one.
    pub(crate) fn take(&self, spec: DecoderSpec) -> Result<Built, LmError> {
        match self.made.borrow_mut().remove(&spec) {
            Some(decoder) => Ok(Built::Decoder(decoder)),
            None => spec.build(self.seed, &self.costs),
        }
    }

    /// Takes a decoder back for the next request.
    pub(crate) fn give_back(&self, spec: DecoderSpec, decoder: Box<dyn Decoder>) {
        self.made.borrow_mut().insert(spec, decoder);
    }

    /// Forgets what decoders have learned: prompts that were answered are asked again.
    pub(crate) fn forget(&self) {
        self.made.borrow_mut().clear();
    }

    /// What `decoders` need to run on `model`.
    pub(crate) fn of(
        decoders: &[DecoderSpec],
        seed: u64,
        model: &mut Model,
        arguments: &ModelArgs,
        draft: &DraftArgs,
    ) -> anyhow::Result<Self> {
        let mut making = Self { seed, ..Self::default() };
        if decoders.iter().any(|decoder| matches!(decoder, DecoderSpec::Auto { .. })) {
            making.costs = costs(model)?;
        }
        if decoders.iter().any(|decoder| matches!(decoder, DecoderSpec::DraftModel { .. })) {
            let Some(name) = &draft.draft_model else {
                bad_input!("decoder draft-model: expected --draft-model MODEL");
            };
            making.draft = Some(RefCell::new(second(name, arguments, &model.tokenizer)?));
        }
        Ok(making)
    }
}

/// T(n) of a model on this machine.
fn costs(model: &mut Model) -> anyhow::Result<CostModel> {
    let lm = &mut model.lm;
    let machine = Machine::here(lm.threads(), lm.isa().name());
    let stamp = |path: &Path| {
        let data = std::fs::metadata(path).ok();
        let changed = data.as_ref().and_then(|data| data.modified().ok());
        format!("{} {:?} {changed:?}", path.display(), data.map(|data| data.len()))
    };
    let files = std::iter::once(&model.path).chain(&model.adapters).map(|path| stamp(path));
    let key = format!("{machine}; {:?}; {:?}", lm.formats(), files.collect::<Vec<_>>());
    let home = SourceOptions::from_env().ok().map(|options| options.home);
    Ok(CostModel::new(cost::of(home.as_deref(), &key, lm)?)?)
}

/// Loads the model that guesses. A guess must mean the same to both.
fn second(name: &ModelRef, first: &ModelArgs, tokenizer: &Tokenizer) -> anyhow::Result<Llama> {
    let path = source::resolve(name, &Meter::stderr(), &SourceOptions::from_env()?)?.path;
    let options = LoadOptions {
        compute: first.run.compute,
        threads: first.run.threads.map(NonZeroUsize::get),
        context: first.context.map(NonZeroUsize::get),
        ..LoadOptions::default()
    };
    let model = Model::load(&path, &options)?;
    let [expected, found] = [tokenizer, &model.tokenizer].map(source::tokenizer_sha256);
    if expected != found {
        bad_input!(
            "draft model `{name}`: another tokenizer: expected {expected} of {}, found {found}",
            first.model
        );
    }
    Ok(model.lm)
}
