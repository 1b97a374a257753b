use std::collections::{HashMap, HashSet};

use davy_model::{
    Direction, Event, EventKind, Exit, FlowChunk, FlowClose, FlowKey, FlowVolume, ProcessInfo, ProcessKey,
    Timestamp, Transport,
};

use crate::process::Reader;
use crate::procfs::{MAX_PROCESSES, ProcFs};
use crate::sockets::{self, MAX_SOCKETS, Owners, Socket};
use crate::stat::{NANOS_PER_TICK, Stat};

/// What a poller looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollOptions {
    /// Sockets too.
    pub flows: bool,
    /// For flows whose volume grew since the last poll, a [`FlowChunk`] a direction. Messages that went
    /// between two polls show as one; with polls oftener than messages, as in pool traffic, sizes are true.
    pub sizes: bool,
}

impl Default for PollOptions {
    fn default() -> Self {
        Self { flows: true, sizes: true }
    }
}

/// Events by comparing /proc and sock_diag with what they said the last time.
///
/// What lives shorter than the time between two polls is not seen; that is what the poll tier cannot do. State is
/// bounded by [`MAX_PROCESSES`] and [`MAX_SOCKETS`].
#[derive(Debug)]
pub struct Poller {
    proc: ProcFs,
    options: PollOptions,
    started: bool,
    processes: HashMap<u32, Known>,
    flows: HashMap<FlowKey, Flow>,
    owners: Owners,
}

/// A process at the last poll.
#[derive(Debug)]
struct Known {
    key: ProcessKey,
    comm: String,
    layout: u64,
    args: Vec<String>,
    cpu_ticks: u64,
}

/// A flow at the last poll.
#[derive(Debug)]
struct Flow {
    owner: Option<ProcessKey>,
    volume: FlowVolume,
    listening: bool,
}

impl Poller {
    /// A poller of this host that has seen nothing yet: its first poll finds everything.
    #[must_use]
    pub fn new(options: PollOptions) -> Self {
        Self::of(ProcFs::host().clone(), options)
    }

    /// A poller of any view.
    #[must_use]
    pub fn of(proc: ProcFs, options: PollOptions) -> Self {
        Self {
            proc,
            options,
            started: false,
            processes: HashMap::new(),
            flows: HashMap::new(),
            owners: Owners::new(),
        }
    }

    /// Looks once. The first time, every process is [`EventKind::Found`] and every flow open; later, new processes are
    /// [`EventKind::Exec`], whether they executed or only forked, which /proc does not tell.
    pub fn poll(&mut self, now: Timestamp) -> Vec<Event> {
        let mut kinds = Vec::new();
        self.poll_processes(&mut kinds);
        if self.options.flows {
            self.poll_flows(&mut kinds);
        }
        self.started = true;
        kinds.into_iter().map(|(process, kind)| Event { time: now, process, kind }).collect()
    }

    /// How many processes and flows are remembered.
    #[must_use]
    pub fn remembered(&self) -> (usize, usize) {
        (self.processes.len(), self.flows.len())
    }

    fn poll_processes(&mut self, out: &mut Vec<(Option<ProcessKey>, EventKind)>) {
        let proc = self.proc.clone();
        let mut reader = None;
        let mut now = HashMap::with_capacity(self.processes.len());
        let mut born = Vec::new();
        for pid in proc.pids().into_iter().take(MAX_PROCESSES) {
            let Some(stat) = proc.stat(pid) else { continue };
            let key = proc.key_of(&stat);
            let before = self.processes.remove(&pid);
            let (same, other): (Option<Known>, Option<Known>) = match before {
                Some(known) if known.key == key => (Some(known), None),
                other => (None, other),
            };
            out.extend(other.map(|gone| exit(&gone)));
            let same = match same {
                Some(known) if !changed(&known, &stat) => {
                    now.insert(pid, Known { cpu_ticks: stat.cpu_ticks, ..known });
                    continue;
                }
                same => same,
            };
            let Some(folder) = proc.open(pid) else { continue };
            let reader = reader.get_or_insert_with(|| Reader::new(&proc));
            let (layout, cpu_ticks) = (stat.layout, stat.cpu_ticks);
            let info = reader.describe(&folder, stat);
            let known = Known { key, comm: info.comm.clone(), layout, args: info.args.clone(), cpu_ticks };
            match same {
                Some(known) => born.push((Some(key), change(&known, layout, info))),
                None if self.started => born.push((Some(key), EventKind::Exec(Box::new(info)))),
                None => born.push((Some(key), EventKind::Found(Box::new(info)))),
            }
            now.insert(pid, known);
        }
        out.extend(self.processes.values().map(exit));
        out.extend(born);
        self.processes = now;
    }

    fn poll_flows(&mut self, out: &mut Vec<(Option<ProcessKey>, EventKind)>) {
        let mut sockets = sockets::list_unowned(&self.proc);
        sockets.truncate(MAX_SOCKETS);
        self.owners.fill(&self.proc, &mut sockets);
        let listening: HashSet<(u64, Transport, u16)> = sockets
            .iter()
            .filter(|s| s.listening)
            .map(|s| (s.namespace, s.transport, s.local.port()))
            .collect();
        let mut now = HashMap::with_capacity(sockets.len());
        let mut born = Vec::new();
        for socket in &sockets {
            // A socket that is neither bound nor connected is no flow yet.
            if socket.local.port() == 0 && socket.remote.port() == 0 {
                continue;
            }
            let before = self.flows.remove(&socket.flow).filter(|flow| flow.listening == socket.listening);
            let owner = socket.owners.first().copied().or(before.as_ref().and_then(|flow| flow.owner));
            match &before {
                Some(flow) if self.options.sizes => born.extend(growth(socket, owner, &flow.volume)),
                Some(_) => {}
                None if socket.listening => born.push((owner, EventKind::Listen(socket.opening(false)))),
                None => {
                    let accepted = socket.transport == Transport::Tcp
                        && listening.contains(&(socket.namespace, socket.transport, socket.local.port()));
                    born.push((owner, EventKind::FlowOpen(socket.opening(accepted))));
                    // What went over it before the first look was no message of now.
                    if self.options.sizes && self.started {
                        born.extend(growth(socket, owner, &FlowVolume::default()));
                    }
                }
            }
            now.insert(socket.flow, Flow { owner, volume: socket.volume, listening: socket.listening });
        }
        out.extend(self.flows.iter().map(|(flow, gone)| {
            (gone.owner, EventKind::FlowClose(FlowClose { flow: *flow, volume: gone.volume }))
        }));
        out.extend(born);
        self.flows = now;
    }
}

/// Kernel threads execute nothing, and those of workqueues are named anew with every piece of work.
fn changed(known: &Known, stat: &Stat) -> bool {
    !stat.kernel_thread && (known.comm != stat.comm || known.layout != stat.layout)
}

/// What happened to a process whose name or layout is another than before. Its code's and stack's addresses change
/// with every exec; for a reader who may not know them, other arguments are taken for one.
fn change(known: &Known, layout: u64, info: ProcessInfo) -> EventKind {
    let executed = if layout == 0 { known.args != info.args } else { layout != known.layout };
    if executed { EventKind::Exec(Box::new(info)) } else { EventKind::Renamed { comm: info.comm } }
}

fn exit(gone: &Known) -> (Option<ProcessKey>, EventKind) {
    let cpu_ns = gone.cpu_ticks.saturating_mul(NANOS_PER_TICK);
    (Some(gone.key), EventKind::Exit(Exit { code: None, signal: None, cpu_ns }))
}

/// What went over a flow since it had the volume `before`.
fn growth(
    socket: &Socket,
    owner: Option<ProcessKey>,
    before: &FlowVolume,
) -> Vec<(Option<ProcessKey>, EventKind)> {
    let ways = [
        (Direction::Sent, before.sent_bytes, socket.volume.sent_bytes),
        (Direction::Received, before.received_bytes, socket.volume.received_bytes),
    ];
    let grown = ways.into_iter().filter(|(_, before, now)| now > before);
    let chunk = grown.map(|(direction, before, now)| {
        let size = u32::try_from(now - before).unwrap_or(u32::MAX);
        let chunk = FlowChunk { flow: socket.flow, direction, size, offset: before };
        (owner, EventKind::FlowChunk(chunk))
    });
    chunk.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A process as /proc shows it, with nothing but its stat.
    fn write(root: &std::path::Path, pid: u32, comm: &str, flags: u64, start: u64, code: u64) {
        std::fs::create_dir_all(root.join(pid.to_string())).unwrap();
        let rest = format!("S 1 0 0 0 -1 {flags} 0 0 0 0 3 4 0 0 20 0 1 0 {start} 0 0 0 {code} 0 {code}");
        std::fs::write(root.join(format!("{pid}/stat")), format!("{pid} ({comm}) {rest}")).unwrap();
    }

    #[test]
    fn differences_become_events_also_where_nothing_but_stat_can_be_read() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path();
        write(at, 5, "a", 0, 10, 77);
        write(at, 6, "kworker/0:1-events", 0x0020_0000, 0, 0);
        std::fs::create_dir(at.join("7")).unwrap();
        let mut poller = Poller::of(ProcFs::at(at).unwrap(), PollOptions { flows: false, sizes: false });
        let mut poll = || -> Vec<(u32, EventKind)> {
            let events = poller.poll(Timestamp(1)).into_iter();
            events.map(|e| (e.process.unwrap().pid, e.kind)).collect()
        };
        let mut found = poll();
        found.sort_by_key(|(pid, _)| *pid);
        assert!(matches!(&found[..], [(5, EventKind::Found(a)), (6, EventKind::Found(k))]
            if a.comm == "a" && a.image.path.is_empty() && k.kernel_thread));
        assert_eq!(poll(), vec![]);
        write(at, 5, "b", 0, 10, 77);
        write(at, 6, "kworker/0:1-mm_percpu_wq", 0x0020_0000, 0, 0);
        assert_eq!(poll(), vec![(5, EventKind::Renamed { comm: "b".into() })]);
        write(at, 5, "b", 0, 10, 78);
        assert!(matches!(&poll()[..], [(5, EventKind::Exec(_))]));
        write(at, 5, "b", 0, 11, 78);
        let reused = poll();
        assert!(
            matches!(&reused[..], [(5, EventKind::Exit(exit)), (5, EventKind::Exec(_))] if exit.cpu_ns == 70_000_000)
        );
        std::fs::remove_dir_all(at.join("5")).unwrap();
        assert!(matches!(&poll()[..], [(5, EventKind::Exit(_))]));
        assert_eq!(poller.remembered(), (1, 0));
    }
}
