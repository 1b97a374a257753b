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
    /// For flows whose volume grew since the last poll, a [`FlowChunk`] without bytes a direction. Messages that went
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
            let Some(folder) = proc.open(pid) else { continue };
            let Some(stat) = folder.stat() else { continue };
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
                    if self.options.sizes {
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

fn changed(known: &Known, stat: &Stat) -> bool {
    known.comm != stat.comm || known.layout != stat.layout
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
        let chunk = FlowChunk { flow: socket.flow, direction, size, offset: before, bytes: Vec::new() };
        (owner, EventKind::FlowChunk(chunk))
    });
    chunk.collect()
}
