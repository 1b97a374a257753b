//! Records to events. The bytes come from the kernel, but their contents (names, arguments, payloads) from anyone:
//! every length is checked and text is made valid. Payloads are not looked into; they are given on as captures.

mod flow;
mod judged;
mod owners;
mod process;

use davy_model::{Capture, Captured, CodeAct, Event, EventKind, Exit, ProcessKey, Timestamp};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::abi::{self, denied, kind};
use crate::cgroups::Cgroups;
use crate::clock::BootClock;
use crate::guard::{Refused, RefusedAct};

pub(crate) use process::{device, short_name};

/// Nanoseconds in a clock tick (1/100 s).
const TICK: u64 = 10_000_000;

/// What decoding needs to know of the host.
pub(crate) struct Decoder {
    pub(crate) boot: u32,
    pub(crate) clock: BootClock,
    pub(crate) cgroups: Cgroups,
    /// Records that could not be read; more than none means that programs and user space disagree.
    pub(crate) malformed: u64,
    /// Payloads that were taken off the wire since this was last taken.
    pub(crate) captures: Vec<Capture>,
    /// What self-protection refused since this was last taken.
    pub(crate) refused: Vec<Refused>,
    owners: owners::Owners,
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
            captures: Vec::new(),
            refused: Vec::new(),
            owners: owners::Owners::default(),
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
            kind::FLOW_OPEN | kind::LISTEN | kind::FLOW_CLOSE | kind::FLOW_CHUNK => {
                let event = self.flow(head.kind, process, bytes, time)?;
                out.push(event);
            }
            kind::NAME_ANSWER => {
                let record: abi::NameAnswer = read(bytes)?;
                let message = bytes.get(size_of::<abi::NameAnswer>()..)?;
                let message = message.get(..usize::try_from(record.captured).ok()?)?;
                let content = Captured::NameAnswer { bytes: message.to_vec() };
                self.captures.push(Capture { time, process, content });
            }
            kind::DENIED => self.denied(&read(bytes)?, time, out)?,
            kind::JUDGED => tell(EventKind::CodeJudged(Box::new(judged::judgement(&read(bytes)?)?))),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;

    fn decode(bytes: &[u8]) -> (Vec<Event>, u64) {
        let mut decoder = Decoder::new(1, Cgroups::new(None));
        let mut events = Vec::new();
        decoder.decode(bytes, &mut events);
        (events, decoder.malformed)
    }

    fn head(kind: u16) -> abi::Head {
        abi::Head { kind, version: abi::VERSION, pid: 5, time: 1_000_000, start: 30_000_000 }
    }

    #[test]
    fn a_record_of_another_version_is_refused() {
        let record = abi::Rename { head: abi::Head { version: 9, ..head(kind::RENAME) }, comm: [0; 16] };
        assert_eq!(decode(record.as_bytes()), (vec![], 1));
    }

    #[test]
    fn a_name_that_is_not_text_is_made_so() {
        let record = abi::Rename { head: head(kind::RENAME), comm: [0xff; 16] };
        let (events, malformed) = decode(record.as_bytes());
        assert_eq!(malformed, 0);
        assert!(matches!(&events[0].kind, EventKind::Renamed { comm } if comm.chars().count() == 16));
        assert_eq!(events[0].process, Some(ProcessKey { pid: 5, start_ticks: 3, boot: 1 }));
    }

    #[test]
    fn the_same_end_is_told_once() {
        let record = abi::Exit { head: head(kind::EXIT), cpu_ns: 1, code: 9, reserved: 0 };
        let mut decoder = Decoder::new(1, Cgroups::new(None));
        let mut events = Vec::new();
        decoder.decode(record.as_bytes(), &mut events);
        decoder.decode(record.as_bytes(), &mut events);
        assert_eq!(events.len(), 1);
    }

    proptest! {
        #[test]
        fn no_record_is_fatal(kind in 0u16..20, body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let bytes = [head(kind).as_bytes(), &body].concat();
            let (events, malformed) = decode(&bytes);
            prop_assert!(malformed == 1 || malformed == 0 && events.len() <= 32);
        }

        #[test]
        fn lengths_beyond_a_record_are_refused(
            lengths in any::<[u16; 4]>(), tail in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            use zerocopy::FromZeros;
            let mut record = abi::Exec::new_zeroed();
            record.head = head(kind::EXEC);
            [record.args_len, record.env_len, record.exe_len, record.cwd_len] = lengths;
            let told = lengths.iter().map(|length| usize::from(*length)).sum::<usize>();
            let (events, malformed) = decode(&[record.as_bytes(), &tail].concat());
            prop_assert_eq!(malformed == 1, told > tail.len());
            prop_assert_eq!(events.is_empty(), malformed == 1);
        }
    }
}
