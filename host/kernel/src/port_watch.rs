//! Who looks for open ports: a filter of a packet socket that keeps no packet, and tells of firsts.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use davy_model::{PacketShape, PortNews, PortSight, mapped_octets};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, RingBuffer, RingBufferBuilder};
use zerocopy::{FromBytes, IntoBytes};

use crate::abi::{PortProbe, TalkKey, probe};
use crate::clock::BootClock;
use crate::error::{During, Error, Result};
use crate::objects;
use crate::program_loads::{OwnPrograms, program_ids};
use crate::sensors::per_cpu_sum;
use crate::sys;

/// The most records taken in one round; what is left waits in the kernel, and beyond that is counted.
const BATCH: usize = 8192;

/// How long records gather after the first one.
const GATHER: Duration = Duration::from_millis(20);

/// Starts watches. It can be kept for as long as the process lives.
#[derive(Clone)]
pub struct PortWatchStarter(OwnPrograms);

impl PortWatchStarter {
    pub(crate) fn new(own: OwnPrograms) -> Self {
        Self(own)
    }

    /// Watches the network namespace of the calling thread. Nothing is attached to interfaces, routes or cgroups, and no packet
    /// is held up or copied to user space.
    ///
    /// # Errors
    /// When the kernel refuses the program, or packet sockets (CAP_NET_RAW).
    pub fn start(&self) -> Result<PortWatch> {
        PortWatch::start(&self.0)
    }
}

/// What a watch could not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortWatchLosses {
    /// Visits to what is open, of which only some are told by design.
    pub sampled: u64,
    /// Firsts beyond the bounds of a source or of all together.
    pub throttled: u64,
    /// Firsts for which the way to user space had no room.
    pub full: u64,
}

/// A running watch. It ends when it is dropped.
pub struct PortWatch {
    /// Without it nothing more is seen, so it goes first.
    _socket: OwnedFd,
    lane: RingBuffer<'static>,
    taken: Rc<RefCell<Vec<PortProbe>>>,
    locals: Locals,
    talks: MapHandle,
    counts: MapHandle,
    clock: BootClock,
    _object: Object,
}

impl PortWatch {
    fn start(own: &OwnPrograms) -> Result<Self> {
        let object = own.during(
            || objects::load(objects::SCANS.open()?, "scan"),
            |loaded| loaded.as_ref().map(program_ids).unwrap_or_default(),
        )?;
        let map = |name| objects::map(&object, name);
        let taken = Rc::new(RefCell::new(Vec::new()));
        let lane = lane(&map("told")?, Rc::clone(&taken))?;
        let mut locals = Locals { table: map("locals")?, known: HashSet::new() };
        let (talks, counts) = (map("talks")?, map("counts")?);
        let program = object.progs().find(|program| program.name() == "watch");
        let program = program.ok_or_else(|| Error::Unsupported("there is no scan program".to_owned()))?;
        // The first packet is seen when the addresses are known.
        locals.renew()?;
        let socket = sys::filtered_packets(program.as_fd().as_raw_fd())
            .during(|| "watching packets through a packet socket (needs CAP_NET_RAW)".to_owned())?;
        Ok(Self {
            _socket: socket,
            lane,
            taken,
            locals,
            talks,
            counts,
            clock: BootClock::new(),
            _object: object,
        })
    }

    /// Looks which addresses are this host's; to be called every few seconds.
    ///
    /// # Errors
    /// When they cannot be listed, or are more than 4,096; those that fit are watched.
    pub fn look_at_addresses(&mut self) -> Result<()> {
        self.locals.renew()
    }

    /// Tells with whom this host talks already, each as the other end, this host's port and the protocol's number: what belongs to
    /// these is no probe. Those that do not fit push out the oldest.
    pub fn adopt(&self, talks: impl Iterator<Item = (IpAddr, u16, u8)>) {
        for (remote, port, protocol) in talks {
            let key = TalkKey { remote: mapped_octets(remote), port, protocol, reserved: 0 };
            // A talk that is not known is at worst a probe more.
            let _ = self.talks.update(key.as_bytes(), &1u32.to_ne_bytes(), MapFlags::ANY);
        }
    }

    /// Waits until something is told, or the time is over, and takes it in; at most 8,192 of it.
    #[must_use]
    pub fn read(&mut self, wait: Duration) -> Vec<PortSight> {
        if sys::readable(self.lane.epoll_fd(), wait) {
            std::thread::sleep(GATHER);
        }
        self.lane.consume_raw();
        self.clock.renew();
        let records = std::mem::take(&mut *self.taken.borrow_mut());
        records.iter().filter_map(|record| sight(record, &self.clock)).collect()
    }

    /// What could not be told since the start.
    #[must_use]
    pub fn losses(&self) -> PortWatchLosses {
        let count = |what: u32| per_cpu_sum(&self.counts, &what.to_ne_bytes());
        PortWatchLosses {
            sampled: count(probe::SAMPLED),
            throttled: count(probe::THROTTLED),
            full: count(probe::FULL),
        }
    }
}

fn lane(told: &MapHandle, taken: Rc<RefCell<Vec<PortProbe>>>) -> Result<RingBuffer<'static>> {
    let take = move |bytes: &[u8]| {
        let mut taken = taken.borrow_mut();
        if let Ok((record, _)) = PortProbe::read_from_prefix(bytes) {
            taken.push(record);
        }
        // A negative answer ends the round.
        if taken.len() < BATCH { 0 } else { -libc::EAGAIN }
    };
    let mut builder = RingBufferBuilder::new();
    builder.add(told, take).during(|| "reading what the scan program tells".to_owned())?;
    builder.build().during(|| "reading what the scan program tells".to_owned())
}

/// This host's addresses, as the program knows them.
struct Locals {
    table: MapHandle,
    known: HashSet<IpAddr>,
}

impl Locals {
    fn renew(&mut self) -> Result<()> {
        let now = sys::own_addresses().during(|| "listing this host's addresses".to_owned())?;
        let now: HashSet<IpAddr> = now.into_iter().filter(|address| !address.is_loopback()).collect();
        let (table, mut full) = (&self.table, false);
        self.known.retain(|address| {
            let stays = now.contains(address);
            if !stays {
                let _ = table.delete(&mapped_octets(*address));
            }
            stays
        });
        for address in now {
            if self.known.contains(&address) {
                continue;
            }
            match table.update(&mapped_octets(address), &1u32.to_ne_bytes(), MapFlags::ANY) {
                Ok(()) => drop(self.known.insert(address)),
                Err(_) => full = true,
            }
        }
        let bound = table.max_entries();
        if full { Err(Error::Full { what: "the table of this host's addresses", bound }) } else { Ok(()) }
    }
}

fn sight(record: &PortProbe, clock: &BootClock) -> Option<PortSight> {
    let address = |octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets)).to_canonical();
    let key = &record.key;
    let shape = PacketShape {
        sequence: record.sequence,
        source_port: record.source_port,
        window: record.window,
        ip_id: record.ip_id,
        ttl: record.ttl,
        header_words: record.header_words,
        first_option: record.first_option,
        dont_fragment: record.dont_fragment != 0,
    };
    let news = match key.kind {
        probe::ANSWER_OPEN => PortNews::Open,
        probe::ANSWER_REFUSED => PortNews::Refused,
        probe::ANSWER_HANDSHAKE => PortNews::Handshake { ttl: record.ttl },
        kind => PortNews::Probe {
            kind: *probe::KINDS.get(usize::from(kind).checked_sub(1)?)?,
            shape,
            open: record.open != 0,
        },
    };
    Some(PortSight {
        time: clock.at(record.time),
        source: address(key.source),
        local: address(key.local),
        port: key.port,
        protocol: key.protocol,
        news,
        seen: record.seen,
    })
}
