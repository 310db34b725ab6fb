//! `adapter_config.json`: rank, alpha, and which modules they are for.
//!
//! Module names match as in PEFT: an entry of a list is a module's whole name or its end
//! after a dot, a string is a regular expression for the whole name or `all-linear`, and a
//! key of `rank_pattern` or `alpha_pattern` is an expression for the end of the name.

use std::path::Path;

use fancy_regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::ModelError;

/// Largest rank accepted: beyond the width of any matrix an adapter saves nothing.
const MAX_RANK: usize = 1 << 16;

/// Which modules an adapter is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// Whole names, or their ends: `q_proj`.
    Names(Vec<String>),
    /// `all-linear`: every linear layer but the LM head. Or an expression for whole names.
    Expression(String),
}

/// The settings of a LoRA adapter, under PEFT's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// Rank.
    pub r: usize,
    /// The update is multiplied by `lora_alpha / r`, or `/ sqrt(r)` with `use_rslora`.
    pub lora_alpha: f64,
    /// Dropout on the input of `A` while training.
    pub lora_dropout: f64,
    /// Divide by the root of the rank (Kalajdzievski 2023).
    pub use_rslora: bool,
    /// The modules; `None` leaves it to PEFT's table of model types.
    pub target_modules: Option<Targets>,
    /// Modules that are left out though targeted.
    pub exclude_modules: Option<Targets>,
    /// Only these layers.
    pub layers_to_transform: Option<Layers>,
    /// Other ranks, by the end of the module's name.
    pub rank_pattern: Map<String, Value>,
    /// Other alphas, by the end of the module's name.
    pub alpha_pattern: Map<String, Value>,
    /// The model it was trained on, as its trainer named it. For people: nothing checks it.
    pub base_model_name_or_path: Option<String>,
}

/// One layer or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Layers {
    /// One.
    One(usize),
    /// Several; none means all.
    Many(Vec<usize>),
}

impl Default for LoraConfig {
    /// PEFT's defaults.
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            use_rslora: false,
            target_modules: None,
            exclude_modules: None,
            layers_to_transform: None,
            rank_pattern: Map::new(),
            alpha_pattern: Map::new(),
            base_model_name_or_path: None,
        }
    }
}

impl LoraConfig {
    /// Reads the JSON; `path` is for messages.
    pub(super) fn parse(path: &Path, json: &[u8]) -> Result<Self, ModelError> {
        let format = |what: String| ModelError::Format { path: path.into(), what };
        let map: Map<String, Value> =
            serde_json::from_slice(json).map_err(|e| format(e.to_string()))?;
        refuse(path, &map)?;
        let present = map.into_iter().filter(|(_, value)| !value.is_null()).collect();
        let config: Self =
            serde_json::from_value(Value::Object(present)).map_err(|e| format(e.to_string()))?;
        config.checked().map_err(format)
    }

    /// Checks the numbers and the expressions.
    pub(super) fn checked(self) -> Result<Self, String> {
        let rank = |name: &str, r: Option<usize>| match r {
            Some(r) if (1..=MAX_RANK).contains(&r) => Ok(()),
            _ => Err(format!("`{name}`: expected a rank from 1 to {MAX_RANK}")),
        };
        rank("r", Some(self.r))?;
        if !self.lora_alpha.is_finite() {
            return Err(format!("`lora_alpha`: expected a number, found {}", self.lora_alpha));
        }
        for (key, value) in &self.rank_pattern {
            end_of_name(key)?;
            rank(&format!("rank_pattern.{key}"), value.as_u64().map(|r| r as usize))?;
        }
        for (key, value) in &self.alpha_pattern {
            end_of_name(key)?;
            if value.as_f64().is_none() {
                return Err(format!("`alpha_pattern.{key}`: expected a number, found {value}"));
            }
        }
        for targets in [&self.target_modules, &self.exclude_modules].into_iter().flatten() {
            targets.matches("")?;
        }
        Ok(self)
    }

    /// Whether the adapter is for a linear module, `model.layers.0.mlp.up_proj` or `lm_head`;
    /// `None` if the settings do not say.
    pub fn targets(&self, module: &str) -> Option<bool> {
        // Expressions were compiled by `checked`; one that gives up matches nothing.
        let matches = |targets: &Targets| targets.matches(module).unwrap_or(false);
        let targeted = self.target_modules.as_ref().map(matches)?;
        let excluded = self.exclude_modules.as_ref().is_some_and(matches);
        let layer = module.split('.').find_map(|part| part.parse::<usize>().ok());
        let in_layer = match &self.layers_to_transform {
            None => true,
            Some(Layers::One(only)) => layer == Some(*only),
            Some(Layers::Many(layers)) => {
                layers.is_empty() || layer.is_some_and(|layer| layers.contains(&layer))
            }
        };
        Some(targeted && !excluded && in_layer)
    }

    /// The rank of a module.
    pub fn rank(&self, module: &str) -> usize {
        let other = by_end_of_name(&self.rank_pattern, module).and_then(Value::as_u64);
        other.map_or(self.r, |r| r as usize)
    }

    /// What the update of a module is multiplied by.
    pub fn scale(&self, module: &str) -> f32 {
        let other = by_end_of_name(&self.alpha_pattern, module).and_then(Value::as_f64);
        let (alpha, rank) = (other.unwrap_or(self.lora_alpha), self.rank(module) as f64);
        (alpha / if self.use_rslora { rank.sqrt() } else { rank }) as f32
    }
}

impl Targets {
    /// Whether a module is meant; `Err` for an expression that is none.
    fn matches(&self, module: &str) -> Result<bool, String> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| {
                let rest = module.strip_suffix(name.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })),
            Self::Expression(all) if all.eq_ignore_ascii_case("all-linear") => {
                Ok(module != "lm_head")
            }
            Self::Expression(expression) => {
                let whole = regex(&format!("^(?:{expression})$"))?;
                Ok(whole.is_match(module).unwrap_or(false))
            }
        }
    }
}

/// The value of the first key that matches the end of a module's name.
fn by_end_of_name<'a>(patterns: &'a Map<String, Value>, module: &str) -> Option<&'a Value> {
    patterns.iter().find_map(|(key, value)| {
        let matches = end_of_name(key).ok()?.is_match(module).unwrap_or(false);
        matches.then_some(value)
    })
}

fn end_of_name(key: &str) -> Result<Regex, String> {
    regex(&format!(r"^(?:.*\.)?(?:{key})$"))
}

fn regex(expression: &str) -> Result<Regex, String> {
    Regex::new(expression).map_err(|e| format!("expression `{expression}`: {e}"))
}

/// Refuses what would change the result and is not supported.
fn refuse(path: &Path, map: &Map<String, Value>) -> Result<(), ModelError> {
    let unsupported = |what: String| Err(ModelError::Unsupported { path: path.into(), what });
    let text = |key: &str| map.get(key).and_then(Value::as_str);
    match text("peft_type") {
        Some("LORA") => {}
        Some(other) => {
            return unsupported(format!("an adapter of type {other}; supported is LORA"));
        }
        None => {
            let what = "`peft_type` is missing; expected LORA".into();
            return Err(ModelError::Format { path: path.into(), what });
        }
    }
    if let Some(bias) = text("bias").filter(|&bias| bias != "none") {
        return unsupported(format!("`bias` {bias}: trained biases; supported is none"));
    }
    if let Some(init) = text("init_lora_weights").filter(|init| {
        let changes_base = ["pissa", "olora", "corda", "loftq", "lora_ga"];
        changes_base.iter().any(|name| init.to_lowercase().starts_with(name))
    }) {
        return unsupported(format!(
            "`init_lora_weights` {init}, which changes the base model; convert the adapter to \
             plain LoRA with PEFT (`path_initial_model_for_weight_conversion`)"
        ));
    }
    if let Some(pattern) = map.get("layers_pattern").filter(|&value| truthy(value))
        && pattern != "layers"
        && *pattern != serde_json::json!(["layers"])
    {
        return unsupported(format!("`layers_pattern` {pattern}; supported is layers"));
    }
    const REFUSED: [&str; 8] = [
        "fan_in_fan_out",
        "modules_to_save",
        "lora_bias",
        "layer_replication",
        "trainable_token_indices",
        "target_parameters",
        "alora_invocation_tokens",
        "arrow_config",
    ];
    for (key, value) in map.iter().filter(|(_, value)| truthy(value)) {
        // DoRA (`use_dora`) and whatever else changes the formula.
        let variant = key.starts_with("use_") && key != "use_rslora";
        if variant || REFUSED.contains(&key.as_str()) {
            return unsupported(format!("`{key}` {value}: supported is plain LoRA without it"));
        }
    }
    Ok(())
}

/// As Python sees it.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<LoraConfig, String> {
        LoraConfig::parse(Path::new("a"), json.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn modules_match_as_in_peft() {
        let q = "model.layers.1.self_attn.q_proj";
        for (targets, expected) in [
            (r#"["q_proj"]"#, Some(true)),
            (r#"["roj"]"#, Some(false)),
            (r#"["model.layers.1.self_attn.q_proj"]"#, Some(true)),
            (r#""all-linear""#, Some(true)),
            (r#"".*\\.self_attn\\.[qv]_proj""#, Some(true)),
            (r#""self_attn\\.[qv]_proj""#, Some(false)),
            ("null", None),
        ] {
            let json = format!(r#"{{"peft_type": "LORA", "target_modules": {targets}}}"#);
            assert_eq!(parse(&json).unwrap().targets(q), expected, "{targets}");
        }
        let all = parse(r#"{"peft_type": "LORA", "target_modules": "all-linear"}"#).unwrap();
        assert_eq!(all.targets("lm_head"), Some(false));
        let some = r#"{"peft_type": "LORA", "target_modules": ["q_proj"],
            "layers_to_transform": [0], "exclude_modules": ["x"]}"#;
        assert_eq!(parse(some).unwrap().targets(q), Some(false));
    }

    #[test]
    fn ranks_and_scales() {
        let json = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": true,
            "rank_pattern": {"layers.1.self_attn.q_proj": 16}, "alpha_pattern": {"k_proj": 2.0}}"#;
        let config = parse(json).unwrap();
        let scale = |module: &str| config.scale(&format!("model.layers.{module}_proj"));
        assert_eq!(config.rank("model.layers.1.self_attn.q_proj"), 16);
        assert_eq!(config.rank("model.layers.11.self_attn.q_proj"), 4);
        assert_eq!(scale("1.self_attn.q"), 2.0);
        assert_eq!(scale("0.self_attn.q"), 4.0);
        assert_eq!(scale("0.self_attn.k"), 1.0);
    }

    #[test]
    fn what_is_not_plain_lora_is_refused() {
        for (field, part) in [
            (r#""use_dora": true"#, "`use_dora`"),
            (r#""bias": "all""#, "`bias` all"),
            (r#""modules_to_save": ["lm_head"]"#, "`modules_to_save`"),
            (r#""fan_in_fan_out": true"#, "`fan_in_fan_out`"),
            (r#""init_lora_weights": "pissa_niter_4""#, "changes the base"),
            (r#""r": 0"#, "`r`: expected a rank from 1"),
            (r#""r": -1"#, "invalid value"),
            (r#""rank_pattern": {"q": 0}"#, "`rank_pattern.q`"),
            (r#""rank_pattern": {"q(": 4}"#, "expression"),
            (r#""alpha_pattern": {"q": "x"}"#, "expected a number"),
            (r#""target_modules": "(""#, "expression"),
            (r#""target_modules": 3"#, "untagged enum"),
        ] {
            let error = parse(&format!(r#"{{"peft_type": "LORA", {field}}}"#)).unwrap_err();
            assert!(error.contains(part), "{field}: {error}");
        }
        assert!(parse(r#"{"peft_type": "IA3"}"#).unwrap_err().contains("IA3"));
        assert!(parse("{}").unwrap_err().contains("`peft_type` is missing"));
        assert!(parse("[]").is_err() && parse("").is_err());
    }
}
