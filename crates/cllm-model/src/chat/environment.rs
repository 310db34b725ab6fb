//! The Jinja environment of chat templates, as transformers sets up jinja2.
//!
//! Block tags take their line's whitespace with them (`trim_blocks`, `lstrip_blocks`),
//! nothing is escaped for HTML, loops can break, and three functions are added:
//! `raise_exception`, `strftime_now` and the `tojson` filter of [`super::python_json`].
//! Templates come with the model from strangers, so work is limited ("fuel").

use std::fmt;

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use super::{generation, python_json};

/// Where `strftime_now` takes the time from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The system's clock and time zone, read only if the template asks.
    System,
    /// Always this time, for results that repeat.
    Fixed(DateTime),
}

/// Instructions a rendering may take. Real templates take a few hundred a message, those
/// that walk over characters one or two dozen a character: this is enough for a megabyte,
/// and stops a template that never ends after a second or two.
const FUEL: u64 = 20_000_000;

pub(super) fn new(clock: Clock) -> Environment<'static> {
    let mut environment = Environment::new();
    // The default delimiters cannot clash, so this is never an error.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.add_function("raise_exception", raise_exception);
    environment.add_function(generation::FUNCTION, generation::block);
    environment.add_filter("tojson", python_json::tojson);
    set_clock(&mut environment, clock);
    environment
}

pub(super) fn set_clock(environment: &mut Environment<'static>, clock: Clock) {
    environment.add_function("strftime_now", move |format: &str| {
        let now = match clock {
            Clock::System => jiff::Zoned::now().datetime(),
            Clock::Fixed(time) => time,
        };
        jiff::fmt::strtime::format(format, now).map_err(|error| {
            Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}"))
        })
    });
}

/// What a template says is wrong with the conversation.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise_exception(message: String) -> Result<minijinja::Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, "raise_exception");
    Err(error.with_source(Raised(message)))
}

/// The message of `raise_exception`, if that is the cause of the error.
pub(super) fn raised(error: &Error) -> Option<String> {
    let mut cause = std::error::Error::source(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return Some(message.clone());
        }
        cause = current.source();
    }
    None
}
