//! `davy connections`: its options with their help.

use clap::Args;
use davy_model::Timestamp;

use crate::clock;

/// Options of `davy connections`.
#[derive(Debug, Args)]
pub(crate) struct Connections {
    /// As a tree: services, their programs, and with whom these talk
    #[arg(long)]
    pub(crate) graph: bool,
    /// Only of this systemd service, with .service or without, or of the container whose id begins so
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Only of this program: its path, or the last part of it
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) process: Option<String>,
    /// Only with other ends on the internet
    #[arg(long, conflicts_with = "inside")]
    pub(crate) outside: bool,
    /// Only with other ends on this host and in private networks
    #[arg(long)]
    pub(crate) inside: bool,
    /// Last seen not before: a time ago (10m, 2h, 7d) or a moment (RFC 3339, or local time)
    #[arg(long, value_name = "WHEN", value_parser = clock::since)]
    pub(crate) since: Option<Timestamp>,
    /// At most so many of those seen last
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}
