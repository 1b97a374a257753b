//! Records to events. The bytes come from the kernel, but their contents (names, arguments, payloads) from anyone:
//! every length is checked and text is made valid.

mod flow;
mod names;
mod process;

use davy_model::{CodeAct, Event, EventKind, Exit, ProcessKey, Timestamp};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::abi::{self, denied, kind};
use crate::cgroups::Cgroups;
use crate::clock::BootClock;
use crate::guard::{Refused, RefusedAct};

pub(crate) use process::short_name;

/// Nanoseconds in a clock tick (1/100 s).
const TICK: u64 = 10_000_000;

/// What decoding needs to know of the host.
pub(crate) struct Decoder {
    pub(crate) boot: u32,
    pub(crate) clock: BootClock,
    pub(crate) cgroups: Cgroups,
    /// Records that could not be read; more than none means that programs and user space disagree.
    pub(crate) malformed: u64,
    /// What self-protection refused since this was last taken.
    pub(crate) refused: Vec<Refused>,
    /// Processes that ended lately: two threads that end together can each be taken for the last.
    ended: std::collections::VecDeque<ProcessKey>,
}

impl Decoder {
    pub(crate) fn new(boot: u32, cgroups: Cgroups) -> Self {
        Self {
            boot,
            clock: BootClock::new(),
            cgroups,
            malformed: 0,
            refused: Vec::new(),
            ended: std::collections::VecDeque::new(),
        }
    }

    /// The identity of a process from its pid and start in nanoseconds since boot.
    pub(crate) fn key(&self, pid: u32, start_ns: u64) -> ProcessKey {
        ProcessKey { pid, start_ticks: start_ns / TICK, boot: self.boot }
    }

    /// Reads one record and gives what it tells to `out`.
    pub(crate) fn decode(&mut self, bytes: &[u8], out: &mut Vec<Event>) {
        if self.try_decode(bytes, out).is_none() {
            self.malformed += 1;
        }
    }

    fn try_decode(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Option<()> {
        let (head, _) = abi::Head::read_from_prefix(bytes).ok()?;
        if head.version != abi::VERSION {
            return None;
        }
        let time = self.clock.at(head.time);
        let process = (head.pid != 0).then(|| self.key(head.pid, head.start));
        let mut tell = |kind| out.push(Event { time, process, kind });
        match head.kind {
            kind::FORK => {
                let record: abi::Fork = read(bytes)?;
                let child = self.key(record.child, record.child_start);
                tell(EventKind::Fork { child, comm: short_name(&record.comm) });
            }
            kind::EXEC => self.exec(bytes, time, out)?,
            kind::EXIT => self.exit(&read(bytes)?, time, out),
            kind::RENAME => {
                let record: abi::Rename = read(bytes)?;
                tell(EventKind::Renamed { comm: short_name(&record.comm) });
            }
            kind::SIGNAL => {
                let record: abi::Signal = read(bytes)?;
                let target = self.key(record.target, record.target_start);
                tell(EventKind::Code(CodeAct::Signal { target, signal: u8::try_from(record.signal).ok()? }));
            }
            kind::MODULE => {
                let record: abi::Module = read(bytes)?;
                tell(EventKind::Code(CodeAct::ModuleLoad { name: short_name(&record.name) }));
            }
            kind::DEVICE => {
                let record: abi::Device = read(bytes)?;
                let (major, minor, write) = (record.major, record.minor, record.write != 0);
                tell(EventKind::Code(CodeAct::DeviceOpen { major, minor, write }));
            }
            kind::TRACE => {
                let record: abi::Trace = read(bytes)?;
                let target = self.key(record.target, record.target_start);
                tell(EventKind::Code(CodeAct::Trace { target, write: record.write != 0 }));
            }
            kind::WRITTEN_CODE => {
                let record: abi::WrittenCode = read(bytes)?;
                tell(EventKind::Code(CodeAct::WrittenThenExecutable { bytes: record.bytes }));
            }
            kind::FLOW_OPEN => tell(EventKind::FlowOpen(flow::open(&read(bytes)?))),
            kind::LISTEN => tell(EventKind::Listen(flow::open(&read(bytes)?))),
            kind::FLOW_CLOSE => tell(EventKind::FlowClose(flow::close(&read(bytes)?))),
            kind::FLOW_CHUNK => tell(EventKind::FlowChunk(flow::chunk(bytes)?)),
            kind::NAME_ANSWER => {
                let record: abi::NameAnswer = read(bytes)?;
                let message = bytes.get(size_of::<abi::NameAnswer>()..)?;
                let message = message.get(..usize::try_from(record.captured).ok()?)?;
                names::answers(message).into_iter().for_each(|answer| tell(EventKind::Name(answer)));
            }
            kind::DENIED => self.denied(&read(bytes)?, time, out)?,
            _ => return None,
        }
        Some(())
    }

    /// A refused act is told as the act; what has no event of its own is kept for [`crate::Sensors::refusals`].
    fn denied(&mut self, record: &abi::Denied, time: Timestamp, out: &mut Vec<Event>) -> Option<()> {
        let process = self.key(record.head.pid, record.head.start);
        let target = self.key(record.target, record.target_start);
        let act = match record.act {
            denied::SIGNAL => RefusedAct::Signal(u8::try_from(record.detail).ok()?),
            denied::TRACE => RefusedAct::Trace,
            denied::FILE => RefusedAct::FileChange,
            denied::BPF => RefusedAct::BpfAccess,
            _ => return None,
        };
        match act {
            RefusedAct::Signal(signal) => {
                let kind = EventKind::Code(CodeAct::Signal { target, signal });
                out.push(Event { time, process: Some(process), kind });
            }
            RefusedAct::Trace => {
                let kind = EventKind::Code(CodeAct::Trace { target, write: true });
                out.push(Event { time, process: Some(process), kind });
            }
            RefusedAct::FileChange | RefusedAct::BpfAccess => {}
        }
        self.refused.push(Refused { time, process, act });
        Some(())
    }

    fn exit(&mut self, record: &abi::Exit, time: Timestamp, out: &mut Vec<Event>) {
        let key = self.key(record.head.pid, record.head.start);
        if self.ended.contains(&key) {
            return;
        }
        if self.ended.len() >= 32 {
            self.ended.pop_front();
        }
        self.ended.push_back(key);
        let signal = (record.code & 0x7f) as u8;
        let exit = Exit {
            code: (signal == 0).then_some((record.code >> 8) as u8),
            signal: (signal != 0).then_some(signal),
            cpu_ns: record.cpu_ns,
        };
        out.push(Event { time, process: Some(key), kind: EventKind::Exit(exit) });
    }
}

/// A record at the beginning of `bytes`; whatever follows is its variable part.
fn read<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(record, _)| record)
}
