//! `davy run` and `davy agent`: this process becomes the agent.

use std::io::IsTerminal;

use davy_agent::{AgentOptions, Ending, Paths};
use tracing_subscriber::EnvFilter;

use crate::answer::Answering;
use crate::failure::{Exit, Failure};

/// Watches this host until told to stop. `pin` keeps enforcement in the kernel while the agent restarts.
pub(crate) fn run(paths: Paths, answering: &Answering, banner: bool, pin: bool) -> Result<Exit, Failure> {
    log(answering);
    let options = AgentOptions { paths, foreground_banner: banner && !answering.quiet, pin };
    match davy_agent::run(options) {
        // Only a service is told apart: nobody starts `davy run` again by himself.
        Ok(Ending::Ordered) if !banner => Ok(Exit::Ordered),
        Ok(_) => Ok(Exit::Done),
        Err(error) => Err(Failure::new(Exit::Failed, format!("{error:#}"))),
    }
}

/// The log goes to standard error: without times and colours where the journal takes it.
fn log(answering: &Answering) {
    let level = match (answering.quiet, answering.verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_env("DAVY_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,davy={level},{}", rooms(level))));
    // The journal stamps lines itself.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second agent in one process would find the log set already; there is none.
    let _ = if journal {
        log.with_ansi(false).without_time().try_init()
    } else {
        log.with_ansi(answering.error_color()).try_init()
    };
}

/// The filter for Davy's own crates: a dependency's chatter is no part of Davy's log.
fn rooms(level: &str) -> String {
    ["agent", "kernel", "proc", "files", "store", "respond", "detect"]
        .map(|room| format!("davy_{room}={level}"))
        .join(",")
}
