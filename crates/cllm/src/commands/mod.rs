//! One file per command: its arguments, the plan they make, and what it does.

pub(crate) mod analyze;
pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod collect;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod extract;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod merge;
pub(crate) mod prompts;
pub(crate) mod pull;
pub(crate) mod report;
pub(crate) mod sft;
pub(crate) mod train;
pub(crate) mod training;

use crate::cli::Command;

/// Runs a command.
pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Generate(arguments) => generate::run(arguments),
        Command::Chat(arguments) => chat::run(arguments),
        Command::Collect(arguments) => collect::run(*arguments),
        Command::Sft(arguments) => sft::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Bench(command) => bench::run(command),
        Command::Eval(command) => eval::run(command),
        Command::Analyze(arguments) => analyze::run(&arguments),
        Command::Report(arguments) => report::run(*arguments),
        Command::Prompts(arguments) => prompts::run(&arguments),
        Command::Pull(arguments) => pull::run(&arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Merge(arguments) => merge::run(arguments),
        Command::Extract(arguments) => extract::run(&arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Completions(arguments) => completions::run(arguments),
    }
}
