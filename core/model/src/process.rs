use std::fmt;

use serde::{Deserialize, Serialize};

use crate::FileId;

/// The identity of a process that survives reuse of its pid.
///
/// A pid alone names whoever holds it now; with the start time (in clock ticks since boot, field 22 of
/// `/proc/PID/stat`, proc_pid_stat(5)) and the boot it names one process for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Process id (the kernel's tgid) in the initial pid namespace.
    pub pid: u32,
    /// Start of the thread-group leader in clock ticks (1/100 s) since boot.
    pub start_ticks: u64,
    /// The first 32 bits of `/proc/sys/kernel/random/boot_id`.
    pub boot: u32,
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.start_ticks)
    }
}

/// Who a process acts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective capability set, one bit a capability (capabilities(7)).
    pub caps: u64,
    /// The audit login user id; `None` when no login set it.
    pub login_uid: Option<u32>,
    /// The audit session id; `None` when there is none.
    pub session: Option<u32>,
}

/// The inode numbers of the namespaces a process lives in (namespaces(7)); zero where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Process id namespace.
    pub pid: u64,
    /// Mount namespace.
    pub mnt: u64,
    /// Network namespace.
    pub net: u64,
    /// User namespace.
    pub user: u64,
}

/// What kind of thing the executed image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageKind {
    /// A file that has a name in a file system.
    #[default]
    File,
    /// Anonymous memory made by memfd_create(2).
    Memfd,
    /// A file whose last name was already gone when it was executed or looked at.
    Deleted,
}

/// The program a process executes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecImage {
    /// The path for people; never an identity.
    pub path: String,
    /// Device and inode; zero where unknown.
    pub file: FileId,
    /// File, memfd or deleted.
    pub kind: ImageKind,
}

/// Everything known of one process at its exec (or when it was found running).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Which process.
    pub key: ProcessKey,
    /// Its parent at that moment; `None` for pid 1, kernel threads' root and where unknown.
    pub parent: Option<ProcessKey>,
    /// The kernel's short name (at most 15 bytes), which prctl(2) can change.
    pub comm: String,
    /// The program.
    pub image: ExecImage,
    /// The argument vector, cut at the sensors' bound; `args_cut` says so.
    pub args: Vec<String>,
    /// Whether `args` was cut.
    pub args_cut: bool,
    /// Environment variables of interest, such as `LD_PRELOAD`, as name and value.
    pub env: Vec<(String, String)>,
    /// Working directory; empty where unknown.
    pub cwd: String,
    /// Who it acts as.
    pub creds: Credentials,
    /// The controlling terminal's name such as `pts/3`; `None` when there is none.
    pub tty: Option<String>,
    /// The cgroup v2 path (or, on a v1 host, the systemd or the longest v1 path).
    pub cgroup: String,
    /// The cgroup v2 id (inode of its directory); zero where unknown.
    pub cgroup_id: u64,
    /// Container id taken from the cgroup path, shortened to 12 characters.
    pub container: Option<String>,
    /// Namespaces.
    pub ns: Namespaces,
    /// Whether it is a kernel thread.
    pub kernel_thread: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, when it ended by itself.
    pub code: Option<u8>,
    /// Signal number, when a signal ended it.
    pub signal: Option<u8>,
    /// CPU time it used, in nanoseconds.
    pub cpu_ns: u64,
}
