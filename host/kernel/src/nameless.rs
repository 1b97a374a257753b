//! The signal tier of trust: programs without a file are ended before their first instruction.

use davy_model::{FileId, ProcessKey, Timestamp};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object};
use zerocopy::{FromBytes, IntoBytes};

use crate::abi::EndedProgram;
use crate::clock::BootClock;
use crate::error::{During, Error, Result};
use crate::guard::file_key;
use crate::objects;
use crate::program_loads::{OwnPrograms, program_ids};

/// Nanoseconds in a clock tick as user space counts them.
const TICK: u64 = 10_000_000;

/// What becomes of programs without a file in a cgroup and all below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamelessMode {
    /// They are ended.
    Enforce,
    /// They run, whatever holds for cgroups above or below: the agent's own, to begin with.
    Exempt,
}

/// A program without a file (in memory, deleted, or never named) that was ended before its first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub time: Timestamp,
    /// What it would have become.
    pub process: ProcessKey,
    /// What it was executed from.
    pub file: FileId,
    /// False when the kernel could not send the signal: then it runs.
    pub killed: bool,
}

/// Ends programs without a file in the cgroups that it is told. Nothing is in a scope at first; detached when dropped.
pub struct Nameless {
    scopes: MapHandle,
    runtimes: MapHandle,
    ended: MapHandle,
    clock: BootClock,
    boot: u32,
    /// The links go first.
    _links: Vec<Link>,
    _object: Object,
}

impl Nameless {
    /// Loads and attaches it. `boot` becomes part of the identities of what is ended.
    pub(crate) fn start(boot: u32, own: &OwnPrograms) -> Result<Self> {
        let object = own.during(
            || objects::load(objects::NAMELESS.open()?, "nameless"),
            |loaded| loaded.as_ref().map(program_ids).unwrap_or_default(),
        )?;
        let links = objects::attach_tracing(&object)?;
        let map = |name| objects::map(&object, name);
        Ok(Self {
            scopes: map("nameless_scopes")?,
            runtimes: map("nameless_runtimes")?,
            ended: map("nameless_ended")?,
            clock: BootClock::new(),
            boot,
            _links: links,
            _object: object,
        })
    }

    /// Says what holds for a cgroup and all below it; `None` for nothing. An exemption is stronger than enforcement,
    /// whichever of the two is nearer.
    ///
    /// # Errors
    /// [`Error::Full`] beyond 1,024 cgroups.
    pub fn set_scope(&self, cgroup: u64, mode: Option<NamelessMode>) -> Result<()> {
        let key = cgroup.to_ne_bytes();
        let Some(mode) = mode else {
            // One that is not there is as good as removed.
            let _ = self.scopes.delete(&key);
            return Ok(());
        };
        let mode: u32 = match mode {
            NamelessMode::Enforce => 1,
            NamelessMode::Exempt => 2,
        };
        put(&self.scopes, &key, &mode.to_ne_bytes(), "the table of scopes without nameless programs")
    }

    /// Lets the children of this program run without a file. Container runtimes execute a sealed copy of themselves from
    /// memory; a scope with such a runtime in it stops starting containers otherwise.
    ///
    /// # Errors
    /// [`Error::Full`] beyond 64 programs.
    pub fn allow_under(&self, program: FileId) -> Result<()> {
        let key = file_key(program);
        put(&self.runtimes, key.as_bytes(), &1u32.to_ne_bytes(), "the table of container runtimes")
    }

    /// What was ended since the last call, oldest first. At most 1,024 are kept.
    #[must_use]
    pub fn take_ended(&mut self) -> Vec<Ended> {
        self.clock.renew();
        let mut taken = Vec::new();
        for key in self.ended.keys().collect::<Vec<_>>() {
            let value = self.ended.lookup(&key, MapFlags::ANY).ok().flatten();
            let _ = self.ended.delete(&key);
            let record = value.and_then(|value| EndedProgram::read_from_bytes(&value).ok());
            if let (Some(record), Ok(start)) = (record, u64::read_from_bytes(&key)) {
                taken.push(self.told(&record, start));
            }
        }
        taken.sort_by_key(|ended| ended.time);
        taken
    }

    fn told(&self, record: &EndedProgram, start: u64) -> Ended {
        let device = u32::try_from(record.file.dev).unwrap_or(u32::MAX);
        Ended {
            time: self.clock.at(record.time),
            process: ProcessKey { pid: record.pid, start_ticks: start / TICK, boot: self.boot },
            file: FileId { dev: crate::decode::device(device), ino: record.file.ino },
            killed: record.failed == 0,
        }
    }
}

fn put(map: &MapHandle, key: &[u8], value: &[u8], what: &'static str) -> Result<()> {
    map.update(key, value, MapFlags::ANY).or_else(|error| {
        let bound = map.max_entries();
        if map.keys().count() >= bound as usize {
            return Err(Error::Full { what, bound });
        }
        Err(error).during(|| format!("writing to {what}"))
    })
}
