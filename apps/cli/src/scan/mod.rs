//! `davy scan`: files, folders and the memory of processes, looked at by the scan worker. It needs no agent; only quarantine
//! does, because one place on a machine decides who may act.

mod rules;
mod tell;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use davy_agent::Paths;
use davy_sweep::{Clamd, Plan, Recipe, Scanner, Sweep};
use rustix::fs::{Access, access};

use crate::answer::Answering;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::verbs;
use tell::Telling;

/// `davy scan`.
pub(crate) fn run(
    client: &Client,
    paths: &Paths,
    answering: &Answering,
    asked: &verbs::Scan,
) -> Result<Exit, Failure> {
    if asked.quarantine {
        client.may_change().map_err(|failure| Failure {
            message: format!(
                "--quarantine needs an agent, which alone may take files away: {}",
                failure.message
            ),
            ..failure
        })?;
    }
    let failed = |error: anyhow::Error| Failure::new(Exit::Failed, format!("{error:#}"));
    let mut recipe = Recipe::new(rules::gather(&asked.rules)?);
    recipe.hashes = rules::hashes(&asked.hashes)?;
    recipe.archives = !asked.no_archives;
    recipe.programs = asked.programs;
    let digest = recipe.digest();
    let clamd = asked.clamd.clone().map(reach_clamd).transpose()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let heard = signal_hook::flag::register(signal, Arc::clone(&stop));
        heard.map_err(|e| Failure::new(Exit::Failed, format!("cannot listen for signals: {e}")))?;
    }
    let begin = Instant::now();
    let mut scanner = Scanner::new(recipe).until(Arc::clone(&stop));
    let plan = Plan {
        paths: asked
            .paths
            .iter()
            .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
            .collect(),
        pids: asked.pids.clone(),
        // What clamd knows changes by itself, so what it found clean is asked again.
        clean: writable(&paths.state)
            .filter(|_| clamd.is_none())
            .map(|state| state.join("scan").join("clean")),
        remembered: 0,
        all: asked.all || asked.programs,
        resume: asked.resume,
        one_file_system: asked.one_file_system,
        cpu_percent: asked.cpu,
        clamd,
        stop,
    };
    let mut telling = Telling::new(answering, asked.quarantine.then_some(client), begin);
    let tally = Sweep::run(&plan, digest, &mut scanner, &mut telling);
    let restarts = scanner.restarts();
    scanner.rest();
    telling.end(&tally.map_err(failed)?, restarts)
}

fn reach_clamd(socket: PathBuf) -> Result<Clamd, Failure> {
    Clamd::at(socket.clone()).map_err(|error| {
        Failure::new(Exit::NotFound, format!("clamd does not answer at {}: {error}", socket.display()))
            .hint("install clamav-daemon, start it, or name its socket: --clamd SOCKET")
    })
}

/// The state folder, or the nearest one above it that exists, when this user may write there.
fn writable(state: &Path) -> Option<PathBuf> {
    let there = state.ancestors().find(|path| path.exists())?;
    access(there, Access::WRITE_OK).ok().map(|()| state.to_owned())
}
