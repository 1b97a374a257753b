//! `davy outbound`: its verbs with their help.

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
        after_help = "Examples:\n  davy outbound learn\n  davy outbound learn --since 7d > learned.toml\n  davy outbound learn --json | jq '.[].to'"
    )]
    Learn(OutboundLearn),
}

/// Options of `davy outbound learn`.
#[derive(Debug, Args)]
pub(crate) struct OutboundLearn {
    /// Last seen not before: a time ago (10m, 2h, 7d) or a moment (RFC 3339, or local time)
    #[arg(long, value_name = "WHEN", value_parser = clock::since)]
    pub(crate) since: Option<Timestamp>,
}
