//! Destinations closed by programs at the root of the cgroup tree.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use davy_model::Destination;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};
use zerocopy::{FromBytes, IntoBytes};

use crate::abi::{BlockEntry, BlockKey, ScopedBlockKey};
use crate::boot_now;
use crate::error::{During, Error, Result};
use crate::pin::Enforcement;
use crate::program_loads::OwnPrograms;

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

/// Closes destinations. New flows to them are refused with EPERM, and what living flows send is dropped.
///
/// The programs are attached while there is something to block, or always when enforcement is pinned. Clones share
/// one table.
#[derive(Clone)]
pub struct Blocker(Arc<Mutex<Inner>>);

struct Inner {
    cgroup2: Option<PathBuf>,
    pin: Option<PathBuf>,
    own: OwnPrograms,
    active: Option<Enforcement>,
    ended: bool,
}

impl Blocker {
    /// Adopts what an earlier agent pinned, if anything; else nothing is loaded yet.
    pub(crate) fn new(cgroup2: Option<PathBuf>, pin: Option<PathBuf>, own: OwnPrograms) -> Result<Self> {
        let mut inner = Inner { cgroup2, pin, own, active: None, ended: false };
        if inner.pin.is_some() {
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
        let active = inner.activate()?;
        let until = until.unwrap_or(FOR_EVER);
        let key = key(&destination);
        let mut entry = entry(&active.blocked, &key)?.unwrap_or(BlockEntry { host_until: 0, scopes: 0 });
        match scope {
            BlockScope::Host => entry.host_until = until,
            BlockScope::Cgroup(id) => {
                put(&active.scoped, scoped(&key, id).as_bytes(), until.as_bytes())?;
                entry.scopes = scopes(active, &key)?;
            }
        }
        let put = put(&active.blocked, key.as_bytes(), entry.as_bytes());
        if put.is_err()
            && let BlockScope::Cgroup(id) = scope
        {
            // Without its first-level entry the scoped one is never looked at; do not leave it behind.
            let _ = active.scoped.delete(scoped(&key, id).as_bytes());
        }
        put
    }

    /// Opens a destination again for a scope; says whether it was closed.
    ///
    /// # Errors
    /// When the kernel's tables cannot be changed.
    pub fn unblock(&self, destination: Destination, scope: BlockScope) -> Result<bool> {
        let mut inner = self.lock();
        let Some(active) = &inner.active else { return Ok(false) };
        let removed = active.remove(&key(&destination), scope)?;
        inner.expire()?;
        Ok(removed)
    }

    /// Everything that is closed now.
    ///
    /// # Errors
    /// When the kernel's tables cannot be read.
    pub fn list(&self) -> Result<Vec<Block>> {
        self.lock().active.as_ref().map_or(Ok(Vec::new()), |active| {
            let now = boot_now();
            Ok(active
                .entries()?
                .into_iter()
                .filter(|(_, until)| *until > now)
                .map(|(place, until)| place.block(until))
                .collect())
        })
    }

    /// Opens everything, detaches the programs and removes the pins.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn release(&self) -> Result<()> {
        let mut inner = self.lock();
        let pin = inner.pin.take();
        inner.active = None;
        pin.map_or(Ok(()), |folder| crate::pin::remove(&folder))
    }

    /// Ends with the sensors: what is not pinned is detached, and clones can block nothing more.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.active = None;
        inner.ended = true;
    }

    /// Ids of the programs, maps and links that enforce.
    pub(crate) fn ids(&self) -> crate::guard::ObjectIds {
        self.lock().active.as_ref().map(Enforcement::ids).unwrap_or_default()
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
    fn activate(&mut self) -> Result<&Enforcement> {
        if self.ended {
            return Err(Error::Stopped);
        }
        if self.active.is_none() {
            let root = self.cgroup2.as_deref();
            let root = root.ok_or_else(|| Error::Unsupported("no cgroup v2 is mounted here".to_owned()))?;
            self.active = Some(Enforcement::start(root, self.pin.as_deref(), &self.own)?);
        }
        self.active.as_ref().ok_or(Error::Stopped)
    }

    fn expire(&mut self) -> Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let now = boot_now();
        let mut left = 0;
        for (place, until) in active.entries()? {
            if until > now {
                left += 1;
            } else {
                active.remove(&place.key, place.scope)?;
            }
        }
        if left == 0 && self.pin.is_none() {
            self.active = None;
        }
        Ok(())
    }
}

/// A key of either table.
#[derive(Clone, Copy)]
struct Place {
    key: BlockKey,
    scope: BlockScope,
}

impl Place {
    fn block(&self, until: u64) -> Block {
        let address = IpAddr::V6(Ipv6Addr::from(self.key.address)).to_canonical();
        Block {
            destination: Destination { address, port: self.key.port },
            scope: self.scope,
            until: (until != FOR_EVER).then_some(until),
        }
    }
}

impl Enforcement {
    fn entries(&self) -> Result<Vec<(Place, u64)>> {
        let mut found = Vec::new();
        for bytes in self.blocked.keys() {
            let Ok(key) = BlockKey::read_from_bytes(&bytes) else { continue };
            if let Some(entry) = entry(&self.blocked, &key)?
                && entry.host_until != 0
            {
                found.push((Place { key, scope: BlockScope::Host }, entry.host_until));
            }
        }
        for bytes in self.scoped.keys() {
            let Ok(scoped) = ScopedBlockKey::read_from_bytes(&bytes) else { continue };
            let until = self.scoped.lookup(&bytes, MapFlags::ANY).during(reading)?;
            if let Some(until) = until.and_then(|until| until.try_into().ok()).map(u64::from_ne_bytes) {
                let key = BlockKey { address: scoped.address, port: scoped.port, reserved: [0; 3] };
                found.push((Place { key, scope: BlockScope::Cgroup(scoped.cgroup) }, until));
            }
        }
        Ok(found)
    }

    fn remove(&self, key: &BlockKey, scope: BlockScope) -> Result<bool> {
        let Some(mut entry) = entry(&self.blocked, key)? else { return Ok(false) };
        let removed = match scope {
            BlockScope::Host => std::mem::take(&mut entry.host_until) != 0,
            BlockScope::Cgroup(id) => {
                let removed = self.scoped.delete(scoped(key, id).as_bytes()).is_ok();
                entry.scopes = scopes(self, key)?;
                removed
            }
        };
        if entry.host_until == 0 && entry.scopes == 0 {
            self.blocked.delete(key.as_bytes()).during(|| "opening a destination".to_owned())?;
        } else {
            put(&self.blocked, key.as_bytes(), entry.as_bytes())?;
        }
        Ok(removed)
    }
}

fn key(destination: &Destination) -> BlockKey {
    let address = match destination.address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    BlockKey { address: address.octets(), port: destination.port, reserved: [0; 3] }
}

fn scoped(key: &BlockKey, cgroup: u64) -> ScopedBlockKey {
    ScopedBlockKey { address: key.address, port: key.port, reserved: [0; 3], cgroup }
}

/// How many scopes a destination is closed to.
fn scopes(active: &Enforcement, key: &BlockKey) -> Result<u64> {
    let mut counts: HashMap<([u8; 16], u16), u64> = HashMap::new();
    for bytes in active.scoped.keys() {
        if let Ok(scoped) = ScopedBlockKey::read_from_bytes(&bytes) {
            *counts.entry((scoped.address, scoped.port)).or_default() += 1;
        }
    }
    Ok(counts.get(&(key.address, key.port)).copied().unwrap_or(0))
}

fn entry(map: &MapHandle, key: &BlockKey) -> Result<Option<BlockEntry>> {
    let bytes = map.lookup(key.as_bytes(), MapFlags::ANY).during(reading)?;
    Ok(bytes.and_then(|bytes| BlockEntry::read_from_bytes(&bytes).ok()))
}

fn put(map: &MapHandle, key: &[u8], value: &[u8]) -> Result<()> {
    map.update(key, value, MapFlags::ANY).or_else(|error| match error.kind() {
        ErrorKind::Other if full(map) => {
            Err(Error::Full { what: "the table of closed destinations", bound: BOUND })
        }
        _ => Err(error).during(|| "closing a destination".to_owned()),
    })
}

fn full(map: &MapHandle) -> bool {
    map.keys().count() >= BOUND as usize
}

fn reading() -> String {
    "reading the closed destinations".to_owned()
}
