//! Who looks for open ports: a filter of a packet socket that keeps no packet, and tells of firsts.

mod interfaces;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

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
use interfaces::{Interfaces, MAX_INTERFACES, News};

/// The most records taken in one round; what is left waits in the kernel, and beyond that is counted.
const BATCH: usize = 8192;

/// How long records gather after the first one.
const GATHER: Duration = Duration::from_millis(20);

/// How long after a look at interfaces the next one is, and after one that found a fault.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN_FAULTY: Duration = Duration::from_secs(5);

/// Starts watches. It can be kept for as long as the process lives.
#[derive(Clone)]
pub struct PortWatchStarter(OwnPrograms);

impl PortWatchStarter {
    pub(crate) fn new(own: OwnPrograms) -> Self {
        Self(own)
    }

    /// Watches the network namespace of the calling thread: each interface by which others reach it, but not loopback, nor parts of
    /// bridges and ends of containers. Nothing is attached to interfaces, routes or cgroups, and no packet is held up or copied
    /// to user space.
    ///
    /// # Errors
    /// When the kernel refuses the program, packet sockets (CAP_NET_RAW), or the list of interfaces.
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
    /// By the numbers of their interfaces. Without them nothing more is seen, so they go first.
    sockets: BTreeMap<u32, OwnedFd>,
    news: News,
    /// Whether interfaces are to be looked at, and from when on.
    look: (bool, Instant),
    lane: RingBuffer<'static>,
    taken: Rc<RefCell<Vec<PortProbe>>>,
    locals: Locals,
    talks: MapHandle,
    counts: MapHandle,
    clock: BootClock,
    object: Object,
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
        let locals = Locals { table: map("locals")?, known: HashSet::new() };
        let (talks, counts) = (map("talks")?, map("counts")?);
        let news = News::open().during(|| "asking for news of interfaces".to_owned())?;
        let mut watch = Self {
            sockets: BTreeMap::new(),
            news,
            look: (true, Instant::now()),
            lane,
            taken,
            locals,
            talks,
            counts,
            clock: BootClock::new(),
            object,
        };
        match watch.follow_interfaces() {
            Ok(()) => {}
            // Those that fit are watched, and the next look tells it.
            Err(Error::Full { .. }) => watch.look.0 = true,
            Err(error) => return Err(error),
        }
        Ok(watch)
    }

    /// Follows this host's interfaces and addresses when the kernel said that they changed; to be called often, for it costs
    /// nothing otherwise. It looks once in a second at most.
    ///
    /// # Errors
    /// When they cannot be listed or watched, which is tried again after some seconds; or when they are more than 64 interfaces or
    /// 4,096 addresses, of which those that fit are watched. That is said again when they change.
    pub fn follow_interfaces(&mut self) -> Result<()> {
        self.look.0 |= self.news.take();
        let now = Instant::now();
        if !self.look.0 || now < self.look.1 {
            return Ok(());
        }
        let done = self.look_at_interfaces();
        self.look = match &done {
            Ok(()) | Err(Error::Full { .. }) => (false, now + LOOK_AGAIN),
            Err(_) => (true, now + LOOK_AGAIN_FAULTY),
        };
        done
    }

    fn look_at_interfaces(&mut self) -> Result<()> {
        let now = Interfaces::list().during(|| "listing this host's interfaces".to_owned())?;
        // The first packet is seen when the addresses are known.
        let addressed = self.locals.renew(&now.addresses);
        let watched = &now.reached[..now.reached.len().min(MAX_INTERFACES)];
        // A socket whose interface went away is bound to none, also if another has its number now.
        self.sockets.retain(|index, socket| {
            watched.contains(index) && sys::bound_interface(socket.as_fd()) == Some(*index)
        });
        let program = self.object.progs().find(|program| program.name() == "watch");
        let program = program.ok_or_else(|| Error::Unsupported("there is no scan program".to_owned()))?;
        for index in watched {
            if self.sockets.contains_key(index) {
                continue;
            }
            match sys::filtered_packets(program.as_fd().as_raw_fd(), *index) {
                Ok(socket) => drop(self.sockets.insert(*index, socket)),
                // It went away since the list was made, which is news.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => {
                    return Err(error).during(|| {
                        format!(
                            "watching packets of interface {index} by a packet socket (needs CAP_NET_RAW)"
                        )
                    });
                }
            }
        }
        addressed?;
        if now.reached.len() > MAX_INTERFACES {
            let bound = u32::try_from(MAX_INTERFACES).unwrap_or(u32::MAX);
            return Err(Error::Full { what: "the list of watched interfaces", bound });
        }
        Ok(())
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
    fn renew(&mut self, now: &HashSet<IpAddr>) -> Result<()> {
        let (table, mut full) = (&self.table, false);
        self.known.retain(|address| {
            let stays = now.contains(address);
            if !stays {
                let _ = table.delete(&mapped_octets(*address));
            }
            stays
        });
        for address in now {
            if self.known.contains(address) {
                continue;
            }
            match table.update(&mapped_octets(*address), &1u32.to_ne_bytes(), MapFlags::ANY) {
                Ok(()) => drop(self.known.insert(*address)),
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
