//! How flows are cut on this host: the kernel room's blocker for what comes, sock_diag for what lives.

mod isolation;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use davy_kernel::{BlockScope, Blocker};
use davy_model::{Destination, ProcessKey, Timestamp};
use davy_respond::{Block, Isolation};

use crate::clock;
use crate::shared::lock;
use crate::standing::within;

const NO_PROGRAMS: &str = "this host's kernel lets Davy load no cgroup socket programs";

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
    /// By destination and the cgroup that alone is cut off from it, if one is.
    blocked: Mutex<BTreeMap<Place, Cut>>,
    /// By cgroup; `None` is the whole host.
    isolated: Mutex<BTreeMap<Option<String>, isolation::Isolated>>,
}

/// A destination, and the cgroup that alone is cut off from it; `None` for all that the reach says.
type Place = (Destination, Option<String>);

/// One destination that is cut off.
#[derive(Debug)]
struct Cut {
    /// Whose flows it is about.
    reach: Reach,
    /// The cgroups of the reach by the identity under which the kernel's table has them.
    cgroups: BTreeMap<String, BlockScope>,
    /// When it opens again, by the clock of the kernel's table and by that of people.
    end: Option<u64>,
    until: Option<Timestamp>,
}

impl KernelBlock {
    pub(crate) fn new(blocker: Option<Blocker>, cgroup2: Option<PathBuf>) -> Arc<Self> {
        let (reach, blocked, isolated) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { blocker, cgroup2, reach, blocked, isolated })
    }

    /// Whose flows the next cut is about.
    pub(crate) fn set_reach(&self, reach: Reach) {
        *lock(&self.reach) = reach;
    }

    /// What is blocked now, for people.
    pub(crate) fn list(&self) -> Vec<String> {
        let now = clock::now();
        let mut blocked = lock(&self.blocked);
        blocked.retain(|_, cut| cut.until.is_none_or(|t| t > now));
        let places: BTreeSet<&Destination> = blocked.keys().map(|(destination, _)| destination).collect();
        places.into_iter().map(|d| format!("{}:{}", d.address, d.port)).collect()
    }

    /// Goes on with a cut of an earlier agent. What the kernel still holds of it stays as it is; where it holds nothing,
    /// after a boot or without pins, the destination is cut off for the cgroup, or for the reach that is set.
    pub(crate) fn resume(
        &self,
        destination: Destination,
        cgroup: Option<&str>,
        seconds: u32,
    ) -> Result<(), String> {
        let held = self.held(destination)?;
        if held.is_empty() {
            return self.block(destination, cgroup, Some(seconds));
        }
        let reach = match self.reach_of(cgroup) {
            reach if cgroup.is_some() => reach,
            _ if held.contains(&BlockScope::Host) => Reach::Host,
            // It never becomes wider than it was.
            Reach::Host => Reach::Cgroups(Vec::new()),
            cgroups => cgroups,
        };
        let (end, until) = ends(Some(seconds));
        let cut = Cut { reach, cgroups: BTreeMap::new(), end, until };
        lock(&self.blocked).insert((destination, cgroup.map(str::to_owned)), cut);
        self.follow();
        Ok(())
    }

    /// Cuts off a cgroup of the reach, or isolates one, that was not there before, or was made anew, as one is when its service restarts:
    /// for the kernel it is another.
    pub(crate) fn follow(&self) {
        let Some(blocker) = self.blocker.as_ref() else { return };
        self.follow_isolated(blocker);
        for ((destination, _), cut) in lock(&self.blocked).iter_mut() {
            for (name, scope) in self.present(&cut.reach) {
                if cut.cgroups.get(&name) == Some(&scope) {
                    continue;
                }
                if let Err(e) = blocker.block(*destination, scope, cut.end) {
                    tracing::error!("{name} is not cut off from {}: {e}", destination.address);
                } else if let Some(gone) = cut.cgroups.insert(name, scope)
                    && let Err(e) = blocker.unblock(*destination, gone)
                {
                    tracing::warn!("a cgroup that is gone stays in the kernel's table: {e}");
                }
            }
        }
    }

    /// To whom the kernel has a destination closed.
    fn held(&self, destination: Destination) -> Result<Vec<BlockScope>, String> {
        let all = self.blocker.as_ref().map_or(Ok(Vec::new()), Blocker::list).map_err(|e| e.to_string())?;
        Ok(all.iter().filter(|b| b.destination == destination).map(|block| block.scope).collect())
    }

    /// Whom a cut is about: the cgroup, or else what is set.
    fn reach_of(&self, cgroup: Option<&str>) -> Reach {
        cgroup.map_or_else(|| lock(&self.reach).clone(), |cgroup| Reach::Cgroups(vec![cgroup.to_owned()]))
    }

    /// The cgroups of a reach that are there now.
    fn present(&self, reach: &Reach) -> BTreeMap<String, BlockScope> {
        let (Reach::Cgroups(names), Some(mount)) = (reach, &self.cgroup2) else { return BTreeMap::new() };
        let of = |name: &String| {
            let id = davy_kernel::cgroup_id(&mount.join(name.trim_start_matches('/'))).ok()?;
            Some((name.clone(), BlockScope::Cgroup(id)))
        };
        names.iter().filter_map(of).collect()
    }
}

/// When something that begins now ends, by the clock of the kernel's table and by that of people.
fn ends(seconds: Option<u32>) -> (Option<u64>, Option<Timestamp>) {
    let boot = |s| davy_kernel::boot_now().saturating_add(u64::from(s) * 1_000_000_000);
    (seconds.map(boot), seconds.map(|s| clock::now().plus_secs(f64::from(s))))
}

impl Block for KernelBlock {
    fn block(
        &self,
        destination: Destination,
        cgroup: Option<&str>,
        seconds: Option<u32>,
    ) -> Result<(), String> {
        let blocker = self.blocker.as_ref().ok_or(NO_PROGRAMS)?;
        let reach = self.reach_of(cgroup);
        if reach != Reach::Host && self.cgroup2.is_none() {
            return Err("there is no cgroup v2 mount to scope by".to_owned());
        }
        let cgroups = self.present(&reach);
        let mut scopes: Vec<_> = cgroups.values().copied().collect();
        if reach == Reach::Host {
            scopes.push(BlockScope::Host);
        }
        let (end, until) = ends(seconds);
        for scope in scopes {
            blocker.block(destination, scope, end).map_err(|e| e.to_string())?;
        }
        let place = (destination, cgroup.map(str::to_owned));
        lock(&self.blocked).insert(place, Cut { reach, cgroups, end, until });
        Ok(())
    }

    fn unblock(&self, destination: Destination, cgroup: Option<&str>) -> Result<(), String> {
        let Some(blocker) = self.blocker.as_ref() else { return Ok(()) };
        let mut blocked = lock(&self.blocked);
        let known = blocked.remove(&(destination, cgroup.map(str::to_owned)));
        let others = blocked.iter().filter(|((other, _), _)| *other == destination);
        let others: Vec<BlockScope> = others.flat_map(|(_, cut)| cut.cgroups.values().copied()).collect();
        drop(blocked);
        // One of an earlier agent is known to the kernel alone.
        let of_it: Vec<BlockScope> = known
            .map(|cut| cut.cgroups)
            .into_iter()
            .chain([self.present(&self.reach_of(cgroup))])
            .flat_map(BTreeMap::into_values)
            .collect();
        let meant =
            |scope: &BlockScope| !others.contains(scope) && (cgroup.is_none() || of_it.contains(scope));
        for scope in self.held(destination)?.into_iter().filter(meant) {
            blocker.unblock(destination, scope).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn destroy(&self, destination: Destination, cgroup: Option<&str>) -> Result<u32, String> {
        let reach = self.reach_of(cgroup);
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

    fn isolate(&self, isolation: &Isolation) -> Result<(), String> {
        self.isolate_now(isolation)
    }

    fn rejoin(&self, cgroup: Option<&str>) -> Result<(), String> {
        self.rejoin_now(cgroup)
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
    fn block(
        &self,
        destination: Destination,
        cgroup: Option<&str>,
        seconds: Option<u32>,
    ) -> Result<(), String> {
        self.0.block(destination, cgroup, seconds)
    }

    fn unblock(&self, destination: Destination, cgroup: Option<&str>) -> Result<(), String> {
        self.0.unblock(destination, cgroup)
    }

    fn destroy(&self, destination: Destination, cgroup: Option<&str>) -> Result<u32, String> {
        self.0.destroy(destination, cgroup)
    }

    fn isolate(&self, isolation: &Isolation) -> Result<(), String> {
        self.0.isolate(isolation)
    }

    fn rejoin(&self, cgroup: Option<&str>) -> Result<(), String> {
        self.0.rejoin(cgroup)
    }
}
