//! `davy outbound`: its verbs with their help.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use davy_model::Timestamp;

use crate::clock;

/// Verbs on connections that this host makes.
#[derive(Debug, Subcommand)]
pub(crate) enum Outbound {
    /// What the policy allows, where names lead to now, and how much was refused
    #[command(
        after_help = "Examples:\n  davy outbound status\n  davy outbound status --json | jq '.names[].name'"
    )]
    Status,
    /// From who talked to whom to entries for the policy
    #[command(
        after_help = "Examples:\n  davy outbound learn\n  davy outbound learn --since 7d > learned.toml\n  sudo davy outbound learn --accept\n  davy outbound learn --json | jq '.[].to'"
    )]
    Learn(OutboundLearn),
    /// What a policy would have refused of what was seen
    #[command(
        after_help = "Scopes are not looked at: shown is what would have been refused wherever the policy enforces.\n\nExamples:\n  davy outbound replay --since 7d\n  davy outbound replay proposed.toml\n  davy outbound replay --json | jq '.missing[].to'"
    )]
    Replay(OutboundReplay),
}

/// Options of `davy outbound learn`.
#[derive(Debug, Args)]
pub(crate) struct OutboundLearn {
    /// Last seen not before: a time ago (10m, 2h, 7d) or a moment (RFC 3339, or local time)
    #[arg(long, value_name = "WHEN", value_parser = clock::since)]
    pub(crate) since: Option<Timestamp>,
    /// Add what the policy does not allow yet, and is not odd, to the policy's file
    #[arg(long)]
    pub(crate) accept: bool,
}

/// Options of `davy outbound replay`.
#[derive(Debug, Args)]
pub(crate) struct OutboundReplay {
    /// The policy; without it, the one that the agent reads
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Last seen not before: a time ago (10m, 2h, 7d) or a moment (RFC 3339, or local time)
    #[arg(long, value_name = "WHEN", value_parser = clock::since)]
    pub(crate) since: Option<Timestamp>,
}
