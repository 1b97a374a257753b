//! What this kernel allows, found by loading the real programs and by a harmless act that each must notice.
//!
//! A kernel that lists BPF among its security modules may refuse every such program, and a program that loads may
//! never be called. So nothing here is believed until it was seen to work.

mod enforcing;
mod sampling;
mod tracing;

use std::path::PathBuf;

use davy_model::{Capability, Probe};

use crate::cgroups::cgroup2_mount;
use crate::objects;

/// Where to look while probing.
#[derive(Clone, Debug, Default)]
pub struct ProbeContext {
    /// The cgroup v2 mount; found by itself when `None`.
    pub cgroup2: Option<PathBuf>,
    /// Where a BPF file system is expected; `/sys/fs/bpf` when `None`.
    pub bpffs: Option<PathBuf>,
}

/// Why something does not work, and how to get it.
type Refusal = String;

/// Tries everything of this room. Takes about a second; leaves nothing loaded.
#[must_use]
pub fn probe(context: &ProbeContext) -> Vec<Probe> {
    let root = root();
    let types = kernel_types();
    let ready = root.clone().and(types.clone());
    let after = |tried: fn() -> Result<String, Refusal>| ready.clone().and_then(|_| tried());
    let iterator = after(sampling::iterator);
    let registers = iterator.clone().and_then(|_| sampling::registers());
    let cgroup2 = context.cgroup2.clone().or_else(cgroup2_mount);
    let cgroup = ready.clone().and_then(|_| enforcing::cgroup_programs(cgroup2.as_deref()));
    let judging = ready.clone().and_then(|_| enforcing::judging_hooks(cgroup2.as_deref()));
    vec![
        report(Capability::Root, root),
        report(Capability::Btf, types),
        report(Capability::Tracing, after(tracing::processes)),
        report(Capability::TaskIterator, iterator),
        report(Capability::FpuState, registers),
        report(Capability::CgroupBpf, cgroup),
        report(Capability::LsmBpf, after(enforcing::security_hooks)),
        report(Capability::TrustLsm, judging),
        report(Capability::BpfFs, enforcing::bpf_file_system(context.bpffs.as_deref())),
    ]
}

fn report(capability: Capability, outcome: Result<String, Refusal>) -> Probe {
    let (works, reason) = match outcome {
        Ok(reason) => (true, reason),
        Err(reason) => (false, reason),
    };
    Probe { capability, works, reason }
}

/// BPF needs CAP_BPF and CAP_PERFMON or CAP_SYS_ADMIN; cgroup programs CAP_NET_ADMIN as well.
fn root() -> Result<String, Refusal> {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("/proc/self/status: {error}"))?;
    let caps = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let caps = caps.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    match (rustix::process::geteuid().is_root(), caps & NET_ADMIN != 0, caps & SYS_ADMIN != 0) {
        (true, true, true) => Ok("running as root with CAP_SYS_ADMIN and CAP_NET_ADMIN".to_owned()),
        (false, ..) => Err("not running as root; start Davy with sudo or as a system service".to_owned()),
        _ => Err("root without CAP_SYS_ADMIN or CAP_NET_ADMIN, as in an ordinary container; \
                  run Davy on the host, or the container with --privileged --pid=host"
            .to_owned()),
    }
}

fn kernel_types() -> Result<String, Refusal> {
    let path = objects::kernel_types();
    match std::fs::metadata(path) {
        Ok(_) => Ok(format!("{} is there", path.display())),
        Err(error) => Err(format!(
            "{}: {error}; the kernel must be built with CONFIG_DEBUG_INFO_BTF (Debian 12 and later are)",
            path.display()
        )),
    }
}
