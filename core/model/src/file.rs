use serde::{Deserialize, Serialize};

/// A file's identity within one boot: device and inode (inode(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Device number as `st_dev` gives it.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// What was done to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "act")]
pub enum FileAct {
    /// A file that was open for writing was closed after a write.
    Written,
    /// It got this name, from the old one where known.
    Renamed {
        /// The name before.
        from: Option<String>,
    },
    /// Its name was removed.
    Deleted,
    /// Owner, mode or times changed.
    AttributesChanged,
}

/// A place where what is written runs later by itself, or lets someone in later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersistencePlace {
    /// cron and at tables.
    Cron,
    /// systemd units, timers and generators.
    SystemdUnit,
    /// SysV scripts, rc.local, inittab.
    InitScript,
    /// `authorized_keys` of any user.
    AuthorizedKeys,
    /// `/etc/ld.so.preload` and the loader's configuration.
    LoaderPreload,
    /// Shell start-up files of a user or of all.
    ShellProfile,
    /// sudoers and its folder.
    Sudoers,
    /// PAM stacks and modules.
    Pam,
    /// Kernel modules and the lists that load them.
    KernelModule,
    /// passwd, shadow and group.
    Accounts,
}

/// A change of a file that matters to an intrusion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// The path for people.
    pub path: String,
    /// Device and inode, where known.
    pub file: FileId,
    /// What was done.
    pub act: FileAct,
    /// Whether any execute bit is set after the change.
    pub executable: bool,
    /// Whether it begins with `#!` or the ELF magic.
    pub code: bool,
    /// The persistence place it lies in, if any.
    pub place: Option<PersistencePlace>,
}
