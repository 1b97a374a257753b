use std::io;

/// Why something in the kernel could not be done. Each names the operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused or failed an operation on BPF objects.
    #[error("{operation}: {source}")]
    Bpf {
        /// What was tried.
        operation: String,
        /// What libbpf or the kernel said.
        source: libbpf_rs::Error,
    },
    /// A system call failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried, with the path.
        operation: String,
        /// What the system said.
        source: io::Error,
    },
    /// The host lacks what this needs.
    #[error("{0}")]
    Unsupported(String),
    /// A bounded table has no room for one more entry; nothing was changed.
    #[error("{what} is full at {bound} entries")]
    Full {
        /// Which table.
        what: &'static str,
        /// Its bound.
        bound: u32,
    },
    /// The sensors' thread has ended.
    #[error("the sensors have stopped")]
    Stopped,
}

/// A result of this room.
pub type Result<T> = std::result::Result<T, Error>;

/// Names the operation in an error.
pub(crate) trait During<T> {
    /// Adds what was tried.
    fn during(self, operation: impl FnOnce() -> String) -> Result<T>;
}

impl<T> During<T> for libbpf_rs::Result<T> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Bpf { operation: operation(), source })
    }
}

impl<T> During<T> for io::Result<T> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { operation: operation(), source })
    }
}

impl<T> During<T> for rustix::io::Result<T> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { operation: operation(), source: source.into() })
    }
}
