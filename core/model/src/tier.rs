use serde::{Deserialize, Serialize};

/// How a protection is enforced on this host, from the least to the most the kernel allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Watches through /proc and sock_diag; advises.
    Poll,
    /// Tracing BPF: sees at once, kills from the kernel.
    Signal,
    /// fanotify permission events and cgroup BPF: denies exec, open, connect.
    Permission,
    /// BPF-LSM: denies in the kernel.
    Lsm,
}

/// What a protection does with what it decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing.
    Off,
    /// Decides and reports what it would have done.
    #[default]
    Observe,
    /// Decides and acts.
    Enforce,
}

/// A feature of the kernel or the machine that protections are built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Running as root with the needed capabilities.
    Root,
    /// Type information of the kernel (/sys/kernel/btf/vmlinux).
    Btf,
    /// Tracing programs (tp_btf) load and attach.
    Tracing,
    /// Task iterators load and read.
    TaskIterator,
    /// The saved FPU state is where the task iterator looks for it.
    FpuState,
    /// cgroup socket programs load and attach on a cgroup v2 mount.
    CgroupBpf,
    /// BPF-LSM programs load, attach and are called.
    LsmBpf,
    /// BPF-LSM programs that judge code load, read files themselves, and refuse as told.
    TrustLsm,
    /// fanotify notification marks on file systems.
    Fanotify,
    /// fanotify permission events refuse a program as told.
    FanotifyPermission,
    /// sock_diag(7) lists sockets.
    SockDiag,
    /// sock_diag can end sockets (CONFIG_INET_DIAG_DESTROY).
    SockDestroy,
    /// cgroup v2 freezer and cgroup.kill.
    CgroupFreezer,
    /// A BPF file system to keep enforcement in across restarts.
    BpfFs,
}

/// The outcome of probing one capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Which.
    pub capability: Capability,
    /// Whether it works, tried and not guessed.
    pub works: bool,
    /// What was tried and, when it does not work, why and how to get it.
    pub reason: String,
}

/// One protection as it stands on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectionStatus {
    /// Its name, such as `mining` or `execution`.
    pub name: String,
    /// What it is told to do.
    pub mode: Mode,
    /// By what it is done; `None` when nothing here can do it.
    pub tier: Option<Tier>,
    /// Of one that enforces, whether the last canary of the agent was stopped, `None` before the first. Of one that observes,
    /// whether what it observes with was seen to work when it was probed, `None` where nothing had to be probed.
    pub proven: Option<bool>,
    /// In plain words: how it does, and why not a higher tier.
    pub note: String,
}
