//! The outbound allow-list, decided where a process connects.
//!
//! Rules become tables ([`OutboundTables`]) that are filled before the programs over them are put in the place of those before,
//! program by program and each in one step: at no moment does a hook decide by half a policy.

mod names;
mod placed;
mod tables;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use davy_model::{OutboundMode, OutboundModes, OutboundProtocol, OutboundTables, ProcessKey, Timestamp};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object};
use zerocopy::FromBytes;

use crate::abi::{Attempt as AttemptRecord, AttemptKey};
use crate::cgroups::Cgroups;
use crate::clock::BootClock;
use crate::decode::short_name;
use crate::error::{During, Error, Result};
use crate::guard::Hooks;
use crate::objects;
use crate::program_loads::{OwnPrograms, program_ids};

pub use names::Answered;
use placed::Placed;

/// Nanoseconds in a clock tick as user space counts them.
const TICK: u64 = 10_000_000;

/// Connections to one destination that no rule allowed, since they were last asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempted {
    /// When the last of them was tried.
    pub time: Timestamp,
    /// Who tried it.
    pub process: ProcessKey,
    /// The process's short name then.
    pub comm: String,
    /// Whether they were refused.
    pub refused: bool,
    /// By what.
    pub protocol: OutboundProtocol,
    /// Where to; unspecified for a socket that is neither TCP nor UDP.
    pub address: IpAddr,
    /// Port; zero for such a socket.
    pub port: u16,
    /// The cgroup v2 path; empty where unknown.
    pub cgroup: String,
    /// Real user id.
    pub uid: u32,
    /// How many there were.
    pub count: u64,
}

/// Decides which process may connect to what. Nothing is loaded before [`OutboundGate::apply`]; clones share one.
#[derive(Clone)]
pub struct OutboundGate(Arc<Mutex<Inner>>);

struct Inner {
    cgroup2: PathBuf,
    own: OwnPrograms,
    boot: u32,
    clock: BootClock,
    cgroups: Cgroups,
    placed: Placed,
    loaded: Option<Loaded>,
    epoch: u32,
    /// Told what is to be guarded whenever that changes. Locked after this, never before.
    hooks: Option<Arc<Mutex<Hooks>>>,
    ended: bool,
}

/// What the kernel decides by.
struct Loaded {
    object: Object,
    tables: OutboundTables,
    /// What was last asked for, and done.
    modes: OutboundModes,
}

impl OutboundGate {
    /// `pin` is where enforcement is kept when the agent goes.
    pub(crate) fn new(cgroup2: PathBuf, pin: Option<PathBuf>, boot: u32, own: OwnPrograms) -> Self {
        let cgroups = Cgroups::new(Some(cgroup2.clone()));
        let placed = Placed::new(pin);
        let clock = BootClock::new();
        let inner = Inner {
            cgroup2,
            own,
            boot,
            clock,
            cgroups,
            placed,
            loaded: None,
            epoch: 0,
            hooks: None,
            ended: false,
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Decides by these rules from now on. What was learned of names stays. Where something is to be enforced and there is a
    /// place to keep it, it outlives this process until [`OutboundGate::release`].
    ///
    /// # Errors
    /// [`Error::Full`] when a table has no room for the rules, and when the kernel refuses the programs or their places. The rules
    /// before hold on then, and refuse only where these modes refuse too: whoever disarms is obeyed all the same.
    pub fn apply(&self, tables: &OutboundTables, modes: &OutboundModes) -> Result<()> {
        let mut inner = self.lock();
        inner.apply(tables, modes).inspect_err(|_| inner.yield_to(modes))
    }

    /// Changes where which mode holds, by the rules that were applied.
    ///
    /// # Errors
    /// [`Error::Stopped`] before any were, and when the tables cannot be changed.
    pub fn set_modes(&self, modes: &OutboundModes) -> Result<()> {
        let mut inner = self.lock();
        inner.put_modes(modes)?;
        if let Some(loaded) = &mut inner.loaded {
            loaded.modes = modes.clone();
        }
        inner.keep(modes)
    }

    /// What no rule allowed since the last call, oldest first. At most 4,096 destinations are counted between two calls; beyond
    /// it those that are repeated least are forgotten.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempted> {
        let mut inner = self.lock();
        inner.clock.renew();
        let Some(map) = inner.map("outbound_attempts") else { return Vec::new() };
        let mut taken: Vec<Attempted> = Vec::new();
        for key in map.keys().collect::<Vec<_>>() {
            let value = map.lookup_and_delete(&key).ok().flatten();
            let record = value.and_then(|value| AttemptRecord::read_from_bytes(&value).ok());
            if let (Some(record), Ok(key)) = (record, AttemptKey::read_from_bytes(&key)) {
                taken.push(inner.told(&key, &record));
            }
        }
        taken.sort_by_key(|attempt| attempt.time);
        taken
    }

    /// What the host's name servers answered and still holds, by name and address.
    #[must_use]
    pub fn answered(&self) -> Vec<Answered> {
        let inner = self.lock();
        inner.map("names_answered").map(|map| names::answered(&map, &inner.clock)).unwrap_or_default()
    }

    /// Decides nothing any more, and takes away what is kept.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn release(&self) -> Result<()> {
        let mut inner = self.lock();
        inner.placed.release()?;
        inner.loaded = None;
        inner.guard()
    }

    /// Ends with the sensors: what is not kept is detached.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.placed.let_go();
        inner.loaded = None;
        inner.hooks = None;
        inner.ended = true;
    }

    /// Has what enforces guarded, now and whenever it changes.
    pub(crate) fn guard_with(&self, hooks: Arc<Mutex<Hooks>>) -> Result<()> {
        let mut inner = self.lock();
        inner.hooks = Some(hooks);
        inner.guard()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn apply(&mut self, tables: &OutboundTables, modes: &OutboundModes) -> Result<()> {
        if self.ended {
            return Err(Error::Stopped);
        }
        let shared = self.placed.heard(self.loaded.as_ref().map(|loaded| &loaded.object))?;
        let own = self.own.clone();
        let object =
            own.during(|| load(&shared), |loaded| loaded.as_ref().map(program_ids).unwrap_or_default())?;
        self.epoch = self.epoch.wrapping_add(1);
        tables::fill(&object, tables)?;
        tables::set_modes(&object, tables, modes, self.epoch)?;
        names::take_over(&object, &tables.names)?;
        self.placed.put(&object, &self.cgroup2)?;
        self.loaded = Some(Loaded { object, tables: tables.clone(), modes: modes.clone() });
        self.keep(modes)
    }

    /// What could not be applied was to refuse here and there, and no longer elsewhere. The latter is done with the rules that
    /// hold; nothing is refused by them where nothing was.
    fn yield_to(&mut self, wanted: &OutboundModes) {
        let Some(before) = self.loaded.as_ref().map(|loaded| loaded.modes.clone()) else {
            // What an earlier agent left is not known here; it may go on only if something is to be refused at all.
            if wanted.highest() < OutboundMode::Enforce
                && let Err(error) = self.placed.release()
            {
                tracing::error!(%error, "what an earlier agent left goes on refusing connections");
            }
            return;
        };
        let observing = OutboundModes { everywhere: OutboundMode::Observe, places: Vec::new() };
        let done =
            self.put_modes(&before.lower(wanted)).or_else(|_| self.put_modes(&before.lower(&observing)));
        if let Err(error) = done {
            tracing::error!(%error, "connections go on being refused as before");
        }
    }

    fn put_modes(&mut self, modes: &OutboundModes) -> Result<()> {
        self.epoch = self.epoch.wrapping_add(1);
        let loaded = self.loaded.as_ref().ok_or(Error::Stopped)?;
        tables::set_modes(&loaded.object, &loaded.tables, modes, self.epoch)
    }

    /// Keeps what enforces beyond this process, and nothing else.
    fn keep(&mut self, modes: &OutboundModes) -> Result<()> {
        let heard = self.placed.heard(self.loaded.as_ref().map(|loaded| &loaded.object))?;
        self.placed.keep(modes.highest() == OutboundMode::Enforce, heard)?;
        self.guard()
    }

    fn guard(&self) -> Result<()> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        let (ids, pins) = self.placed.guarded(self.loaded.as_ref().map(|loaded| &loaded.object));
        hooks.lock().unwrap_or_else(PoisonError::into_inner).guard_enforcing("outbound", ids, pins)
    }

    fn map(&self, name: &str) -> Option<MapHandle> {
        objects::map(&self.loaded.as_ref()?.object, name).ok()
    }

    fn told(&mut self, key: &AttemptKey, record: &AttemptRecord) -> Attempted {
        Attempted {
            time: self.clock.at(record.last),
            process: ProcessKey { pid: record.pid, start_ticks: record.start / TICK, boot: self.boot },
            comm: short_name(&record.comm),
            refused: key.refused != 0,
            protocol: protocol(key.protocol),
            address: IpAddr::V6(Ipv6Addr::from(key.address)).to_canonical(),
            port: key.port,
            cgroup: self.cgroups.path(key.cgroup, record.pid),
            uid: key.uid,
            count: record.count,
        }
    }
}

fn load(heard: &[MapHandle]) -> Result<Object> {
    let mut open = objects::OUTBOUND.open()?;
    objects::share(&mut open, heard)?;
    objects::load(open, "outbound")
}

const fn mode_number(mode: OutboundMode) -> u32 {
    match mode {
        OutboundMode::Off => 0,
        OutboundMode::Observe => 1,
        OutboundMode::Enforce => 2,
    }
}

const fn protocol_number(protocol: OutboundProtocol) -> u8 {
    match protocol {
        OutboundProtocol::Tcp => 0,
        OutboundProtocol::Udp => 1,
        OutboundProtocol::Raw => 2,
    }
}

fn protocol(number: u8) -> OutboundProtocol {
    let found = OutboundProtocol::ALL.into_iter().find(|protocol| protocol_number(*protocol) == number);
    found.unwrap_or(OutboundProtocol::Raw)
}

/// Puts entries into a table.
fn put_all(
    map: &MapHandle,
    what: &'static str,
    entries: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
) -> Result<()> {
    let bound = map.max_entries();
    let mut known = BTreeMap::new();
    for (key, value) in entries {
        known.insert(key, value);
        if known.len() > bound as usize {
            return Err(Error::Full { what, bound });
        }
    }
    for (key, value) in known {
        map.update(&key, &value, MapFlags::ANY).during(|| format!("filling {what}"))?;
    }
    Ok(())
}
