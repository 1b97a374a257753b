//! The thread that reads the lanes and does what is to be done now and then.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use davy_model::{Event, ProcessKey};
use libbpf_rs::{MapHandle, RingBufferBuilder};
use zerocopy::FromBytes;

use crate::abi::Head;
use crate::aggregates::Aggregates;
use crate::block::Blocker;
use crate::decode::Decoder;
use crate::guard::Refused;
use crate::program_loads::ProgramLoads;
use crate::sensors::{CaptureSink, Sink};
use crate::sys::readable;
use crate::syscalls::SyscallCounter;

/// How long records gather after the first one woke the reader.
const GATHER: Duration = Duration::from_millis(20);

/// How often the reader looks around when nothing happens: for requests, windows that end, and the order to stop.
const IDLE: Duration = Duration::from_millis(250);

/// How often other things are looked after.
const CHORES: Duration = Duration::from_secs(1);

/// Chores after which cgroups that were not found are looked for again.
const CGROUP_CHORES: u32 = 10;

/// Refusals kept until they are asked for; the oldest go first.
const REFUSALS: usize = 1024;

/// Bytes of records taken in one round, so that a flood that never ends does not make a round that never ends.
const BATCH_BOUND: usize = 8 << 20;

/// Memory kept between rounds for records, in bytes.
const BATCH_KEPT: usize = 1 << 18;

/// What the thread shares with its owner.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) stop: AtomicBool,
    pub(crate) malformed: AtomicU64,
    pub(crate) refused: Mutex<VecDeque<Refused>>,
}

pub(crate) struct Reader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) decoder: Decoder,
    pub(crate) sink: Sink,
    pub(crate) captures: CaptureSink,
    pub(crate) asked: Receiver<(ProcessKey, Duration)>,
    pub(crate) counter: SyscallCounter,
    pub(crate) loads: ProgramLoads,
    pub(crate) aggregates: Aggregates,
    pub(crate) blocker: Option<Blocker>,
}

impl Reader {
    pub(crate) fn run(self, priority: &MapHandle, bulk: &MapHandle) {
        let Self {
            shared,
            mut decoder,
            mut sink,
            mut captures,
            asked,
            mut counter,
            mut loads,
            mut aggregates,
            blocker,
        } = self;
        let mut events = Vec::<Event>::new();
        let batch = RefCell::new(Batch::default());
        let take = |bytes: &[u8]| {
            let mut batch = batch.borrow_mut();
            batch.push(bytes);
            // A negative answer ends the round; what is left in the lane waits for the next.
            if batch.bytes.len() < BATCH_BOUND { 0 } else { -libc::EAGAIN }
        };
        // The bulk lane is read first: whatever happened before a flow's record is then in this batch too, and
        // taking records by time puts a process's start before its flows.
        let mut builder = RingBufferBuilder::new();
        let built = builder.add(bulk, take).and_then(|builder| builder.add(priority, take)).map(drop);
        let lanes = match built.and_then(|()| builder.build()) {
            Ok(lanes) => lanes,
            Err(error) => return tracing::error!(%error, "the sensors' lanes cannot be read"),
        };
        let mut chores = (Instant::now(), 0u32);
        let mut left = false;
        while !shared.stop.load(Ordering::Acquire) {
            // The kernel wakes only for a record that comes when everything was read, so what a bound left is read at once.
            if !left && readable(lanes.epoll_fd(), IDLE) {
                std::thread::sleep(GATHER);
            }
            lanes.consume_raw();
            left = batch.borrow().bytes.len() >= BATCH_BOUND;
            batch.borrow_mut().drain(|record| decoder.decode(record, &mut events));
            for (process, window) in asked.try_iter() {
                if let Err(error) = counter.open(process, window) {
                    tracing::debug!(%error, "no system calls are counted");
                }
            }
            counter.close_ended(&mut events);
            if chores.0.elapsed() >= CHORES {
                chores = (Instant::now(), chores.1.wrapping_add(1));
                loads.look(&mut events);
                aggregates.look(&mut decoder, &mut events);
                if let Some(blocker) = &blocker {
                    blocker.expire();
                }
                if chores.1.is_multiple_of(CGROUP_CHORES) {
                    decoder.cgroups.renew();
                }
            }
            events.drain(..).for_each(&mut sink);
            events.shrink_to(4096);
            // After the events, so that a flow is known before what it says.
            if !decoder.captures.is_empty() {
                captures(std::mem::take(&mut decoder.captures));
            }
            decoder.clock.renew();
            shared.malformed.store(decoder.malformed, Ordering::Relaxed);
            keep(&shared.refused, &mut decoder.refused);
        }
    }
}

/// Records of one round from both lanes, taken out by the time they were written.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    records: Vec<(u64, Range<usize>)>,
}

impl Batch {
    /// Keeps a copy; the lanes hold what one round can bring.
    fn push(&mut self, record: &[u8]) {
        let time = Head::read_from_prefix(record).map_or(0, |(head, _)| head.time);
        let from = self.bytes.len();
        self.bytes.extend_from_slice(record);
        self.records.push((time, from..self.bytes.len()));
    }

    fn drain(&mut self, mut take: impl FnMut(&[u8])) {
        self.records.sort_by_key(|(time, _)| *time);
        for (_, range) in self.records.drain(..) {
            take(&self.bytes[range]);
        }
        self.bytes.clear();
        self.bytes.shrink_to(BATCH_KEPT);
        self.records.shrink_to(4096);
    }
}

fn keep(kept: &Mutex<VecDeque<Refused>>, new: &mut Vec<Refused>) {
    if new.is_empty() {
        return;
    }
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.extend(new.drain(..));
    while kept.len() > REFUSALS {
        kept.pop_front();
    }
}
