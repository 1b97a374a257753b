use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use davy_model::Destination;

use super::Refusal;
use crate::block::{BlockScope, Blocker};
use crate::guard;
use crate::pin::on_bpf_file_system;
use crate::program_loads::OwnPrograms;
use crate::{cgroup_id, network, sys, trust};

/// A cgroup of the probe's own, removed when dropped.
struct OwnCgroup(PathBuf);

impl OwnCgroup {
    fn make(root: &Path) -> Result<Self, Refusal> {
        let path = root.join(format!("davy-probe-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| format!("making {}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Loads the flow sensor, closes a loopback port of its own to a cgroup of its own, and lets a child in it try to
/// connect; then opens it again. The programs are attached to that cgroup only.
pub(super) fn cgroup_programs(root: Option<&Path>) -> Result<String, Refusal> {
    let root =
        root.ok_or("no cgroup v2 is mounted; mount one with: mount -t cgroup2 none /sys/fs/cgroup/unified")?;
    let cgroup = OwnCgroup::make(root)?;
    network::probe(&cgroup.0).map_err(|error| format!("the kernel refuses the flow programs: {error}"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .map_err(|error| format!("listening on loopback: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let blocker = Blocker::new(Some(cgroup.0.clone()), None, OwnPrograms::default())
        .map_err(|error| error.to_string())?;
    let scope = BlockScope::Cgroup(cgroup_id(&cgroup.0).map_err(|error| error.to_string())?);
    let destination = Destination { address: address.ip(), port: address.port() };
    blocker.block(destination, scope, None).map_err(|error| {
        format!("the kernel refuses cgroup socket programs ({error}); they need Linux 5.8 or later")
    })?;

    let closed = connect_from(&cgroup.0, address.port())?;
    blocker.unblock(destination, scope).map_err(|error| error.to_string())?;
    let open = connect_from(&cgroup.0, address.port())?;
    match (closed, open) {
        (Some(libc::EPERM), None) => {
            Ok("cgroup programs load; a child's connect to a closed loopback port was refused, and let through when opened".to_owned())
        }
        (None, _) => Err("cgroup programs load, but a child's connect to a closed port was not refused".to_owned()),
        (closed, open) => Err(format!("cgroup programs load, but a connect ended with {closed:?} closed and {open:?} open")),
    }
}

/// Connects to a loopback port from a child that first moves to a cgroup; gives the error number, if any.
fn connect_from(cgroup: &Path, port: u16) -> Result<Option<i32>, Refusal> {
    let procs = cgroup.join("cgroup.procs");
    let procs = std::fs::OpenOptions::new()
        .write(true)
        .open(&procs)
        .map_err(|error| format!("{}: {error}", procs.display()))?;
    match sys::child(|| sys::enter_and_connect(procs.as_raw_fd(), port)) {
        Ok(_) => Ok(None),
        Err(error) => error.raw_os_error().map(Some).ok_or_else(|| error.to_string()),
    }
}

/// Denies a file of its own to itself through a security hook, and opens it again.
pub(super) fn security_hooks() -> Result<String, Refusal> {
    match guard::canary() {
        Ok(true) => Ok("security (LSM) programs load, and denied a file as told".to_owned()),
        Ok(false) => {
            Err("security (LSM) programs load but are not called; put bpf into the kernel's lsm= list"
                .to_owned())
        }
        Err(error) => Err(format!(
            "the kernel refuses security (LSM) programs ({error}); it needs CONFIG_BPF_LSM and bpf in its lsm= list, \
             as Debian 12 and later have"
        )),
    }
}

/// Binds a cgroup of its own and lets a child in it map a file of its own as code: unknown, vouched for, and unbound.
pub(super) fn judging_hooks(root: Option<&Path>) -> Result<String, Refusal> {
    let root = root.ok_or("no cgroup v2 is mounted, and code is judged by cgroup")?;
    let cgroup = OwnCgroup::make(root)?;
    let seen = trust::canary(&cgroup.0).map_err(|error| {
        format!("the kernel refuses the programs that judge code ({error}); they need CONFIG_IMA besides CONFIG_BPF_LSM")
    })?;
    match (seen.unknown, seen.vouched, seen.unbound) {
        (Some(libc::EPERM), None, None) => {
            Ok("code was judged: a file was refused, let through by its digest, and let through unbound".to_owned())
        }
        (None, ..) => Err("programs that judge code load, but refused nothing; put bpf into the kernel's lsm= list"
            .to_owned()),
        (Some(libc::EPERM), Some(_), _) => Err("code is refused, but not let through by its digest: the kernel reads              files by another hash than SHA-256 (ima_hash=), or not at all"
            .to_owned()),
        _ => Err(format!("programs that judge code load, but a mapping ended with {seen:?}")),
    }
}

/// Looks at the expected mount; mounts nothing.
pub(super) fn bpf_file_system(expected: Option<&Path>) -> Result<String, Refusal> {
    let path = expected.unwrap_or(Path::new("/sys/fs/bpf"));
    // The folder itself may not exist yet; what counts is where it would lie.
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    if on_bpf_file_system(existing) {
        Ok(format!("{} lies in a BPF file system", path.display()))
    } else {
        Err(format!("no BPF file system at {}; mount one with: mount -t bpf bpf /sys/fs/bpf", path.display()))
    }
}
