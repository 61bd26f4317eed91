//! `caveau`: run standard container images in an attested VM.
//!
//! This is glue: the command line in [`args`], one module a command in [`commands`], and what they do in the crates below.
//! The same program is the supervisor of each group and its software secure processor (`__supervise`, `__softsp`).

mod args;
mod channel;
mod commands;
mod container;
mod endorsement;
mod exit;
mod fetch;
mod files;
mod folders;
mod streams;
mod tee;
mod ui;
mod units;
mod words;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser as _};

use crate::{
    args::{Cli, Command, Owner},
    exit::{CodedError, ENGINE_FAILED, FAILURE, Outcome},
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    // A supervisor or secure processor is a process of its own kind: it says how it ends.
    match &cli.command {
        Command::Supervise(internal) => return caveau_launch::supervise(&internal.arguments),
        Command::SoftSp(internal) => return caveau_softsp::serve(&internal.arguments),
        _ => {}
    }
    let as_docker = matches!(cli.command, Command::Run(_) | Command::Exec(_) | Command::Owner(Owner::Exec(_)));
    match dispatch(cli) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            ui::note(false, &format!("{error:#}"));
            let own = error.downcast_ref::<CodedError>().map(|error| error.code);
            ExitCode::from(own.unwrap_or(if as_docker { ENGINE_FAILED } else { FAILURE }))
        }
    }
}

/// Prints help or what is wrong with the command line. Wrong usage of `run` and `exec` has Docker's code for it, so that
/// it cannot be mistaken for a container's own.
fn usage(error: &clap::Error) -> ExitCode {
    // A reader that has gone away needs neither.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let command = std::env::args_os().skip(1).find(|argument| !argument.to_string_lossy().starts_with('-'));
    let is = |name: &str| command.as_ref().is_some_and(|command| command == name);
    if is("run") && error.kind() == clap::error::ErrorKind::UnknownArgument {
        ui::complain("What the container's program shall get stands behind two dashes: caveau run IMAGE -- ARGS");
    }
    let as_docker = is("run") || is("exec");
    ExitCode::from(if as_docker { ENGINE_FAILED } else { FAILURE })
}

/// Runs the command.
fn dispatch(cli: Cli) -> Result<Outcome> {
    let (json, quiet) = (cli.json, cli.quiet);
    match cli.command {
        Command::Run(command) => commands::run::run(&command, quiet),
        Command::Ps(command) => commands::groups::ps(&command, json),
        Command::Logs(command) => commands::groups::logs(&command, json),
        Command::Exec(command) => commands::groups::exec(&command),
        Command::Stop(command) => commands::groups::stop(&command, quiet),
        Command::Rm(command) => commands::groups::rm(&command),
        Command::Inspect(command) => commands::groups::inspect(&command),
        Command::Stats(command) => commands::groups::stats(&command, json),
        Command::Policy(command) => commands::policy::run(command, json, quiet),
        Command::Fragment(command) => commands::fragment::run(command, json, quiet),
        Command::Attest(command) => commands::attest::run(&command, quiet),
        Command::Owner(command) => commands::owner::run(command, json, quiet),
        Command::Verify(command) => commands::verify::run(&command, json, quiet),
        Command::Measure(command) => commands::measure::run(&command, json, quiet),
        Command::Guest(command) => commands::guest::run(command, json, quiet),
        Command::Image(command) => commands::image::run(&command, json, quiet),
        Command::Layer(command) => commands::layer::run(&command, json, quiet),
        Command::Doctor(command) => commands::doctor::run(&command, json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "caveau", &mut script);
            ui::print(&String::from_utf8(script)?)?;
            Ok(Outcome::Done)
        }
        Command::Kds { address } => commands::attest::serve_certificates(address),
        Command::Supervise(_) | Command::SoftSp(_) => Ok(Outcome::Done),
    }
}
