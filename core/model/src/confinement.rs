use serde::{Deserialize, Serialize};

/// What a worker process has given up before it reads what strangers wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// It is not root and has no capability.
    pub unprivileged: bool,
    /// It can open no file (Landlock, Linux 5.13).
    pub files_closed: bool,
    /// It may make a few system calls only (seccomp).
    pub calls_filtered: bool,
    /// Bound on its address space in bytes.
    pub memory: u64,
    /// What could not be had here, a sentence each.
    pub missing: Vec<String>,
}
