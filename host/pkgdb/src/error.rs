//! What can go wrong as a whole. What is wrong with one file or line is counted and named in a [`crate::Summary`].

use std::io;

/// Why a database could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{operation} {object}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// Why not.
        source: io::Error,
    },
    /// A file of the database is larger than any that a package manager writes.
    #[error("{object} is larger than {limit} bytes: this is no package database")]
    TooLarge {
        /// The file.
        object: String,
        /// The bound.
        limit: u64,
    },
    /// rpm's tool is not there, failed or did not end.
    #[error("querying the rpm database {database}: {message}")]
    Tool {
        /// The folder of the database.
        database: String,
        /// What happened, and what to do.
        message: String,
    },
    /// Who asked said to stop.
    #[error("learning was stopped before its end")]
    Stopped,
}

impl Error {
    pub(crate) fn io(
        operation: &'static str,
        object: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io { operation, object: object.into(), source: source.into() }
    }
}
