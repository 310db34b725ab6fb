//! `cllm`: decode Llama-family models several tokens a forward, exactly.
//!
//! The program is effects around pure parts: [`cli`] says what can be typed, each file of
//! [`commands`] turns raw arguments into a validated plan and runs it, [`exit`] is the one
//! place that turns errors into messages and exit codes. Standard output is data,
//! standard error is for people.

mod allocator;
mod analysis;
mod answer_text;
mod answer_tokens;
mod arithmetic;
mod bandwidth;
mod cli;
mod collect;
mod colour;
mod commands;
mod console;
mod contest;
mod cost;
mod decoder;
mod exit;
mod figures;
mod interrupt;
mod machine;
mod named_file;
mod progress;
mod prompt;
mod record;
mod replay;
mod run;
mod sampling;
mod session;
mod source;
mod stopwatch;
mod table;
mod task;
mod trace;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Cli::parse();
    match commands::run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
