use std::path::{Path, PathBuf};

/// Where one agent keeps its things. Several agents live side by side when each has its own base folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Policies and lists: `/etc/davy`, or `BASE/etc`.
    pub config: PathBuf,
    /// Store, quarantine, journal: `/var/lib/davy`, or `BASE/state`.
    pub state: PathBuf,
    /// Sockets and the lock: `/run/davy`, or `BASE/run`.
    pub run: PathBuf,
    /// The base folder, where one was given.
    pub base: Option<PathBuf>,
}

impl Paths {
    /// The paths below `base`, or the system's own where there is none.
    #[must_use]
    pub fn new(base: Option<&Path>) -> Self {
        match base {
            Some(dir) => Self {
                config: dir.join("etc"),
                state: dir.join("state"),
                run: dir.join("run"),
                base: Some(dir.to_owned()),
            },
            None => Self {
                config: "/etc/davy".into(),
                state: "/var/lib/davy".into(),
                run: "/run/davy".into(),
                base: None,
            },
        }
    }

    /// The policy file.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.config.join("davy.toml")
    }

    /// The socket that answers questions.
    #[must_use]
    pub fn read_socket(&self) -> PathBuf {
        self.run.join("read.sock")
    }

    /// The socket that takes commands.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }
}
