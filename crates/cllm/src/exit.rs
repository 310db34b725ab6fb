//! The one place that maps errors to messages and exit codes.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; also when the reader of standard output went away |
//! | 1 | it failed, or an answer differs from autoregressive decoding |
//! | 2 | bad input: arguments, prompt, model file |
//! | 130 | stopped by Ctrl-C |

use std::io;
use std::process::ExitCode;

use cllm_decode::LmError;
use cllm_model::ModelError;

use crate::console::{self, RED};
use crate::source::SourceError;

/// Input that cannot be used, with what was expected, what was found and where.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadInput(pub(crate) String);

/// The user pressed Ctrl-C.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// Returns early with a [`BadInput`] error.
macro_rules! bad_input {
    ($($arg:tt)*) => {
        return Err($crate::exit::BadInput(format!($($arg)*)).into())
    };
}
pub(crate) use bad_input;

/// Says what went wrong on standard error and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let code = code(error);
    if code != 0 && code != 130 {
        console::note(format_args!("{RED}error:{RED:#} {}", one_line(error)));
    }
    ExitCode::from(code)
}

/// The error and its causes in one line. A cause that its parent already quotes is left
/// out.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().replace(['\n', '\r'], " ");
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            if io.kind() == io::ErrorKind::BrokenPipe {
                return 0;
            }
        } else if cause.is::<Interrupted>() {
            return 130;
        } else if cause.is::<BadInput>() || cause.is::<ModelError>() {
            return 2;
        } else if let Some(source) = cause.downcast_ref::<SourceError>() {
            return source.exit_code();
        } else if let Some(lm) = cause.downcast_ref::<LmError>() {
            // An inconsistent batch is our mistake; everything else came from outside.
            return if matches!(lm, LmError::BadBatch { .. }) { 1 } else { 2 };
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn errors_map_to_codes() {
        let check = |error: anyhow::Error, expected: u8| {
            assert_eq!(code(&error), expected, "{error:#}");
            assert_eq!(code(&error.context("while doing something")), expected);
        };
        check(anyhow!("anything"), 1);
        check(BadInput("n = 0".into()).into(), 2);
        check(ModelError::Text("no template".into()).into(), 2);
        check(LmError::EmptyPrompt.into(), 2);
        check(LmError::NotFinite { position: 3 }.into(), 2);
        check(LmError::BadBatch { row: 0, what: "wrong".into() }.into(), 1);
        check(Interrupted.into(), 130);
        check(io::Error::from(io::ErrorKind::BrokenPipe).into(), 0);
        check(io::Error::from(io::ErrorKind::StorageFull).into(), 1);
    }

    #[test]
    fn messages_are_one_line_without_repetition() {
        let error = Err::<(), _>(BadInput("line 3:\nno `prompt`".into()))
            .context("prompts.jsonl")
            .unwrap_err();
        assert_eq!(one_line(&error), "prompts.jsonl: line 3: no `prompt`");
        let quoted = io::Error::other("disk on fire");
        let error = anyhow::Error::from(ModelError::Io { path: "m.gguf".into(), source: quoted });
        assert_eq!(one_line(&error), "m.gguf: disk on fire");
    }
}
