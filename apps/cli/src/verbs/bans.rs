//! `davy ban` and `davy unban`: what they take.

use clap::Args;
use davy_model::Prefix;

use crate::clock;

/// Options of `davy ban`.
#[derive(Debug, Args)]
pub(crate) struct Ban {
    /// An address or a network, such as 203.0.113.9 or 2001:db8:7::/48
    #[arg(value_name = "ADDRESS|NETWORK")]
    pub(crate) who: Prefix,
    /// For how long, such as 1h, a week at the most; it ends by itself
    #[arg(long = "for", value_name = "LENGTH", value_parser = clock::length)]
    pub(crate) length: u32,
    /// Only from this TCP and UDP port; may be given up to fifteen times
    #[arg(long = "port", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ports: Vec<u16>,
    /// Tell the sender that he is refused, instead of letting him wait
    #[arg(long)]
    pub(crate) reject: bool,
}

/// Options of `davy unban`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whom").required(true))]
pub(crate) struct Unban {
    /// An address that is banned, or a network: whoever is banned within it is let in
    #[arg(value_name = "ADDRESS|NETWORK", group = "whom")]
    pub(crate) who: Option<Prefix>,
    /// Everybody
    #[arg(long, group = "whom")]
    pub(crate) all: bool,
}
