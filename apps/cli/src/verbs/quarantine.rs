//! `davy quarantine`: its verbs with their help.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Verbs on the quarantine.
#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// What lies there, oldest first
    #[command(
        after_help = "Examples:\n  davy quarantine list\n  davy quarantine list --json | jq '.[].sha256'"
    )]
    List,
    /// All that is remembered of one file
    #[command(after_help = "Examples:\n  davy quarantine show 3")]
    Show(QuarantineNumber),
    /// Put it back as it was: bytes, owner, mode, times, attributes and place
    #[command(
        after_help = "What lies at its old place now is not written over: the file is put beside it.\n\nExamples:\n  sudo davy quarantine restore 3"
    )]
    Restore(QuarantineNumber),
    /// Delete it for good
    #[command(after_help = "Nothing brings it back.\n\nExamples:\n  sudo davy quarantine delete 3")]
    Delete(QuarantineNumber),
    /// A copy for analysis: a zip locked with the password that analysts use, \"infected\"
    #[command(
        after_help = "Examples:\n  sudo davy quarantine export 3                       quarantine-3.zip\n  unzip -P infected quarantine-3.zip\n  sudo davy quarantine export 3 --plain --out - | strings | less"
    )]
    Export(QuarantineExport),
}

/// A file in quarantine.
#[derive(Debug, Args)]
pub(crate) struct QuarantineNumber {
    /// The number that `davy quarantine list` shows
    #[arg(value_name = "NUMBER")]
    pub(crate) number: u64,
}

/// Options of `davy quarantine export`.
#[derive(Debug, Args)]
pub(crate) struct QuarantineExport {
    /// The number that `davy quarantine list` shows
    #[arg(value_name = "NUMBER")]
    pub(crate) number: u64,
    /// Where the copy goes; no file is written over. `-` is standard output, with --plain
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// The very bytes, as they could be run; nobody but you may read the file, and nobody may run it
    #[arg(long)]
    pub(crate) plain: bool,
}
