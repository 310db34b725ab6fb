//! Chat templates: a conversation as the text the model was trained on.
//!
//! A template is a Jinja program inside the model's files. transformers runs it in jinja2
//! with additions of its own; here `minijinja` runs it, set up to give the same text:
//!
//! * `environment`: whitespace rules, `raise_exception`, `strftime_now`, Python's methods.
//! * `python_json`: the `tojson` filter, which is Python's `json.dumps`.
//! * `generation`: `{% generation %}` blocks and where the assistant's text is.
//! * `files`: where a model folder keeps its templates.
//! * [`message`]: a turn of the conversation.
//!
//! A model without a template gets none from us: the wrong format would quietly make it
//! worse, so rendering says what is missing. Left out: `continue_final_message`.

mod environment;
mod files;
mod generation;
pub mod message;
mod python_json;

use std::ops::Range;
use std::path::Path;

use minijinja::Environment;
use serde_json::{Map, Value};

use crate::error::ModelError;
use crate::tokenizer::GgufTables;
pub use environment::Clock;
pub use message::Message;

/// The chat templates of a model: usually one, sometimes one more for tool use, or none.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Names in the order of the file.
    names: Vec<String>,
    /// `bos_token` and the like, which templates read as variables.
    special_tokens: Map<String, Value>,
}

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text to tokenize, without adding special tokens.
    pub text: String,
    /// Byte ranges of `text` inside `{% generation %}` blocks: what the assistant said.
    pub assistant: Vec<Range<usize>>,
}

/// The name of a template that stands alone.
pub(crate) const DEFAULT_TEMPLATE: &str = "default";
/// The name of the template used when there are tools.
const TOOL_USE: &str = "tool_use";

/// Names and sources of the templates of a model folder, as they stand in its files.
pub(crate) fn sources(dir: &Path) -> Result<Vec<(String, String)>, ModelError> {
    Ok(files::read(dir)?.templates)
}

impl ChatTemplate {
    /// From a template's source and the spelling of the tokens it names.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, ModelError> {
        let tokens = [("bos_token", bos), ("eos_token", eos)];
        let special_tokens =
            tokens.iter().filter_map(|(name, token)| Some(((*name).into(), (*token)?.into())));
        Self::from_named(vec![(DEFAULT_TEMPLATE.into(), source.into())], special_tokens.collect())
    }

    /// From the entries of a GGUF file, which may have no template.
    pub fn from_gguf(tables: &GgufTables<'_>) -> Result<Self, ModelError> {
        let templates = tables.chat_templates.iter();
        let roles = [
            ("bos_token", tables.bos),
            ("eos_token", tables.eos),
            ("unk_token", tables.unk),
            ("pad_token", tables.pad),
        ];
        let special_tokens = roles.iter().filter_map(|(name, id)| {
            let spelling = tables.tokens.get((*id)? as usize)?;
            Some(((*name).into(), (*spelling).into()))
        });
        Self::from_named(
            templates.map(|(name, source)| ((*name).into(), (*source).into())).collect(),
            special_tokens.collect(),
        )
    }

    /// From the files of a model folder.
    pub fn from_folder(dir: &Path) -> Result<Self, ModelError> {
        let found = files::read(dir)?;
        Self::from_named(found.templates, found.special_tokens)
    }

    fn from_named(
        templates: Vec<(String, String)>,
        special_tokens: Map<String, Value>,
    ) -> Result<Self, ModelError> {
        let mut environment = environment::new(Clock::System);
        let mut names = Vec::with_capacity(templates.len());
        for (name, source) in templates {
            let source = generation::rewrite_tags(&source);
            environment
                .add_template_owned(name.clone(), source)
                .map_err(|error| failure("the chat template is not valid", &error))?;
            names.push(name);
        }
        Ok(Self { environment, names, special_tokens })
    }

    /// Where `strftime_now` takes the time from; the system unless set.
    pub fn with_clock(mut self, clock: Clock) -> Self {
        environment::set_clock(&mut self.environment, clock);
        self
    }

    /// Whether the model has a template at all.
    pub fn exists(&self) -> bool {
        !self.names.is_empty()
    }

    /// Names of the templates; a single one is called `default`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The text of a conversation. `add_generation_prompt` ends it with the beginning of
    /// the assistant's answer. `extra` holds what else the template can read: `tools`,
    /// `documents`, and switches such as `enable_thinking`.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        extra: &Map<String, Value>,
    ) -> Result<String, ModelError> {
        self.run(&self.context(messages, add_generation_prompt, extra), extra)
    }

    /// Like `render`, and says where the assistant's text is. Empty ranges mean that the
    /// template has no `{% generation %}` blocks.
    pub fn render_spans(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        extra: &Map<String, Value>,
    ) -> Result<Rendered, ModelError> {
        let mut context = self.context(messages, add_generation_prompt, extra);
        let text = self.run(&context, extra)?;
        context.insert(generation::MARKS.into(), true.into());
        let marked = self.run(&context, extra)?;
        match generation::take_marks(&marked) {
            Some(assistant) if assistant.0 == text => Ok(Rendered { text, assistant: assistant.1 }),
            _ => Err(ModelError::Text(
                "cannot tell where the assistant's text is: the chat template alters the text of \
                 its generation blocks, or the conversation has the characters U+FDD0, U+FDD1"
                    .into(),
            )),
        }
    }

    fn context(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        extra: &Map<String, Value>,
    ) -> Map<String, Value> {
        let mut context = self.special_tokens.clone();
        context.insert("tools".into(), Value::Null);
        context.insert("documents".into(), Value::Null);
        context.extend(extra.iter().map(|(name, value)| (name.clone(), value.clone())));
        let messages = messages.iter().map(Message::for_template).collect();
        context.insert("messages".into(), Value::Array(messages));
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        context
    }

    fn run(
        &self,
        context: &Map<String, Value>,
        extra: &Map<String, Value>,
    ) -> Result<String, ModelError> {
        let name = self.choose(extra)?;
        let template = self
            .environment
            .get_template(name)
            .map_err(|error| failure("cannot use the chat template", &error))?;
        template
            .render(minijinja::value::Serde(context))
            .map_err(|error| failure("the chat template refused the conversation", &error))
    }

    /// With tools the template made for them, else the default one.
    fn choose(&self, extra: &Map<String, Value>) -> Result<&str, ModelError> {
        let has = |name: &str| self.names.iter().any(|known| known == name);
        let tools = extra.get("tools").is_some_and(|tools| !tools.is_null());
        if tools && has(TOOL_USE) {
            Ok(TOOL_USE)
        } else if has(DEFAULT_TEMPLATE) {
            Ok(DEFAULT_TEMPLATE)
        } else if self.names.is_empty() {
            Err(ModelError::Text(
                "the model has no chat template, so it cannot take messages; give it the whole \
                 text as a prompt"
                    .into(),
            ))
        } else {
            Err(ModelError::Text(format!(
                "the model has no default chat template, only: {}",
                self.names.join(", ")
            )))
        }
    }
}

/// minijinja's error with its line; what a template itself raises comes as it is.
fn failure(what: &str, error: &minijinja::Error) -> ModelError {
    let mut text = format!("{what}: ");
    match environment::raised(error) {
        Some(message) => text.push_str(&message),
        None => {
            text.push_str(&error.to_string());
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text.push_str(&format!("; {cause}"));
                source = cause.source();
            }
        }
    }
    ModelError::Text(text)
}
