use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use davy_model::{Mode, Sha256};
use sha2::Digest as _;

use super::digests::{Rights, Saying, Verdict};
use super::gate::{TrustConfig, TrustGate};
use super::modes::{TrustModes, TrustScope};
use crate::error::{During, Result};
use crate::sys;

/// What became of mapping the canary's own file executable: an error number, or nothing when it was let through.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// By a child in the scope, when nobody vouched for it.
    pub(crate) unknown: Option<i32>,
    /// When its digest was vouched for.
    pub(crate) vouched: Option<i32>,
    /// When nobody was bound.
    pub(crate) unbound: Option<i32>,
}

/// Loads the programs, binds a cgroup, and lets a child in it map a file of its own executable: unknown, vouched for by the
/// digest that user space computed, and unbound. Nobody else is in that cgroup.
pub(crate) fn canary(cgroup: &Path) -> Result<Seen> {
    let gate = TrustGate::unheard(TrustConfig { digests: 16, files: 1024, ..TrustConfig::default() })?;
    let scope = TrustScope::Cgroup(crate::cgroup_id(cgroup)?);
    let text = format!("davy's canary in process {}\n", std::process::id());
    // Without a name, because a folder whose files may be executed is not to be had everywhere.
    let file = rustix::fs::memfd_create("davy-canary", rustix::fs::MemfdFlags::CLOEXEC)
        .during(|| "making a file to be judged".to_owned())?;
    let mut file = std::fs::File::from(file);
    file.write_all(text.as_bytes()).during(|| "writing a file to be judged".to_owned())?;
    let procs = cgroup.join("cgroup.procs");
    let procs = std::fs::File::options()
        .write(true)
        .open(&procs)
        .during(|| format!("opening {}", procs.display()))?;
    let try_it = || match sys::child(|| sys::enter_and_map_executable(procs.as_raw_fd(), file.as_raw_fd())) {
        Ok(_) => None,
        Err(error) => Some(error.raw_os_error().unwrap_or(libc::EIO)),
    };
    gate.set_scope(scope, TrustModes::all(Mode::Enforce))?;
    let unknown = try_it();
    let digest = Sha256(sha2::Sha256::digest(text.as_bytes()).into());
    let nameless = Rights { may_be_nameless: true, ..Rights::default() };
    gate.vouch(&[(digest, Saying { verdict: Verdict::Allow(nameless), ..Saying::allow() })])?;
    let vouched = try_it();
    gate.withdraw(&[digest])?;
    gate.clear_scope(scope)?;
    Ok(Seen { unknown, vouched, unbound: try_it() })
}
