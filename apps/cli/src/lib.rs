//! The command line of Davy: every verb, its answers for people and, with `--json`, for programs.
//!
//! Verbs ask the running agent over its sockets ([`davy_wire`]) and decide nothing themselves; only `davy run` and
//! `davy agent` become the agent. What is shown passes through one escape, so that no text an attacker chose can
//! speak to the terminal.

mod amount;
mod answer;
mod client;
mod clock;
mod document;
mod escape;
mod events;
mod failure;
mod incidents;
mod page;
mod status;
mod story;
mod subject;
mod table;
mod tree;
mod verbs;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use davy_agent::Paths;

use answer::Answering;
use client::Client;
use failure::{Exit, Failure};
use verbs::{Cli, Verb};

/// Runs one command line and returns what the process exits with.
pub fn start(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = Cli::parse_from(args);
    let answering = Answering::new(&cli.common);
    match run(&cli, &answering) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            answering.failure(&failure);
            failure.exit.into()
        }
    }
}

fn run(cli: &Cli, answering: &Answering) -> Result<Exit, Failure> {
    let paths = Paths::new(cli.common.base_dir.as_deref());
    let client = Client::new(paths);
    match &cli.verb {
        Verb::Status => status::run(&client, answering)?,
        Verb::Incidents(asked) => incidents::run(&client, answering, asked)?,
        _ => return Err(Failure::new(Exit::Failed, "not wired yet")),
    }
    Ok(Exit::Done)
}
