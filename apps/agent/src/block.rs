//! How flows are cut on this host: the kernel room's blocker for what comes, sock_diag for what lives.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use davy_kernel::{BlockScope, Blocker};
use davy_model::{Destination, ProcessKey, Timestamp};
use davy_respond::Block;

use crate::clock;
use crate::shared::lock;
use crate::standing::within;

/// Whose flows are cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Everybody's.
    #[default]
    Host,
    /// Those of processes in these cgroup v2 subtrees.
    Cgroups(Vec<String>),
}

/// The block of this host.
pub(crate) struct KernelBlock {
    blocker: Option<Blocker>,
    cgroup2: Option<PathBuf>,
    reach: Mutex<Reach>,
    blocked: Mutex<BTreeMap<Destination, (Reach, Option<Timestamp>)>>,
}

impl KernelBlock {
    pub(crate) fn new(blocker: Option<Blocker>, cgroup2: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self { blocker, cgroup2, reach: Mutex::default(), blocked: Mutex::default() })
    }

    /// Whose flows the next cut is about.
    pub(crate) fn set_reach(&self, reach: Reach) {
        *lock(&self.reach) = reach;
    }

    /// What is blocked now, for people.
    pub(crate) fn list(&self) -> Vec<String> {
        let now = clock::now();
        let mut blocked = lock(&self.blocked);
        blocked.retain(|_, (_, until)| until.is_none_or(|t| t > now));
        blocked.keys().map(|d| format!("{}:{}", d.address, d.port)).collect()
    }

    fn scopes(&self, reach: &Reach) -> Result<Vec<BlockScope>, String> {
        let Reach::Cgroups(cgroups) = reach else { return Ok(vec![BlockScope::Host]) };
        let mount = self.cgroup2.as_ref().ok_or("there is no cgroup v2 mount to scope by")?;
        cgroups
            .iter()
            .map(|cgroup| {
                let dir = mount.join(cgroup.trim_start_matches('/'));
                davy_kernel::cgroup_id(&dir).map(BlockScope::Cgroup).map_err(|e| e.to_string())
            })
            .collect()
    }
}

impl Block for KernelBlock {
    fn block(&self, destination: Destination, seconds: Option<u32>) -> Result<(), String> {
        let blocker =
            self.blocker.as_ref().ok_or("this host's kernel lets Davy load no cgroup socket programs")?;
        let reach = lock(&self.reach).clone();
        let end = seconds.map(|s| davy_kernel::boot_now().saturating_add(u64::from(s) * 1_000_000_000));
        for scope in self.scopes(&reach)? {
            blocker.block(destination, scope, end).map_err(|e| e.to_string())?;
        }
        let until = seconds.map(|s| clock::now().plus_secs(f64::from(s)));
        lock(&self.blocked).insert(destination, (reach, until));
        Ok(())
    }

    fn unblock(&self, destination: Destination) -> Result<(), String> {
        let Some(blocker) = self.blocker.as_ref() else { return Ok(()) };
        let known = lock(&self.blocked).remove(&destination);
        let reach = known.map_or_else(|| lock(&self.reach).clone(), |(reach, _)| reach);
        // A cgroup that is gone has taken its block with it.
        for scope in self.scopes(&reach).unwrap_or_default() {
            blocker.unblock(destination, scope).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn destroy(&self, destination: Destination) -> Result<u32, String> {
        let reach = lock(&self.reach).clone();
        let (mut ended, mut refused) = (0, None);
        for socket in davy_proc::sockets::list() {
            let to = socket.remote;
            let meant = to.ip().to_canonical() == destination.address
                && (destination.port == 0 || to.port() == destination.port)
                && reaches(&reach, &socket.owners);
            if meant {
                match davy_proc::sockets::destroy(&socket) {
                    Ok(()) => ended += 1,
                    Err(e) => refused = Some(e.to_string()),
                }
            }
        }
        // One that could not be ended is told, but only after all others were.
        refused.map_or(Ok(ended), |why| Err(format!("{ended} ended, but not all: {why}")))
    }
}

fn reaches(reach: &Reach, owners: &[ProcessKey]) -> bool {
    match reach {
        Reach::Host => true,
        Reach::Cgroups(cgroups) => owners
            .iter()
            .filter_map(|owner| davy_proc::read(owner.pid).filter(|info| info.key == *owner))
            .any(|info| cgroups.iter().any(|scope| within(&info.cgroup, scope))),
    }
}

/// The responder owns a box; the arbiter must reach the same block.
pub(crate) struct Shareable(pub(crate) Arc<KernelBlock>);

impl Block for Shareable {
    fn block(&self, destination: Destination, seconds: Option<u32>) -> Result<(), String> {
        self.0.block(destination, seconds)
    }

    fn unblock(&self, destination: Destination) -> Result<(), String> {
        self.0.unblock(destination)
    }

    fn destroy(&self, destination: Destination) -> Result<u32, String> {
        self.0.destroy(destination)
    }
}
