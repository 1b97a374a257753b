//! Cgroups that reach nobody and are reached by nobody, but for what stays.

use std::net::{IpAddr, Ipv6Addr};

use davy_model::mapped_octets;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use zerocopy::{FromBytes, IntoBytes};

use super::{BlockScope, Blocker, FOR_EVER, Inner};
use crate::abi::{NetworkKey, SessionKey};
use crate::boot_now;
use crate::error::{During, Error, Result};
use crate::pin::Enforcement;

/// Most cgroups that are isolated at once, and most sessions and most networks that stay.
const ISOLATED: u32 = 64;
const KEEPS: u32 = 4096;

/// The key under which the kernel's table has the latest end of all; no cgroup has it.
const LATEST: u64 = 0;

/// What stays open for whoever is isolated. Loopback, neighbour discovery and DHCP always do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// TCP sessions that stay, and new ones like them: the other end's address, and the port on this host.
    pub sessions: Vec<(IpAddr, u16)>,
    /// Networks that stay, whatever the ports: address and prefix length in bits.
    pub networks: Vec<(IpAddr, u8)>,
}

/// A cgroup that is isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isolated {
    /// Which, with all below it.
    pub scope: BlockScope,
    /// When it ends, in nanoseconds of the boot-time clock.
    pub until: u64,
}

impl Blocker {
    /// Isolates a scope until a moment of the boot-time clock ([`crate::boot_now`]): its packets are dropped in both
    /// directions, and what it asks for is refused with EPERM, but for what stays. What stays holds for all that is
    /// isolated: it is added to what stays for others, and replaces what an earlier order of the same scope named if nothing else
    /// is isolated. The same scope again changes the moment.
    ///
    /// # Errors
    /// [`Error::Full`] when a table has no place; [`Error::Unsupported`] without a cgroup v2 mount. Then the scope is not
    /// isolated.
    pub fn isolate(&self, scope: BlockScope, until: u64, kept: &Kept) -> Result<()> {
        let mut inner = self.lock();
        inner.expire()?;
        let cgroup = inner.cgroup_of(scope)?;
        inner.activate()?;
        let written = inner.write_isolation(cgroup, until, kept);
        if written.is_err() {
            // What was half written must not be left behind.
            inner.forget_kept();
        }
        written?;
        inner.isolated.insert(cgroup, until);
        // What stayed for an earlier order of the same stays no longer.
        if inner.isolated.len() == 1 {
            inner.keep_only(kept);
        }
        inner.tell_latest()
    }

    /// Ends the isolation of a scope; says whether it was isolated.
    ///
    /// # Errors
    /// When the kernel's tables cannot be changed.
    pub fn rejoin(&self, scope: BlockScope) -> Result<bool> {
        let mut inner = self.lock();
        let cgroup = inner.cgroup_of(scope)?;
        let removed = inner.rejoin(cgroup)?;
        inner.expire()?;
        Ok(removed)
    }

    /// What is isolated now.
    #[must_use]
    pub fn isolated(&self) -> Vec<Isolated> {
        let now = boot_now();
        let inner = self.lock();
        let host = inner.cgroup_of(BlockScope::Host).ok();
        let scope = |cgroup| if Some(cgroup) == host { BlockScope::Host } else { BlockScope::Cgroup(cgroup) };
        let running = inner.isolated.iter().filter(|(_, until)| **until > now);
        running.map(|(cgroup, until)| Isolated { scope: scope(*cgroup), until: *until }).collect()
    }
}

impl Inner {
    fn cgroup_of(&self, scope: BlockScope) -> Result<u64> {
        match scope {
            BlockScope::Cgroup(cgroup) => Ok(cgroup),
            BlockScope::Host => crate::cgroup_id(self.root()?),
        }
    }

    fn write_isolation(&self, cgroup: u64, until: u64, kept: &Kept) -> Result<()> {
        let active = self.active.as_ref().ok_or(Error::Stopped)?;
        // What stays is there before anything is cut off.
        for kept in &kept.sessions {
            let key = session(kept);
            put(&active.sessions, key.as_bytes(), 1, "the table of sessions that stay", KEEPS)?;
        }
        for (address, prefix) in &kept.networks {
            let key = network(*address, *prefix);
            put(&active.networks, key.as_bytes(), 1, "the table of networks that stay", KEEPS)?;
        }
        put(&active.isolated, cgroup.as_bytes(), until, "the table of isolated cgroups", ISOLATED)
    }

    fn keep_only(&self, kept: &Kept) {
        let Some(active) = &self.active else { return };
        let sessions: Vec<Vec<u8>> = kept.sessions.iter().map(|s| session(s).as_bytes().to_vec()).collect();
        let networks: Vec<Vec<u8>> =
            kept.networks.iter().map(|(a, p)| network(*a, *p).as_bytes().to_vec()).collect();
        for (map, stay) in [(&active.sessions, sessions), (&active.networks, networks)] {
            let gone: Vec<_> = map.keys().filter(|key| !stay.contains(key)).collect();
            for key in gone {
                drop(map.delete(&key));
            }
        }
    }

    /// Forgets what stays, unless something is isolated that it stays for.
    fn forget_kept(&self) {
        if let Some(active) = self.active.as_ref().filter(|_| self.isolated.is_empty()) {
            empty(&active.sessions);
            empty(&active.networks);
        }
    }

    /// Forgets isolations whose time is over.
    pub(super) fn expire_isolations(&mut self, now: u64) -> Result<()> {
        let over: Vec<u64> =
            self.isolated.iter().filter(|(_, until)| **until <= now).map(|(cgroup, _)| *cgroup).collect();
        over.into_iter().try_for_each(|cgroup| self.rejoin(cgroup).map(drop))
    }

    fn rejoin(&mut self, cgroup: u64) -> Result<bool> {
        if self.isolated.remove(&cgroup).is_none() {
            return Ok(false);
        }
        if let Some(active) = &self.active {
            drop(active.isolated.delete(cgroup.as_bytes()));
        }
        self.forget_kept();
        self.tell_latest()?;
        Ok(true)
    }

    fn tell_latest(&self) -> Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        match self.isolated.values().max() {
            Some(latest) => {
                put(&active.isolated, LATEST.as_bytes(), *latest, "the table of isolated cgroups", ISOLATED)
            }
            None => {
                drop(active.isolated.delete(LATEST.as_bytes()));
                Ok(())
            }
        }
    }
}

impl Enforcement {
    /// What the table holds; an earlier agent may have filled it.
    pub(super) fn isolations(&self) -> Result<std::collections::BTreeMap<u64, u64>> {
        let mut found = std::collections::BTreeMap::new();
        for bytes in self.isolated.keys() {
            let reading = || "reading what is isolated".to_owned();
            let value = self.isolated.lookup(&bytes, MapFlags::ANY).during(reading)?.unwrap_or_default();
            if let (Ok(cgroup), Ok(until)) = (u64::read_from_bytes(&bytes), u64::read_from_bytes(&value))
                && cgroup != LATEST
                && until != FOR_EVER
            {
                found.insert(cgroup, until);
            }
        }
        Ok(found)
    }
}

fn session((address, local_port): &(IpAddr, u16)) -> SessionKey {
    SessionKey { address: mapped_octets(*address), local_port: *local_port, reserved: [0; 3] }
}

fn network(address: IpAddr, prefix: u8) -> NetworkKey {
    let (widened, bits) = match address {
        IpAddr::V4(_) => (96, 32),
        IpAddr::V6(_) => (0, 128),
    };
    let prefix = u32::from(prefix.min(bits)) + widened;
    let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
    let masked = u128::from(Ipv6Addr::from(mapped_octets(address))) & mask;
    NetworkKey { prefix, address: Ipv6Addr::from(masked).octets() }
}

fn put(map: &MapHandle, key: &[u8], value: u64, what: &'static str, bound: u32) -> Result<()> {
    map.update(key, value.as_bytes(), MapFlags::ANY).or_else(|error| {
        if map.keys().count() >= bound as usize {
            return Err(Error::Full { what, bound });
        }
        Err(error).during(|| format!("writing {what}"))
    })
}

fn empty(map: &MapHandle) {
    let keys: Vec<_> = map.keys().collect();
    for key in keys {
        drop(map.delete(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str, prefix: u8) -> (u32, Ipv6Addr) {
        let key = network(address.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)), prefix);
        (key.prefix, Ipv6Addr::from(key.address))
    }

    #[test]
    fn networks_of_both_families_share_one_table() {
        assert_eq!(key("10.1.2.3", 8), (104, "::ffff:10.0.0.0".parse().unwrap_or(Ipv6Addr::LOCALHOST)));
        assert_eq!(key("10.1.2.3", 32), (128, "::ffff:10.1.2.3".parse().unwrap_or(Ipv6Addr::LOCALHOST)));
        assert_eq!(key("2001:db8:1::1", 32), (32, "2001:db8::".parse().unwrap_or(Ipv6Addr::LOCALHOST)));
        // All of IPv4 stays, and nothing of IPv6 with it.
        assert_eq!(key("0.0.0.0", 0), (96, "::ffff:0.0.0.0".parse().unwrap_or(Ipv6Addr::LOCALHOST)));
        assert_eq!(key("::", 0), (0, Ipv6Addr::UNSPECIFIED));
    }
}
