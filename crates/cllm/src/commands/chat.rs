//! `cllm chat`: a conversation in the terminal.

use clap::Args;

use crate::cli::{DecodeArgs, ModelArgs};

/// Talk with a model in the terminal.
///
/// Ctrl-C stops the current answer only. Commands: /reset forgets the conversation,
/// /help lists the commands, /exit or Ctrl-D leaves. Standard input may be a pipe.
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// A system message before the conversation.
    #[arg(long, env = "CLLM_SYSTEM", value_name = "TEXT")]
    system: Option<String>,

    #[command(flatten)]
    decode: DecodeArgs,

    #[command(flatten)]
    model: ModelArgs,
}

/// Talks until the user leaves.
pub(crate) fn run(_arguments: ChatArgs) -> anyhow::Result<()> {
    Ok(())
}
