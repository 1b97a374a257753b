//! `davy trust`: its verbs with their help.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::clock;

/// Verbs on trust.
#[derive(Debug, Subcommand)]
pub(crate) enum Trust {
    /// How many contents are vouched for, by whom, and what is wrong
    Status,
    /// Who vouches for a file, whether it may run, and which rule decides
    #[command(
        visible_alias = "why",
        after_help = "Examples:\n  davy trust explain /usr/bin/ls\n  davy trust why /opt/app/run --json\n\nExit codes: 0 it may run, 1 it may not."
    )]
    Explain(TrustFiles),
    /// Code that was refused or would have been, the oddest first
    #[command(after_help = "Examples:\n  davy trust pending\n  davy trust pending --json | jq '.[].sha256'")]
    Pending(TrustPending),
    /// What services started that they have no use for: shells, downloaders, compilers
    #[command(
        after_help = "Examples:\n  davy trust services\n  davy trust services --json | jq '.[].command'"
    )]
    Services(TrustPending),
    /// Let that very content run from now on, for a time or for good
    #[command(
        after_help = "Examples:\n  sudo davy trust approve 12\n  sudo davy trust approve /opt/app/run --for 7d"
    )]
    Approve(TrustApprove),
    /// Take back what was approved or learned
    #[command(
        after_help = "Examples:\n  sudo davy trust withdraw /opt/app/run\n  sudo davy trust withdraw SHA256"
    )]
    Withdraw(TrustWithdraw),
    /// From what ran to an allow-list: shown as entries for the policy, or taken as it is
    #[command(
        after_help = "Examples:\n  davy trust learn > learned.toml      to read, cut and put into the policy\n  sudo davy trust learn --accept      everything that is not odd, at once"
    )]
    Learn(TrustLearn),
    /// Make a key for manifests: KEY and KEY.pub
    #[command(after_help = "Examples:\n  davy trust keygen /root/davy.key")]
    Keygen(TrustKeygen),
    /// List the digests of files and sign the list
    #[command(
        after_help = "Examples:\n  davy trust sign --key /root/davy.key --out app.sha256 /opt/app\n  install -m 644 app.sha256 app.sha256.minisig /etc/davy/trust/"
    )]
    Sign(TrustSign),
}

/// Files.
#[derive(Debug, Args)]
pub(crate) struct TrustFiles {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// Options of `davy trust pending` and `davy trust services`.
#[derive(Debug, Args)]
pub(crate) struct TrustPending {
    /// At most so many
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

/// Options of `davy trust approve`.
#[derive(Debug, Args)]
pub(crate) struct TrustApprove {
    /// A number that `davy trust pending` shows, or a file, whose content of this moment is meant; `./7` is a file called 7
    #[arg(value_name = "ID|FILE")]
    pub(crate) what: String,
    /// For how long, such as 7d; without it for good
    #[arg(long = "for", value_name = "LENGTH", value_parser = clock::length)]
    pub(crate) length: Option<u32>,
}

/// Options of `davy trust withdraw`.
#[derive(Debug, Args)]
pub(crate) struct TrustWithdraw {
    /// A file, or a SHA-256
    #[arg(value_name = "FILE|SHA256")]
    pub(crate) what: String,
}

/// Options of `davy trust learn`.
#[derive(Debug, Args)]
pub(crate) struct TrustLearn {
    /// Let everything run that waits and is not odd
    #[arg(long)]
    pub(crate) accept: bool,
}

/// Options of `davy trust keygen`.
#[derive(Debug, Args)]
pub(crate) struct TrustKeygen {
    /// Where the secret key goes; the public one lies beside it, with .pub
    #[arg(value_name = "KEY")]
    pub(crate) key: PathBuf,
}

/// Options of `davy trust sign`.
#[derive(Debug, Args)]
pub(crate) struct TrustSign {
    /// The secret key
    #[arg(long, value_name = "KEY")]
    pub(crate) key: PathBuf,
    /// The list; its signature lies beside it, with .minisig
    #[arg(long, value_name = "LIST.sha256")]
    pub(crate) out: PathBuf,
    /// What you say of it; it is signed too
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) comment: String,
    /// Files, and folders with all files in them
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
}
