//! A model ready to answer: found or fetched, loaded, and asked in its own language.

use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use anyhow::Context;
use cllm_decode::{CausalLm, Iteration, LmError, Request, Sequence, Token};
use cllm_model::{Llama, LoadOptions, Message, Model, Tokenizer};

use crate::answer_text::AnswerText;
use crate::cli::{DecodeArgs, ModelArgs};
use crate::decoder::{DecoderSpec, DraftArgs, Making};
use crate::exit::bad_input;
use crate::interrupt::Interruptible;
use crate::machine::Machine;
use crate::progress::Meter;
use crate::prompt::Prompt;
use crate::replay::Probabilities;
use crate::run::{Run, run_watched};
use crate::source::{self, SourceError, SourceOptions};

/// A text in the model's memory.
pub(crate) type Text = Sequence<<Llama as CausalLm>::Cache>;

/// An answer as text.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The tokens, and how they came.
    pub(crate) run: Run,
    /// What was shown: no stop token, nothing from a stop string on.
    pub(crate) text: String,
    /// Whether Ctrl-C ended it.
    pub(crate) interrupted: bool,
    /// Of every forward, if they were asked for.
    pub(crate) probabilities: Probabilities,
}

/// Who looks on while an answer is made.
pub(crate) struct Onlooker<'a> {
    /// Is told each forward, after its tokens.
    pub(crate) on_forward: &'a mut dyn FnMut(&Iteration<'_>, &Tokenizer),
    /// Whether to find out probabilities, when the answer has ended.
    pub(crate) probabilities: bool,
}

/// A loaded model.
#[derive(Debug)]
pub(crate) struct Session {
    /// As the user named it.
    pub(crate) name: String,
    /// What was loaded.
    pub(crate) model: Model,
    /// What decoders are made with.
    pub(crate) making: Making,
}

impl Session {
    /// Finds or fetches the model and loads it.
    pub(crate) fn load(arguments: &ModelArgs) -> anyhow::Result<Self> {
        let name = arguments.name();
        let resolved =
            source::resolve(&arguments.model, &Meter::stderr(), &SourceOptions::from_env()?)?;
        let options = LoadOptions {
            compute: arguments.run.compute,
            threads: arguments.run.threads.map(NonZeroUsize::get),
            context: arguments.context.map(NonZeroUsize::get),
            adapters: arguments.adapter.clone(),
        };
        let model = Model::load(&resolved.path, &options)
            .with_context(|| format!("cannot load the model `{name}`"))?;
        Ok(Self { name, model, making: Making::default() })
    }

    /// Gets ready what `decoders` need beside the model; `seed` is of guesses that are drawn.
    pub(crate) fn prepare(
        &mut self,
        decoders: &[DecoderSpec],
        seed: u64,
        arguments: &ModelArgs,
        draft: &DraftArgs,
    ) -> anyhow::Result<()> {
        self.making = Making::of(decoders, seed, &mut self.model, arguments, draft)?;
        Ok(())
    }

    /// The hash of the model, adapters included.
    pub(crate) fn sha256(&self) -> Result<String, SourceError> {
        source::adapted_sha256(&self.model.path, &self.model.adapters)
    }

    /// The tokens of a prompt, at least one.
    pub(crate) fn encode(&self, prompt: &Prompt) -> anyhow::Result<Vec<Token>> {
        let tokenizer = &self.model.tokenizer;
        let tokens = match prompt {
            Prompt::Raw(text) if text.is_empty() => return Err(LmError::EmptyPrompt.into()),
            Prompt::Raw(text) => tokenizer.encode(text, true)?,
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Chat(messages) => {
                let Some(template) = &self.model.chat else {
                    bad_input!(
                        "{} has no chat template: give it a raw prompt (`prompt` in a file, \
                         --raw on the command line)",
                        self.name
                    );
                };
                let text = template.render(messages, true, &serde_json::Map::new())?;
                // The template writes the special tokens itself.
                tokenizer.encode(&text, false)?
            }
        };
        if tokens.is_empty() {
            return Err(LmError::EmptyPrompt.into());
        }
        Ok(tokens)
    }

    /// The request for a prompt, checked to leave room for an answer. Without
    /// `max_new_tokens` the answer may fill the context.
    pub(crate) fn request(
        &self,
        prompt: &Prompt,
        max_new_tokens: Option<NonZeroUsize>,
    ) -> anyhow::Result<Request> {
        let prompt = self.encode(prompt)?;
        let context = self.model.lm.context_length();
        if prompt.len() >= context {
            return Err(LmError::PromptTooLong { prompt: prompt.len(), context }.into());
        }
        let room = context - prompt.len();
        let max_new_tokens = max_new_tokens.map_or(room, NonZeroUsize::get);
        Ok(Request {
            prompt,
            max_new_tokens,
            stop_tokens: self.model.stop_tokens.clone(),
            ..Request::default()
        })
    }

    /// Answers `request` and hands over each piece of text as soon as it cannot change.
    /// Ctrl-C, a stop string or a failed `show` end the answer early.
    pub(crate) fn reply(
        &mut self,
        sequence: &mut Text,
        settings: &DecodeArgs,
        request: &Request,
        show: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> anyhow::Result<Reply> {
        let nobody = Onlooker { on_forward: &mut |_, _| {}, probabilities: false };
        self.reply_watched(sequence, settings, request, show, nobody)
    }

    /// The same, with somebody looking on.
    pub(crate) fn reply_watched(
        &mut self,
        sequence: &mut Text,
        settings: &DecodeArgs,
        request: &Request,
        show: &mut dyn FnMut(&str) -> io::Result<()>,
        onlooker: Onlooker<'_>,
    ) -> anyhow::Result<Reply> {
        let Model { tokenizer, lm, .. } = &mut self.model;
        let mut text = AnswerText::new(tokenizer, &settings.stop)?;
        let interruptible = Interruptible::new();
        let mut shown = Ok(());
        let mut on_token = |token| {
            let piece = text.push(token);
            if !piece.is_empty() {
                shown = show(piece);
            }
            if text.stopped() || interruptible.stopped() || shown.is_err() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let (decoder, tools) = (settings.decoder, &self.making);
        let mut watch = |it: &Iteration<'_>| (onlooker.on_forward)(it, tokenizer);
        let run = run_watched(lm, sequence, decoder, tools, request, &mut on_token, &mut watch)?;
        let interrupted = interruptible.stopped();
        shown?;
        let rest = text.finish();
        if !rest.is_empty() {
            show(rest)?;
        }
        let probabilities = match onlooker.probabilities && !interrupted {
            true => Probabilities::replay(lm, request, &run)?,
            false => Probabilities::default(),
        };
        Ok(Reply { run, text: text.into_text(), interrupted, probabilities })
    }

    /// An empty text in the model's memory.
    pub(crate) fn new_text(&self) -> Text {
        Sequence::new(self.model.lm.new_cache())
    }

    /// Text that is wrapped as a user message if the model has a chat template.
    pub(crate) fn user_prompt(&self, system: Option<&str>, text: String) -> Prompt {
        if self.model.chat.is_none() && system.is_none() {
            return Prompt::Raw(text);
        }
        let mut messages: Vec<_> = system.iter().map(|text| Message::new("system", text)).collect();
        messages.push(Message::new("user", &text));
        Prompt::Chat(messages)
    }

    /// The machine the model runs on.
    pub(crate) fn machine(&self) -> Machine {
        Machine::here(self.model.lm.threads(), self.model.lm.isa().name())
    }

    /// The formats the weights are computed in, layers first: `w4+w8`.
    pub(crate) fn weights(&self) -> String {
        let formats = self.model.lm.formats();
        formats.iter().map(ToString::to_string).collect::<Vec<_>>().join("+")
    }
}
