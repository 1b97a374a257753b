//! A host told as a sequence of events: small builders that the tests tell their stories with.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::collections::HashMap;

use davy_detect::{Conclusions, Detector, Lists, Settings};
use davy_inspect::{Bounds, Inspector};
use davy_model::{
    Captured, Credentials, Direction, Event, EventKind, ExecImage, Exit, FileAct, FileChange, FileId,
    Finding, FindingKind, FlowChunk, FlowKey, FlowOpen, ImageKind, Incident, ProbeRequest, ProcessInfo,
    ProcessKey, Said, SampleBatch, ThreadSample, Timestamp, Transport,
};

/// How one thread behaves from one sweep to the next.
#[derive(Clone)]
pub struct Thread {
    pub process: ProcessKey,
    pub tid: u32,
    /// Share of a CPU by sweep, taken in turn.
    pub shares: Vec<f64>,
    /// Voluntary switches a second.
    pub waits: f64,
    /// Saved control register by sweep, taken in turn; empty where it cannot be read.
    pub mxcsr: Vec<u32>,
    pub nice: i32,
    pub policy: u32,
    pub allowed: u32,
    cpu: f64,
    waited: f64,
    preempted: u64,
}

pub struct Scene {
    pub detector: Detector,
    inspector: Inspector,
    /// How far each direction of each flow has come.
    offsets: HashMap<(FlowKey, Direction), u64>,
    pub now: Timestamp,
    pub threads: Vec<Thread>,
    pub sessions: u32,
    pub findings: HashMap<u64, Finding>,
    pub incidents: HashMap<u64, Incident>,
    pub probes: Vec<ProbeRequest>,
    pub last: Conclusions,
    sweep: usize,
    next_pid: u32,
    next_flow: u64,
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Scene {
    pub fn new() -> Self {
        Self::with(Lists::builtin())
    }

    /// With these lists of pools.
    pub fn with(lists: Lists) -> Self {
        let mut scene = Self {
            detector: Detector::new(Settings::default(), lists),
            inspector: Inspector::new(Bounds::default()),
            offsets: HashMap::new(),
            now: Timestamp::from_secs(1_700_000_000),
            threads: Vec::new(),
            sessions: 1,
            findings: HashMap::new(),
            incidents: HashMap::new(),
            probes: Vec::new(),
            last: Conclusions::default(),
            sweep: 0,
            next_pid: 1000,
            next_flow: 1,
        };
        let init = info(key(1), None, "systemd", "/usr/lib/systemd/systemd", &["/sbin/init"]);
        scene.event(Some(key(1)), EventKind::Found(Box::new(init)));
        scene
    }

    pub fn init(&self) -> ProcessKey {
        key(1)
    }

    pub fn event(&mut self, process: Option<ProcessKey>, kind: EventKind) {
        self.detector.observe(&Event { time: self.now, process, kind });
    }

    pub fn wait(&mut self, secs: f64) {
        self.now = self.now.plus_secs(secs);
    }

    pub fn fork(&mut self, parent: ProcessKey) -> ProcessKey {
        self.next_pid += 1;
        let child = key(self.next_pid);
        let comm = self.detector.processes().get(&parent).map_or("sh", |p| p.comm.as_str()).to_owned();
        self.event(Some(parent), EventKind::Fork { child, comm });
        child
    }

    /// Forks and executes a program.
    pub fn run(&mut self, parent: ProcessKey, path: &str, args: &[&str]) -> ProcessKey {
        let comm: String = path.rsplit('/').next().unwrap_or(path).chars().take(15).collect();
        self.run_as(parent, &comm, path, ImageKind::File, args)
    }

    pub fn run_as(
        &mut self,
        parent: ProcessKey,
        comm: &str,
        path: &str,
        kind: ImageKind,
        args: &[&str],
    ) -> ProcessKey {
        let child = self.fork(parent);
        let mut info = info(child, Some(parent), comm, path, args);
        info.image.kind = kind;
        self.event(Some(child), EventKind::Exec(Box::new(info)));
        child
    }

    pub fn exit(&mut self, process: ProcessKey) {
        self.event(Some(process), EventKind::Exit(Exit { code: Some(0), signal: None, cpu_ns: 0 }));
        self.threads.retain(|t| t.process != process);
    }

    pub fn file(&mut self, process: ProcessKey, path: &str, act: FileAct) {
        let change = FileChange {
            path: path.to_owned(),
            file: file_id(path),
            act,
            executable: true,
            code: true,
            place: None,
        };
        self.event(Some(process), EventKind::File(change));
    }

    pub fn threads(&mut self, process: ProcessKey, count: u32, make: impl Fn(&mut Thread)) {
        for i in 0..count {
            let mut thread = Thread {
                process,
                tid: process.pid + i,
                shares: vec![0.99],
                waits: 0.5,
                mxcsr: Vec::new(),
                nice: 0,
                policy: 0,
                allowed: 2,
                cpu: 0.0,
                waited: 0.0,
                preempted: 0,
            };
            make(&mut thread);
            self.threads.push(thread);
        }
    }

    /// One second passes: a sweep, and what is concluded from it.
    pub fn second(&mut self) {
        self.wait(1.0);
        self.sweep += 1;
        let sweep = self.sweep;
        let threads = self
            .threads
            .iter_mut()
            .enumerate()
            .map(|(i, t)| {
                t.cpu += t.shares[sweep % t.shares.len()];
                t.waited += t.waits;
                t.preempted += 3;
                ThreadSample {
                    process: t.process,
                    tid: t.tid,
                    cpu_ns: (t.cpu * 1e9) as u64,
                    voluntary_switches: t.waited as u64,
                    involuntary_switches: t.preempted,
                    mxcsr: (!t.mxcsr.is_empty()).then(|| t.mxcsr[chance(sweep * 31 + i) % t.mxcsr.len()]),
                    policy: t.policy,
                    nice: t.nice,
                    allowed_cpus: t.allowed,
                }
            })
            .collect();
        let batch = SampleBatch { time: self.now, cpus: 2, sessions: self.sessions, threads };
        self.detector.sample(&batch);
        self.conclude();
    }

    pub fn seconds(&mut self, n: u32) {
        for _ in 0..n {
            self.second();
        }
    }

    pub fn conclude(&mut self) {
        let conclusions = self.detector.conclude(self.now);
        for finding in &conclusions.findings {
            self.findings.insert(finding.slot, finding.item.clone());
        }
        for incident in &conclusions.incidents {
            self.incidents.insert(incident.slot, incident.item.clone());
        }
        self.probes.extend(&conclusions.probes);
        self.last = conclusions;
    }

    pub fn open(&mut self, process: ProcessKey, remote: &str) -> FlowKey {
        self.flow(process, remote, false)
    }

    pub fn flow(&mut self, process: ProcessKey, remote: &str, accepted: bool) -> FlowKey {
        self.next_flow += 1;
        let flow = FlowKey(self.next_flow);
        let open = FlowOpen {
            flow,
            transport: Transport::Tcp,
            local: "10.0.0.2:41000".parse().unwrap(),
            remote: remote.parse().unwrap(),
            accepted,
        };
        self.event(Some(process), EventKind::FlowOpen(open));
        flow
    }

    pub fn send(&mut self, flow: FlowKey, bytes: &[u8]) {
        self.bytes(flow, Direction::Sent, bytes);
    }

    pub fn receive(&mut self, flow: FlowKey, bytes: &[u8]) {
        self.bytes(flow, Direction::Received, bytes);
    }

    /// A message with its bytes, which are read as the agent has them read.
    pub fn bytes(&mut self, flow: FlowKey, direction: Direction, bytes: &[u8]) {
        self.size(flow, direction, bytes.len() as u32);
        let next = self.offsets.entry((flow, direction)).or_default();
        let offset = *next;
        *next += bytes.len() as u64;
        let capture = Captured::Flow { flow, direction, offset, bytes: bytes.to_vec() };
        for said in self.inspector.read(&capture) {
            self.event(
                None,
                match said {
                    Said::Flow(reading) => EventKind::FlowRead(Box::new(reading)),
                    Said::Name(answer) => EventKind::Name(answer),
                },
            );
        }
    }

    /// A message of which only the size is seen.
    pub fn size(&mut self, flow: FlowKey, direction: Direction, size: u32) {
        self.event(None, EventKind::FlowChunk(FlowChunk { flow, direction, size, offset: 0 }));
    }

    pub fn of_kind(&self, kind: FindingKind) -> Vec<&Finding> {
        self.findings.values().filter(|f| f.kind == kind).collect()
    }

    pub fn mining(&self) -> Option<&Finding> {
        self.of_kind(FindingKind::Mining).into_iter().max_by(|a, b| a.confidence.total_cmp(&b.confidence))
    }

    pub fn incident(&self) -> &Incident {
        self.incidents.values().max_by_key(|i| i.timeline.len()).expect("an incident")
    }
}

/// A number that looks random and is the same every time.
pub fn chance(seed: usize) -> usize {
    let mixed = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) as usize
}

pub fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start_ticks: u64::from(pid) * 10, boot: 7 }
}

pub fn file_id(path: &str) -> FileId {
    let ino = path.bytes().fold(17u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    FileId { dev: 1, ino: ino | 1 }
}

pub fn info(
    key: ProcessKey,
    parent: Option<ProcessKey>,
    comm: &str,
    path: &str,
    args: &[&str],
) -> ProcessInfo {
    ProcessInfo {
        key,
        parent,
        comm: comm.to_owned(),
        image: ExecImage { path: path.to_owned(), file: file_id(path), kind: ImageKind::File },
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        args_cut: false,
        env: Vec::new(),
        cwd: "/".to_owned(),
        creds: Credentials { uid: 33, euid: 33, gid: 33, ..Credentials::default() },
        tty: None,
        cgroup: "/system.slice/x.service".to_owned(),
        cgroup_id: 5,
        container: None,
        ns: davy_model::Namespaces::default(),
        kernel_thread: false,
    }
}

/// The control register as RandomX leaves it at a switch.
pub fn randomx() -> Vec<u32> {
    vec![0xdfe0, 0x9fe0, 0xffe0, 0xbfe0, 0xbfe0, 0x9fe0, 0xdfe0]
}

/// The control register of everyday programs.
pub fn everyday() -> Vec<u32> {
    vec![0x1fa0]
}
