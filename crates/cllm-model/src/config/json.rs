//! Reading JSON configuration key by key, so that an error names the key, what was
//! expected and what was found.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::ModelError;

/// Longest JSON file we read. The largest real one, the index of a model of hundreds of
/// billions of weights, has a few megabytes.
const MAX_BYTES: u64 = 64 << 20;

/// The bytes of a file, if there are not too many.
pub(crate) fn read_capped(path: &Path) -> Result<Vec<u8>, ModelError> {
    let io = |source| ModelError::Io { path: path.into(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        let what = format!("more than {} MB of JSON", MAX_BYTES >> 20);
        return Err(ModelError::Format { path: path.into(), what });
    }
    Ok(bytes)
}

/// Parses a file that holds one JSON object.
pub(super) fn read_object(path: &Path) -> Result<Map<String, Value>, ModelError> {
    let format = |what| ModelError::Format { path: path.into(), what };
    match serde_json::from_slice(&read_capped(path)?).map_err(|e| format(e.to_string()))? {
        Value::Object(map) => Ok(map),
        other => Err(format(format!("expected a JSON object, found {}", found(&other)))),
    }
}

/// An object inside a JSON file.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) path: &'a Path,
    /// What stands before the keys in messages: `rope_scaling.`.
    pub(super) prefix: &'a str,
    pub(super) map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn format(&self, what: String) -> ModelError {
        ModelError::Format { path: self.path.into(), what }
    }

    pub(super) fn unsupported(&self, what: String) -> ModelError {
        ModelError::Unsupported { path: self.path.into(), what }
    }

    /// Whether the key is there, be it null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// A value that is not null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// The error of a value of the wrong kind.
    pub(super) fn wrong(&self, key: &str, expected: &str, value: &Value) -> ModelError {
        let found = found(value);
        self.format(format!("`{}{key}`: expected {expected}, found {found}", self.prefix))
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        self.get(key).map(|v| convert(v).ok_or_else(|| self.wrong(key, expected, v))).transpose()
    }

    /// A count from 1 to `max`.
    pub(super) fn size(&self, key: &str, max: usize) -> Result<Option<usize>, ModelError> {
        self.typed(key, &format!("an integer from 1 to {max}"), |v| {
            let n = usize::try_from(v.as_u64()?).ok()?;
            (1..=max).contains(&n).then_some(n)
        })
    }

    /// A count from 1 to `max` that must be there.
    pub(super) fn required_size(&self, key: &str, max: usize) -> Result<usize, ModelError> {
        self.size(key, max)?.ok_or_else(|| {
            self.format(format!(
                "`{}{key}` is missing; expected an integer from 1 to {max}",
                self.prefix
            ))
        })
    }

    /// A number greater than 0 that an f32 can hold.
    pub(super) fn positive(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.typed(key, "a number greater than 0", |v| {
            let x = v.as_f64()? as f32;
            (x > 0.0 && x.is_finite()).then_some(x)
        })
    }

    /// A number greater than 0 that must be there.
    pub(super) fn required_positive(&self, key: &str) -> Result<f32, ModelError> {
        self.positive(key)?.ok_or_else(|| {
            self.format(format!(
                "`{}{key}` is missing; expected a number greater than 0",
                self.prefix
            ))
        })
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn array(&self, key: &str) -> Result<Option<&'a Vec<Value>>, ModelError> {
        self.typed(key, "an array", Value::as_array)
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>, ModelError> {
        self.typed(key, "an object", Value::as_object)
    }

    /// A token id, or a list of them.
    pub(super) fn tokens(&self, key: &str) -> Result<Vec<u32>, ModelError> {
        let id = |v: &Value| u32::try_from(v.as_u64()?).ok();
        let ids = self.typed(key, "a token id or a list of token ids", |v| match v {
            Value::Array(ids) => ids.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }
}

/// A value in words, short.
fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(s) if s.len() <= 40 => format!("{s:?}"),
        Value::String(s) => format!("a string of {} bytes", s.len()),
        Value::Array(a) => format!("an array of {}", a.len()),
        Value::Object(_) => "an object".into(),
    }
}
