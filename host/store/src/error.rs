use std::{io, path::PathBuf};

use sqlx::migrate::MigrateError;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database said no.
    #[error("{operation} {}: {source}", path.display())]
    Database {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        source: sqlx::Error,
    },
    /// The schema could not be brought up to date.
    #[error("cannot bring the schema of {} up to date: {source}", path.display())]
    Schema {
        /// Of which file.
        path: PathBuf,
        /// Why.
        source: MigrateError,
    },
    /// The file opens, but its pages do not hold together.
    #[error("{} is corrupt: {fault}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// The first fault found.
        fault: String,
    },
    /// The folder or a file in it.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The disk has no room. A finding or incident is kept in memory and written when there is room again.
    #[error("the disk that holds {} is full", path.display())]
    Full {
        /// The store's folder.
        path: PathBuf,
    },
    /// A record does not read back as what was written.
    #[error("a stored {what} does not read back: {source}")]
    Record {
        /// What kind of record.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The writer has ended.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io { operation, path: path.into(), source: source.into() }
    }

    /// The trouble behind the error, which decides what the writer does next.
    pub(crate) fn trouble(&self) -> Trouble {
        match self {
            Self::Database { source, .. } => Trouble::of(source),
            Self::Schema { source: MigrateError::Execute(source), .. }
            | Self::Schema { source: MigrateError::ExecuteMigration(source, _), .. } => Trouble::of(source),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Trouble::Full,
            Self::Full { .. } => Trouble::Full,
            Self::Corrupt { .. } => Trouble::Corrupt,
            _ => Trouble::Other,
        }
    }
}

/// What is behind a database error (SQLite result codes, <https://sqlite.org/rescode.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No room on the disk, or a quota.
    Full,
    /// The file is not a database any more.
    Corrupt,
    /// Anything else.
    Other,
}

impl Trouble {
    fn of(error: &sqlx::Error) -> Self {
        if let sqlx::Error::Io(source) = error {
            return if source.kind() == io::ErrorKind::StorageFull { Self::Full } else { Self::Other };
        }
        let code = error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<u32>().ok());
        match code {
            // SQLITE_FULL; and SQLITE_IOERR_WRITE, _FSYNC, _SHMOPEN, _SHMSIZE, which stand for ENOSPC or EDQUOT
            // where SQLite writes beside its main file.
            Some(13 | 778 | 1034 | 4618 | 4874) => Self::Full,
            Some(code) if matches!(code & 0xff, 11 | 26) => Self::Corrupt,
            _ => Self::Other,
        }
    }
}
