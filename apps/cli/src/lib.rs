//! The command line of Davy: every verb, its answers for people and, with `--json`, for programs.
//!
//! Verbs ask the running agent over its sockets ([`davy_wire`]) and decide nothing themselves; only `davy run` and
//! `davy agent` become the agent. What is shown passes through one escape, so that no text an attacker chose can
//! speak to the terminal.

mod actions;
mod amount;
mod answer;
mod bans;
mod change;
mod client;
mod clock;
mod connections;
mod document;
mod drill;
mod escape;
mod events;
mod explain;
mod failure;
mod findings;
mod incidents;
mod outbound;
mod page;
mod policy;
mod ports;
mod proof;
mod quarantine;
mod scan;
mod scans;
mod shell;
mod status;
mod story;
mod subject;
mod table;
mod top;
mod tree;
mod trust;
mod verbs;
mod watch;
mod words;

#[cfg(test)]
#[path = "../tests/canned/mod.rs"]
mod canned;
#[cfg(test)]
#[path = "../tests/golden_file/mod.rs"]
mod golden_file;
#[cfg(test)]
mod hostile;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use davy_agent::Paths;

use answer::Answering;
use client::Client;
use davy_wire::Command;
use failure::{Exit, Failure};
use verbs::{Cli, Verb};

/// Runs one command line and returns what the process exits with.
pub fn start(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = Cli::parse_from(args);
    let answering = Answering::new(&cli.common);
    match run(&cli, &answering) {
        Ok(exit) => exit.into(),
        // Whoever read the answer has seen enough of it (`davy events | head`).
        Err(failure) if failure.exit == Exit::Done => Exit::Done.into(),
        Err(failure) => {
            answering.failure(&failure);
            failure.exit.into()
        }
    }
}

fn run(cli: &Cli, answering: &Answering) -> Result<Exit, Failure> {
    let paths = Paths::new(cli.common.base_dir.as_deref());
    let client = Client::new(paths.clone());
    match &cli.verb {
        Verb::Run => return watch::run(paths, answering, true, false),
        Verb::Agent(asked) => return watch::run(paths, answering, false, asked.pin),
        Verb::Stop => change::stop(&client, answering, &paths)?,
        Verb::Status => status::run(&client, answering)?,
        Verb::Events(asked) => events::run(&client, answering, asked)?,
        Verb::Findings(asked) => findings::run(&client, answering, asked)?,
        Verb::Incidents(asked) => incidents::run(&client, answering, asked)?,
        Verb::Connections(asked) => connections::run(&client, answering, asked)?,
        Verb::Explain(about) => explain::run(&client, answering, about.subject()?)?,
        Verb::Undo(about) => change::undo(&client, answering, about.subject()?)?,
        Verb::Act(asked) => change::act(&client, answering, asked)?,
        Verb::Disarm(asked) => change::disarm(&client, answering, asked)?,
        Verb::Isolate(asked) => change::isolate(&client, answering, asked)?,
        Verb::Ban(asked) => bans::ban(&client, answering, asked)?,
        Verb::Bans => bans::list(&client, answering)?,
        Verb::Unban(asked) => bans::unban(&client, answering, asked)?,
        Verb::Actions(asked) => actions::run(&client, answering, asked)?,
        Verb::Scans(asked) => scans::run(&client, answering, asked)?,
        Verb::Quarantine(verb) => quarantine::run(verb, &client, answering)?,
        Verb::Ports(asked) => ports::run(&client, answering, asked)?,
        Verb::Outbound(verb) => outbound::run(verb, &paths, &client, answering)?,
        Verb::Trust(verb) => return trust::run(verb, &client, answering),
        Verb::Policy(verb) => return policy(verb, &paths, &client, answering),
        Verb::Completions(asked) => shell::completions(asked)?,
        Verb::Man(asked) => shell::manual(answering, asked)?,
        Verb::Top(asked) => top::run(&client, answering, asked)?,
        Verb::Scan(asked) => return scan::run(&client, &paths, answering, asked),
        Verb::Drill(asked) => return drill::run(&client, &paths, answering, asked),
        Verb::DrillAct(asked) => drill::act(asked)?,
        Verb::Worker(asked) => worker(asked.which)?,
    }
    Ok(Exit::Done)
}

/// Becomes a worker. It has no log: what it says on standard error is the agent's to see.
fn worker(which: verbs::WhichWorker) -> Result<(), Failure> {
    let outcome = match which {
        verbs::WhichWorker::Inspect => davy_worker::inspect(),
        verbs::WhichWorker::Scan => davy_worker::scan(),
        verbs::WhichWorker::Gate => davy_worker::keep_gate(),
    };
    outcome.map_err(|error| Failure::new(Exit::Failed, format!("{error:#}")))
}

fn policy(
    verb: &verbs::Policy,
    paths: &Paths,
    client: &Client,
    answering: &Answering,
) -> Result<Exit, Failure> {
    match verb {
        verbs::Policy::Check(asked) => policy::check(paths, answering, asked.file.as_deref()),
        verbs::Policy::Show(asked) => policy::show(paths, answering, asked.file.as_deref()),
        verbs::Policy::Test(asked) => policy::test(paths, answering, asked.file.as_deref()),
        verbs::Policy::Schema => policy::schema(answering),
        verbs::Policy::Reload => {
            change::order(client, answering, Command::Reload)?;
            Ok(Exit::Done)
        }
    }
}
