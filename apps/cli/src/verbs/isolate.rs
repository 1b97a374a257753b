//! What `davy isolate` takes.

use clap::Args;
use davy_model::Prefix;

use crate::clock;

/// Options of `davy isolate`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct Isolate {
    /// For how long, such as 30m, a week at the most; it ends by itself
    #[arg(long = "for", value_name = "LENGTH", value_parser = clock::length, group = "what")]
    pub(crate) length: Option<u32>,
    /// End every isolation now
    #[arg(long, group = "what", conflicts_with_all = ["cgroup", "keep", "anyway"])]
    pub(crate) end: bool,
    /// Only this cgroup and all below it, such as /system.slice/nginx.service; everybody else goes on as before
    #[arg(long = "in", value_name = "CGROUP")]
    pub(crate) cgroup: Option<String>,
    /// A network or an address that stays reachable, and that reaches this host; may be given more than once
    #[arg(long, value_name = "NETWORK")]
    pub(crate) keep: Vec<Prefix>,
    /// Isolate the host even if nobody is logged in over the network, who could reach it again before it ends
    #[arg(long)]
    pub(crate) anyway: bool,
}
