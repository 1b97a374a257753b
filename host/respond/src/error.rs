use std::{io, path::PathBuf};

/// What went wrong in the responder's own house; the host's faults are told in outcomes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the quarantine.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no such file in quarantine.
    #[error("there is no file {number} in quarantine")]
    NotHeld {
        /// The number asked for.
        number: u64,
    },
    /// A sealed file or its record does not hold what was put in.
    #[error("{}: {reason}", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io { operation, path: path.into(), source: source.into() }
    }
}
