//! How this host, or a cgroup of it, is isolated: by the kernel room's blocker.

use std::net::IpAddr;

use davy_kernel::{BlockScope, Blocker, Kept};
use davy_respond::Isolation;

use super::{KernelBlock, ends};
use crate::shared::lock;

/// The host or a cgroup that is isolated.
#[derive(Debug)]
pub(super) struct Isolated {
    /// The scope under which the kernel's table has it; `None` until its cgroup is there.
    scope: Option<BlockScope>,
    kept: Kept,
    /// When it ends, by the clock of the kernel's table.
    end: u64,
}

impl KernelBlock {
    pub(super) fn isolate_now(&self, isolation: &Isolation) -> Result<(), String> {
        let blocker = self.usable_blocker()?;
        let scope = match self.scope_of(isolation.cgroup.as_deref()) {
            Err(_) if isolation.later => None,
            found => Some(found?),
        };
        // What the host's own services say to each other by its own addresses never leaves it.
        let own = davy_proc::addresses()
            .into_iter()
            .map(|address| (address, if address.is_ipv4() { 32 } else { 128 }));
        let named = isolation.networks.iter().map(|network| (network.address(), network.length()));
        let networks: Vec<(IpAddr, u8)> = named.chain(own).collect();
        let kept = Kept { sessions: isolation.sessions.clone(), networks };
        let end = ends(Some(isolation.seconds)).0.ok_or("an isolation needs a time")?;
        if let Some(scope) = scope {
            blocker.isolate(scope, end, &kept).map_err(|e| e.to_string())?;
        }
        lock(&self.isolated).insert(isolation.cgroup.clone(), Isolated { scope, kept, end });
        Ok(())
    }

    pub(super) fn rejoin_now(&self, cgroup: Option<&str>) -> Result<(), String> {
        let Some(blocker) = self.blocker.as_ref() else { return Ok(()) };
        let known =
            lock(&self.isolated).remove(&cgroup.map(str::to_owned)).and_then(|isolated| isolated.scope);
        // One of an earlier agent is known to the kernel alone; a cgroup that is gone reaches nobody any more.
        match known.map_or_else(|| self.scope_of(cgroup), Ok) {
            Ok(scope) => blocker.rejoin(scope).map(drop).map_err(|e| e.to_string()),
            Err(_) => Ok(()),
        }
    }

    /// Isolates a cgroup that was made anew, as one is when its service restarts: for the kernel it is another.
    pub(super) fn follow_isolated(&self, blocker: &Blocker) {
        let now = davy_kernel::boot_now();
        let mut isolated = lock(&self.isolated);
        isolated.retain(|_, isolated| isolated.end > now);
        for (cgroup, held) in isolated.iter_mut() {
            let Ok(scope) = self.scope_of(cgroup.as_deref()) else { continue };
            if held.scope == Some(scope) {
                continue;
            }
            let name = cgroup.as_deref().unwrap_or("the host");
            if let Err(e) = blocker.isolate(scope, held.end, &held.kept) {
                tracing::error!("{name} was made anew and is not isolated: {e}");
            } else if let Some(gone) = held.scope.replace(scope)
                && let Err(e) = blocker.rejoin(gone)
            {
                tracing::warn!("a cgroup that is gone stays in the kernel's table: {e}");
            }
        }
    }

    /// Ends every isolation that the kernel holds, also one of which no journal tells any more. Says how many there were.
    pub(crate) fn end_isolations(&self) -> Result<usize, String> {
        lock(&self.isolated).clear();
        let Some(blocker) = self.blocker.as_ref() else { return Ok(0) };
        let held = blocker.isolated();
        for isolated in &held {
            blocker.rejoin(isolated.scope).map_err(|e| e.to_string())?;
        }
        Ok(held.len())
    }

    fn usable_blocker(&self) -> Result<&Blocker, String> {
        self.blocker.as_ref().ok_or_else(|| super::NO_PROGRAMS.to_owned())
    }

    fn scope_of(&self, cgroup: Option<&str>) -> Result<BlockScope, String> {
        let Some(cgroup) = cgroup else { return Ok(BlockScope::Host) };
        let mount = self.cgroup2.as_ref().ok_or("there is no cgroup v2 mount to scope by")?;
        let folder = mount.join(cgroup.trim_start_matches('/'));
        let id = davy_kernel::cgroup_id(&folder).map_err(|_| format!("there is no cgroup {cgroup}"))?;
        Ok(BlockScope::Cgroup(id))
    }
}
