//! Destinations closed by programs at the root of the cgroup tree, and cgroups that are isolated by the same programs.

mod isolation;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use davy_model::{Destination, mapped_octets};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use zerocopy::{FromBytes, IntoBytes};

use crate::abi::{BlockEntry, BlockKey, ScopedBlockKey};
use crate::boot_now;
use crate::error::{During, Error, Result};
use crate::guard::Hooks;
use crate::pin::Enforcement;
use crate::program_loads::OwnPrograms;

pub use isolation::{Isolated, Kept};

/// Places in each of the kernel's two tables.
const BOUND: u32 = 4096;

/// No end.
const FOR_EVER: u64 = u64::MAX;

/// To whom a destination is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockScope {
    /// Every process of the host.
    Host,
    /// The cgroup with this id (see [`crate::cgroup_id`]) and all below it.
    Cgroup(u64),
}

/// One closed destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where to.
    pub destination: Destination,
    /// For whom.
    pub scope: BlockScope,
    /// When it opens again, in nanoseconds of the boot-time clock; `None` for never.
    pub until: Option<u64>,
}

/// Closes destinations, and isolates cgroups. New flows to them are refused with EPERM, and what living flows send is dropped.
///
/// The programs are attached while there is something to block; when enforcement is pinned, from the first block on
/// until [`Blocker::release`]. Clones share one table.
#[derive(Clone)]
pub struct Blocker(Arc<Mutex<Inner>>);

struct Inner {
    cgroup2: Option<PathBuf>,
    pin: Option<PathBuf>,
    own: OwnPrograms,
    active: Option<Enforcement>,
    /// Told what is to be guarded whenever that changes. Locked after this, never before.
    hooks: Option<Arc<Mutex<Hooks>>>,
    /// What the kernel's tables hold, with the end of each.
    entries: Entries,
    /// What is isolated, by the cgroup's id, with the end of each.
    isolated: BTreeMap<u64, u64>,
    ended: bool,
}

type Entries = BTreeMap<(Destination, BlockScope), u64>;

impl Blocker {
    /// Adopts what an earlier agent pinned, if anything; else nothing is loaded yet.
    pub(crate) fn new(cgroup2: Option<PathBuf>, pin: Option<PathBuf>, own: OwnPrograms) -> Result<Self> {
        let (entries, isolated) = (Entries::new(), BTreeMap::new());
        let mut inner =
            Inner { cgroup2, pin, own, active: None, hooks: None, entries, isolated, ended: false };
        if inner.pin.as_deref().is_some_and(crate::pin::is_there) {
            inner.activate()?;
        }
        Ok(Self(Arc::new(Mutex::new(inner))))
    }

    /// Closes a destination for a scope until a moment of the boot-time clock ([`crate::boot_now`]), or for ever.
    /// The same destination and scope again changes the moment.
    ///
    /// # Errors
    /// [`Error::Full`] when the table has no place even after expired entries left; [`Error::Unsupported`] without a
    /// cgroup v2 mount.
    pub fn block(&self, destination: Destination, scope: BlockScope, until: Option<u64>) -> Result<()> {
        let mut inner = self.lock();
        inner.expire()?;
        inner.activate()?;
        let before = inner.entries.insert((destination, scope), until.unwrap_or(FOR_EVER));
        let written = inner.write(destination, scope);
        if written.is_err() {
            match before {
                Some(before) => inner.entries.insert((destination, scope), before),
                None => inner.entries.remove(&(destination, scope)),
            };
            // What was half written must not be left behind.
            let _ = inner.write(destination, scope);
        }
        written
    }

    /// Opens a destination again for a scope; says whether it was closed.
    ///
    /// # Errors
    /// When the kernel's tables cannot be changed.
    pub fn unblock(&self, destination: Destination, scope: BlockScope) -> Result<bool> {
        let mut inner = self.lock();
        let removed = inner.entries.remove(&(destination, scope)).is_some();
        if removed {
            inner.write(destination, scope)?;
        }
        inner.expire()?;
        Ok(removed)
    }

    /// Everything that is closed now.
    ///
    /// # Errors
    /// When the kernel's tables cannot be read.
    pub fn list(&self) -> Result<Vec<Block>> {
        let now = boot_now();
        let inner = self.lock();
        let closed = inner.entries.iter().filter(|(_, until)| **until > now);
        Ok(closed
            .map(|((destination, scope), until)| Block {
                destination: *destination,
                scope: *scope,
                until: (*until != FOR_EVER).then_some(*until),
            })
            .collect())
    }

    /// Opens everything, detaches the programs and removes the pins.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn release(&self) -> Result<()> {
        let mut inner = self.lock();
        let pin = inner.pin.take();
        inner.active = None;
        inner.entries.clear();
        inner.isolated.clear();
        pin.map_or(Ok(()), |folder| crate::pin::remove(&folder))
    }

    /// Ends with the sensors: what is not pinned is detached and no longer guarded, and clones can block nothing more.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.active = None;
        inner.hooks = None;
        inner.ended = true;
    }

    /// Has what enforces guarded, now and whenever it changes.
    pub(crate) fn guard_with(&self, hooks: Arc<Mutex<Hooks>>) -> Result<()> {
        let mut inner = self.lock();
        inner.hooks = Some(hooks);
        inner.guard()
    }

    /// Forgets what has expired, and detaches when nothing is left and nothing is pinned.
    pub(crate) fn expire(&self) {
        if let Err(error) = self.lock().expire() {
            tracing::warn!(%error, "expired blocks could not be removed");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn activate(&mut self) -> Result<()> {
        if self.ended {
            return Err(Error::Stopped);
        }
        if self.active.is_none() {
            let active = Enforcement::start(self.root()?, self.pin.as_deref(), &self.own)?;
            self.entries = active.entries()?;
            self.isolated = active.isolations()?;
            self.active = Some(active);
            // What is not guarded blocks all the same.
            if let Err(error) = self.guard() {
                tracing::error!(%error, "what blocks is not guarded");
            }
        }
        Ok(())
    }

    fn root(&self) -> Result<&Path> {
        let root = self.cgroup2.as_deref();
        root.ok_or_else(|| Error::Unsupported("no cgroup v2 is mounted here".to_owned()))
    }

    fn guard(&self) -> Result<()> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        let active = self.active.as_ref();
        let ids = active.map(Enforcement::ids).unwrap_or_default();
        let pins = match (active, &self.pin) {
            (Some(_), Some(folder)) => crate::pin::files(folder),
            _ => Vec::new(),
        };
        hooks.lock().unwrap_or_else(PoisonError::into_inner).guard_enforcing("blocking", ids, pins)
    }

    fn expire(&mut self) -> Result<()> {
        let now = boot_now();
        let expired: Vec<_> =
            self.entries.iter().filter(|(_, until)| **until <= now).map(|(place, _)| *place).collect();
        for (destination, scope) in expired {
            self.entries.remove(&(destination, scope));
            self.write(destination, scope)?;
        }
        self.expire_isolations(now)?;
        if self.entries.is_empty() && self.isolated.is_empty() && self.pin.is_none() {
            self.active = None;
        }
        Ok(())
    }

    /// Brings the kernel's tables in line with the entry of this destination and scope.
    fn write(&self, destination: Destination, scope: BlockScope) -> Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let key = key(&destination);
        if let BlockScope::Cgroup(id) = scope {
            let scoped = scoped(&key, id);
            match self.entries.get(&(destination, scope)) {
                Some(until) => put(&active.scoped, scoped.as_bytes(), until.as_bytes())?,
                None => drop(active.scoped.delete(scoped.as_bytes())),
            }
        }
        let host_until = self.entries.get(&(destination, BlockScope::Host)).copied().unwrap_or(0);
        let of_it = self
            .entries
            .range((destination, BlockScope::Cgroup(0))..)
            .take_while(|((d, _), _)| *d == destination);
        let entry = BlockEntry { host_until, scopes: of_it.count() as u64 };
        if entry.host_until == 0 && entry.scopes == 0 {
            drop(active.blocked.delete(key.as_bytes()));
            return Ok(());
        }
        put(&active.blocked, key.as_bytes(), entry.as_bytes())
    }
}

impl Enforcement {
    /// What the tables hold; an earlier agent may have filled them.
    fn entries(&self) -> Result<Entries> {
        let mut found = Entries::new();
        for bytes in self.blocked.keys() {
            let value = self.blocked.lookup(&bytes, MapFlags::ANY).during(reading)?.unwrap_or_default();
            if let (Ok(key), Ok(entry)) =
                (BlockKey::read_from_bytes(&bytes), BlockEntry::read_from_bytes(&value))
                && entry.host_until != 0
            {
                found.insert((destination(key.address, key.port), BlockScope::Host), entry.host_until);
            }
        }
        for bytes in self.scoped.keys() {
            let value = self.scoped.lookup(&bytes, MapFlags::ANY).during(reading)?.unwrap_or_default();
            if let (Ok(key), Ok(until)) =
                (ScopedBlockKey::read_from_bytes(&bytes), u64::read_from_bytes(&value))
            {
                found.insert((destination(key.address, key.port), BlockScope::Cgroup(key.cgroup)), until);
            }
        }
        Ok(found)
    }
}

fn destination(address: [u8; 16], port: u16) -> Destination {
    Destination { address: IpAddr::V6(Ipv6Addr::from(address)).to_canonical(), port }
}

fn key(destination: &Destination) -> BlockKey {
    BlockKey { address: mapped_octets(destination.address), port: destination.port, reserved: [0; 3] }
}

fn scoped(key: &BlockKey, cgroup: u64) -> ScopedBlockKey {
    ScopedBlockKey { address: key.address, port: key.port, reserved: [0; 3], cgroup }
}

fn put(map: &MapHandle, key: &[u8], value: &[u8]) -> Result<()> {
    map.update(key, value, MapFlags::ANY).or_else(|error| {
        if full(map) {
            return Err(Error::Full { what: "the table of closed destinations", bound: BOUND });
        }
        Err(error).during(|| "closing a destination".to_owned())
    })
}

fn full(map: &MapHandle) -> bool {
    map.keys().count() >= BOUND as usize
}

fn reading() -> String {
    "reading the closed destinations".to_owned()
}
