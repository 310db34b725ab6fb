//! `cllm chat`: a conversation in the terminal.
//!
//! The KV cache lives as long as the conversation: every turn re-uses the part it shares
//! with what was said before, so only the new message is read. Ctrl-C stops the answer
//! under way; what it has said by then stays in the conversation.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;
use cllm_model::Message;
use rustyline::error::ReadlineError;

use crate::cli::{DecodeArgs, ModelArgs};
use crate::console;
use crate::exit::{self, bad_input};
use crate::figures::Figures;
use crate::prompt::Prompt;
use crate::session::{Session, Text};

const COMMANDS: &str = "\
/reset  forget the conversation
/help   show this list
/exit   leave (or Ctrl-D)
Ctrl-C stops the answer under way.";

/// Talk with a model in the terminal.
///
/// Ctrl-C stops the current answer only. Commands: /reset forgets the conversation,
/// /help lists the commands, /exit or Ctrl-D leaves. Standard input may be a pipe with
/// one message a line.
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
pub(crate) fn run(arguments: ChatArgs) -> anyhow::Result<()> {
    let mut session = Session::load(&arguments.model)?;
    if session.model.chat.is_none() {
        bad_input!(
            "{} has no chat template, so it cannot chat: use `cllm generate --raw`",
            session.name
        );
    }
    let decode = &arguments.decode;
    session.prepare(&[decode.decoder], decode.seed, &arguments.model, &decode.draft)?;
    let system = arguments.system.as_deref().map(|text| Message::new("system", text));
    let beginning: Vec<Message> = system.into_iter().collect();
    let mut messages = beginning.clone();
    let mut memory = session.new_text();
    let mut lines = Lines::new()?;
    if lines.interactive() {
        console::aside(format_args!(
            "{}, decoder {}; /help lists the commands",
            session.name, arguments.decode.decoder
        ));
    }
    while let Some(line) = lines.next()? {
        match said(&line) {
            Said::Nothing => {}
            Said::Exit => break,
            Said::Help => console::aside(COMMANDS),
            Said::Reset => {
                messages.clone_from(&beginning);
                console::aside("the conversation is forgotten");
            }
            Said::Unknown(command) => {
                console::aside(format_args!("no command {command}; /help lists them"));
            }
            Said::Message(text) => {
                messages.push(Message::new("user", text));
                match answer(&mut session, &mut memory, &messages, &arguments.decode) {
                    Ok(text) => messages.push(Message::new("assistant", &text)),
                    // A conversation that no longer fits can be reset and go on.
                    Err(error) if lines.interactive() && !is_broken_pipe(&error) => {
                        messages.pop();
                        let error = exit::one_line(&error);
                        console::note(format_args!("{error}; /reset forgets the conversation"));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

/// A line, understood.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    Nothing,
    Message(&'a str),
    Reset,
    Help,
    Exit,
    Unknown(&'a str),
}

fn said(line: &str) -> Said<'_> {
    let line = line.trim();
    match line {
        "" => Said::Nothing,
        "/exit" | "/quit" | "/bye" => Said::Exit,
        "/help" | "/?" => Said::Help,
        "/reset" | "/clear" => Said::Reset,
        // A slash followed by a word alone; a path or a division is a message.
        _ if line.strip_prefix('/').is_some_and(|word| word.chars().all(char::is_alphabetic)) => {
            Said::Unknown(line)
        }
        _ => Said::Message(line),
    }
}

/// Answers the last message, streaming the text, and returns it.
fn answer(
    session: &mut Session,
    memory: &mut Text,
    messages: &[Message],
    settings: &DecodeArgs,
) -> anyhow::Result<String> {
    let mut request = session.request(&Prompt::Chat(messages.to_vec()), settings.max_new_tokens)?;
    request.sampling = settings.sampling.sampling(settings.seed, 0, None);
    let mut out = console::out();
    let reply = session.reply(memory, settings, &request, &mut |piece| {
        out.write_all(piece.as_bytes())?;
        out.flush()
    })?;
    writeln!(out)?;
    out.flush()?;
    console::aside(Figures::of([&reply.run]));
    Ok(reply.text)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Lines from a terminal with editing and history, or from a pipe.
enum Lines {
    Terminal(Box<rustyline::DefaultEditor>),
    Pipe(io::Lines<io::StdinLock<'static>>),
}

impl Lines {
    fn new() -> anyhow::Result<Self> {
        if io::stdin().is_terminal() {
            Ok(Self::Terminal(Box::new(rustyline::DefaultEditor::new()?)))
        } else {
            Ok(Self::Pipe(io::stdin().lock().lines()))
        }
    }

    fn interactive(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line; `None` when there is no more.
    fn next(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Terminal(editor) => loop {
                match editor.readline("> ") {
                    Ok(line) => {
                        editor.add_history_entry(&line)?;
                        return Ok(Some(line));
                    }
                    // Ctrl-C at the prompt drops the line, as in a shell.
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            },
            Self::Pipe(lines) => match lines.next() {
                Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    bad_input!("standard input: not UTF-8 text")
                }
                other => Ok(other.transpose()?),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_messages() {
        let check = |line: &str, expected: Said<'_>| assert_eq!(said(line), expected, "{line:?}");
        check("  ", Said::Nothing);
        check(" hello ", Said::Message("hello"));
        check("/reset", Said::Reset);
        check(" /exit\n", Said::Exit);
        check("/help", Said::Help);
        check("/rest", Said::Unknown("/rest"));
        check("/usr/bin is what?", Said::Message("/usr/bin is what?"));
        check("1/2", Said::Message("1/2"));
    }
}
