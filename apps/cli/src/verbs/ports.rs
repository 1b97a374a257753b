//! `davy ports`: its verbs with their help.

use clap::{Args, Subcommand};

use crate::clock;

/// Options of `davy ports`.
#[derive(Debug, Args)]
pub(crate) struct Ports {
    /// What to do; without it, the ports are listed
    #[command(subcommand)]
    pub(crate) verb: Option<PortsVerb>,
}

/// Verbs on ports.
#[derive(Debug, Subcommand)]
pub(crate) enum PortsVerb {
    /// Close every port but those that the policy opens, for a trial that undoes itself
    #[command(
        after_help = "The policy must say `[inbound] mode = \"enforce\"`. Connections that are there go on, and the addresses that \
                      administrators (root, and members of sudo, wheel or admin) are logged in from by SSH are let in while they are; \
                      what would keep one of them from logging in again is refused.\n\nExamples:\n  sudo davy ports apply\n  sudo davy ports apply --confirm-within 5m"
    )]
    Apply(PortsApply),
    /// Keep closed what is closed for a trial
    #[command(after_help = "Examples:\n  sudo davy ports confirm")]
    Confirm,
    /// Open every port at once, as far as Davy is concerned
    #[command(after_help = "Examples:\n  sudo davy ports open")]
    Open,
}

/// Options of `davy ports apply`.
#[derive(Debug, Args)]
pub(crate) struct PortsApply {
    /// Undo it by itself unless it is confirmed within this time, 5s to 1h
    #[arg(long, value_name = "LENGTH", default_value = "60s", value_parser = trial)]
    pub(crate) confirm_within: u32,
    /// Let entries pass that open nothing, because nobody listens there now
    #[arg(long)]
    pub(crate) unused: bool,
    /// Also when an administrator who is logged in by SSH now could not log in again from there (by the port after any redirection)
    #[arg(long)]
    pub(crate) anyway: bool,
}

/// A length that leaves time to look whether a way in still works.
fn trial(text: &str) -> Result<u32, String> {
    match clock::length(text)? {
        seconds @ 5..=3600 => Ok(seconds),
        seconds => Err(format!(
            "{seconds} s is not from 5s to 1h: whoever confirms must first see that a way in works"
        )),
    }
}
