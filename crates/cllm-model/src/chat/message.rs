//! A turn of a conversation, as OpenAI's API and transformers write it.
//!
//! It stays the JSON object it came as: templates read whatever fields they know
//! (`tool_calls`, `name`, `reasoning_content` ...), some print the object whole, and an
//! absent field is not the same to them as a null one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One message: a JSON object with a `role`, usually a `content`, and any other fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message {
    fields: Map<String, Value>,
}

/// The names models and servers use for the reasoning before an answer, the common first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

impl Message {
    /// A message with a role (`system`, `user`, `assistant`, `tool`) and a text.
    pub fn new(role: &str, content: &str) -> Self {
        let mut fields = Map::new();
        fields.insert("role".into(), role.into());
        fields.insert("content".into(), content.into());
        Self { fields }
    }

    /// With one more field, or another value for it.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    /// Who speaks.
    pub fn role(&self) -> Option<&str> {
        self.get("role")?.as_str()
    }

    /// The text, if the content is a plain one.
    pub fn content(&self) -> Option<&str> {
        self.get("content")?.as_str()
    }

    /// Any field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// As templates see it: reasoning can be read under `reasoning_content` and
    /// `thinking`, whatever it was called, as in transformers.
    pub(super) fn for_template(&self) -> Value {
        let reasoning =
            REASONING.iter().filter_map(|name| self.get(name)).find(|value| !value.is_null());
        let mut fields = Map::new();
        if let Some(reasoning) = reasoning {
            fields.insert("thinking".into(), reasoning.clone());
        }
        fields.extend(self.fields.iter().map(|(name, value)| (name.clone(), value.clone())));
        if let Some(reasoning) = reasoning {
            fields.insert("reasoning_content".into(), reasoning.clone());
        }
        Value::Object(fields)
    }
}
