use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use davy_model::{
    Event, EventKind, Evidence, FileId, FlowChunk, FlowKey, FlowOpen, FlowReading, ProbeRequest, ProcessKey,
    SampleBatch, Signal, Timestamp,
};

use crate::acts::Written;
use crate::case::{Case, UnitKey};
use crate::compute_shape::ComputeSum;
use crate::conclusions::{Conclusions, TableSizes, TreeView, due};
use crate::flow_table::{Flow, FlowTable};
use crate::incident::{Guest, IncidentCase};
use crate::ledger::{Particulars, Topic, evidence, probability};
use crate::malware::Loose;
use crate::pool_contact::Urgency;
use crate::pool_list::Lists;
use crate::pool_shape::pool_shape;
use crate::process_table::ProcessTable;
use crate::recent::Recent;
use crate::rounding_mode::RoundingSum;
use crate::settings::Settings;
use crate::thread_table::ThreadTable;
use crate::weights::{COMPUTE_FEW_CALLS, COMPUTE_MANY_CALLS, Class, POOL_LISTED, POOL_SHAPE};
use crate::{flow_watch, gpu, lateral, memory_shape, service, trust};

/// Seconds between two looks at the same unit's memory, and how many units are looked at in one go.
const MEMORY_EVERY: f64 = 30.0;
const MEMORY_AT_ONCE: usize = 3;
/// Seconds between two counts of the same unit's system calls: attaching to every call costs the whole host.
const CALLS_EVERY: f64 = 300.0;
/// Seconds between two wishes for more frequent samples.
const BURST_EVERY: f64 = 6.0;
/// User names kept.
const MAX_USERS: usize = 4_096;
/// A unit that pauses for longer than this computes anew.
const PAUSE_SECS: f64 = 12.0;

/// The behaviour engine. See the crate's documentation.
#[derive(Debug)]
pub struct Detector {
    pub(crate) settings: Settings,
    pub(crate) lists: Lists,
    pub(crate) processes: ProcessTable,
    pub(crate) flows: FlowTable,
    pub(crate) threads: ThreadTable,
    pub(crate) cases: HashMap<UnitKey, Case>,
    pub(crate) running: Recent<FileId, ProcessKey>,
    pub(crate) written: Recent<FileId, Written>,
    pub(crate) loose: Vec<Loose>,
    pub(crate) incidents: Vec<IncidentCase>,
    pub(crate) guests: Vec<Guest>,
    pub(crate) users: HashMap<u32, String>,
    pub(crate) own: Option<ProcessKey>,
    pub(crate) names: Recent<IpAddr, String>,
    /// Flows to listed pools of which it is not known yet whether they ask for a web page.
    pub(crate) listed: HashSet<FlowKey>,
    pub(crate) urgent: Urgency,
    next_slot: u64,
}

impl Detector {
    /// A detector that has seen nothing yet.
    #[must_use]
    pub fn new(settings: Settings, lists: Lists) -> Self {
        Self {
            processes: ProcessTable::new(settings.max_processes, settings.max_ended),
            flows: FlowTable::new(settings.max_flows),
            threads: ThreadTable::new(settings.max_threads),
            cases: HashMap::new(),
            running: Recent::new(settings.max_processes),
            written: Recent::new(settings.max_written),
            loose: Vec::new(),
            incidents: Vec::new(),
            guests: Vec::new(),
            users: HashMap::new(),
            own: None,
            names: Recent::new(settings.max_names),
            listed: HashSet::new(),
            urgent: Urgency::default(),
            next_slot: 1,
            settings,
            lists,
        }
    }

    /// Takes in an event. Constant work for all but execs and the first bytes of flows, which are bounded.
    pub fn observe(&mut self, event: &Event) {
        let time = event.time;
        match &event.kind {
            EventKind::Found(info) => self.executed(time, info, true),
            EventKind::Exec(info) => self.executed(time, info, false),
            EventKind::Fork { child, comm } => {
                if let Some(parent) = event.process {
                    self.processes.forked(time, parent, *child, comm);
                }
            }
            EventKind::Renamed { comm } => {
                if let Some(key) = event.process {
                    self.renamed(time, key, comm);
                }
            }
            EventKind::Exit(exit) => {
                if let Some(key) = event.process {
                    self.processes.exited(time, &key, *exit);
                    self.threads.ended(&key);
                }
            }
            EventKind::FlowOpen(open) => self.flow_opened(time, event.process, *open),
            EventKind::FlowChunk(chunk) => self.flow_chunk(time, event.process, chunk),
            EventKind::FlowRead(reading) => self.flow_read(time, reading),
            EventKind::FlowClose(close) => self.flows.closed(time, close.flow, close.volume),
            EventKind::Name(answer) => self.name_answered(time, answer),
            EventKind::Memory(shape) => {
                let unit = self.processes.unit_of(&shape.process);
                if let Some(found) = memory_shape::weigh(time, shape) {
                    self.note(unit, memory_shape::TOPIC, found);
                } else if let Some(case) = self.cases.get_mut(&unit) {
                    case.ledger.withdraw(memory_shape::TOPIC);
                }
            }
            EventKind::Gpu(look) => {
                if let Some(found) = gpu::weigh(time, look) {
                    self.note_of(&look.process, gpu::TOPIC, found);
                }
            }
            EventKind::Syscalls { count, cpu_ns } => {
                if let Some(key) = event.process {
                    self.system_calls(time, key, *count, *cpu_ns);
                }
            }
            EventKind::File(change) => self.file_changed(time, event.process, change),
            EventKind::Code(act) => {
                if let Some(key) = event.process {
                    self.code_act(time, key, act);
                }
            }
            EventKind::Scanned(hit) => self.scanned(time, event.process, hit),
            // The first flows of each such lot were told singly, so their ends are known.
            EventKind::Listen(_) | EventKind::Flows(_) | EventKind::Inbound(_) => {}
            // Told where the rules are.
            EventKind::Outbound(_) => {}
            EventKind::Lateral(moved) => {
                if let Some(key) = event.process {
                    let (topic, found) = lateral::look(time, key, moved);
                    self.note_of(&key, topic, found);
                }
            }
            EventKind::ServiceBreach(breach) => {
                if let Some(key) = event.process {
                    let (topic, found) = service::look(time, key, breach);
                    self.note_of(&key, topic, found);
                }
            }
            EventKind::CodeJudged(judgement) => {
                if let Some((key, (topic, found))) =
                    event.process.and_then(|key| Some((key, trust::look(time, key, judgement)?)))
                {
                    self.note_of(&key, topic, found);
                }
            }
        }
    }

    /// Takes in a sweep over all threads.
    pub fn sample(&mut self, batch: &SampleBatch) {
        self.threads.sample(batch);
    }

    /// Says what follows from everything seen. To be called about once a second; `now` is on the clock of the events.
    pub fn conclude(&mut self, now: Timestamp) -> Conclusions {
        let mut conclusions = Conclusions::default();
        let computing = self.weigh_threads(now);
        self.weigh_flows(now);
        self.weigh_listed_again(now);
        self.join_network_and_computation(now);
        self.join_relatives(now, &computing);
        self.ask(now, &computing, &mut conclusions.probes);
        self.find(now, &mut conclusions);
        self.find_loose(now, &mut conclusions);
        self.join_findings(now, &mut conclusions);
        self.forget(now);
        conclusions
    }

    /// Tells which process is Davy's own, so that whoever traces or ends it is noticed.
    pub fn guard(&mut self, own: ProcessKey) {
        self.own = Some(own);
    }

    /// Tells the name of a user, for texts; without it they show the number. At most 4,096 names are kept.
    pub fn name_user(&mut self, uid: u32, name: &str) {
        if self.users.len() < MAX_USERS || self.users.contains_key(&uid) {
            self.users.insert(uid, name.to_owned());
        }
    }

    /// The processes known.
    #[must_use]
    pub fn processes(&self) -> &ProcessTable {
        &self.processes
    }

    /// The flows known.
    #[must_use]
    pub fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// Whether a path lies where only root installs programs.
    #[must_use]
    pub fn is_system(&self, path: &str) -> bool {
        self.lists.names.is_system(path)
    }

    /// How full the tables are and what they turned away, to be shown and never silent.
    #[must_use]
    pub fn sizes(&self) -> TableSizes {
        TableSizes {
            processes: self.processes.len(),
            processes_refused: self.processes.refused(),
            flows: self.flows.len(),
            flows_evicted: self.flows.evicted(),
            threads: self.threads.len(),
            threads_refused: self.threads.refused(),
            cases: self.cases.len(),
            names: self.names.len(),
            incidents: self.incidents.len(),
        }
    }

    /// The units that use the most CPU now, busiest first.
    #[must_use]
    pub fn busiest(&self, n: usize) -> Vec<TreeView> {
        let mut sums: HashMap<UnitKey, (ComputeSum, ProcessKey, f64)> = HashMap::new();
        for (process, thread) in self.threads.lately(self.threads.time()) {
            let Some(track) = &thread.compute else { continue };
            let entry = sums.entry(self.processes.unit_of(process)).or_insert_with(|| {
                (ComputeSum::new(self.threads.cpus, self.threads.sessions), *process, -1.0)
            });
            entry.0.add(track);
            if track.share_now() > entry.2 {
                (entry.1, entry.2) = (*process, track.share_now());
            }
        }
        let mut busiest: Vec<_> = sums.into_iter().collect();
        busiest.sort_by(|a, b| b.1.0.cpus_now.total_cmp(&a.1.0.cpus_now));
        busiest.truncate(n);
        busiest.into_iter().filter_map(|(unit, (sum, process, _))| self.view(unit, &sum, &process)).collect()
    }

    fn view(&self, unit: UnitKey, sum: &ComputeSum, busiest: &ProcessKey) -> Option<TreeView> {
        let process = self.processes.get(busiest)?;
        let now = self.threads.time();
        let case = self.cases.get(&unit);
        let bits = case.map_or(crate::weights::PRIOR, |c| c.ledger.bits(now));
        let mut flows: Vec<Flow> = self
            .flows
            .iter()
            .filter(|f| f.closed.is_none() && f.owner.is_some_and(|o| self.processes.unit_of(&o) == unit))
            .cloned()
            .collect();
        flows.sort_by_key(|f| std::cmp::Reverse(f.volume.sent_packets + f.volume.received_packets));
        flows.truncate(8);
        Some(TreeView {
            root: unit,
            comm: process.comm.clone(),
            path: process.program.image.path.clone(),
            uid: process.program.creds.euid,
            cpu: sum.cpus_now,
            threads: sum.threads(),
            bits,
            confidence: probability(bits),
            evidence: case
                .map_or_else(Vec::new, |c| c.ledger.evidence(now).into_iter().map(|e| e.text).collect()),
            flows,
            stopped: self.is_stopped(&unit),
        })
    }

    pub(crate) fn slot(&mut self) -> u64 {
        self.next_slot += 1;
        self.next_slot - 1
    }

    fn flow_opened(&mut self, time: Timestamp, owner: Option<ProcessKey>, open: FlowOpen) {
        let name = self.names.get(&open.remote.ip()).cloned();
        let flow = self.flows.opened(time, owner, open);
        if flow.name.is_none() {
            flow.name = name;
        }
        self.weigh_list(time, open.flow);
    }

    fn flow_chunk(&mut self, time: Timestamp, owner: Option<ProcessKey>, chunk: &FlowChunk) {
        let flow = self.flows.chunk(time, owner, chunk);
        if flow_watch::look_for_noise(flow) {
            self.hear(time, chunk.flow);
        }
    }

    /// What a flow says may come after it was forgotten; then nobody is there to say it of.
    fn flow_read(&mut self, time: Timestamp, reading: &FlowReading) {
        let Some(flow) = self.flows.get_mut(&reading.flow) else { return };
        if flow_watch::take(flow, reading) {
            self.hear(time, reading.flow);
            self.weigh_list(time, reading.flow);
        }
    }

    /// Notes what a flow's words say of its owner.
    fn hear(&mut self, time: Timestamp, key: FlowKey) {
        let Some(flow) = self.flows.get(&key) else { return };
        if let (Some((topic, found)), Some(owner)) = (flow_watch::stratum(time, flow), flow.owner) {
            self.note_of(&owner, topic, found);
            self.weigh_words(time, key);
        }
    }

    /// Looks a flow's other end up in the lists.
    pub(crate) fn weigh_list(&mut self, time: Timestamp, key: FlowKey) {
        let Some(flow) = self.flows.get(&key) else { return };
        let Some(owner) = flow.owner.filter(|_| !flow.open.accepted) else { return };
        let by_name = flow.name.as_ref().and_then(|name| self.lists.name(name));
        let Some(found) = by_name.or_else(|| self.lists.address(flow.open.remote.ip())) else { return };
        let (topic, noted) = flow_watch::listed(time, flow, &found, POOL_LISTED);
        self.note_of(&owner, topic, noted);
        self.weigh_listed(time, key);
    }

    /// Sums up the threads of every unit that computes.
    fn weigh_threads(&mut self, now: Timestamp) -> Vec<(UnitKey, f64)> {
        let mut sums: HashMap<UnitKey, (RoundingSum, ComputeSum, ProcessKey)> = HashMap::new();
        for (process, thread) in self.threads.lately(now) {
            let Some(track) = &thread.compute else { continue };
            let entry = sums.entry(self.processes.unit_of(process)).or_insert_with(|| {
                let compute = ComputeSum::new(self.threads.cpus, self.threads.sessions);
                (RoundingSum::default(), compute, *process)
            });
            entry.0.add(&thread.rounding);
            entry.1.add(track);
        }
        let mut computing = Vec::new();
        for (unit, (rounding, compute, process)) in sums {
            let (bits, rounded) = (compute.bits(), rounding.bits());
            if bits <= 0.0 && rounded <= 0.0 {
                continue;
            }
            if bits > 0.0 {
                let found = evidence(now, Signal::ComputeShape, bits, compute.to_string())
                    .of(process)
                    .technique("T1496.001")
                    .number("threads", f64::from(compute.threads()))
                    .number("cpu_share", compute.mean_share())
                    .number("waits_per_cpu_second", compute.mean_waits());
                self.note(unit, "compute", found);
                computing.push((unit, compute.cpus_now));
            }
            if rounded > 0.0 {
                let found = evidence(now, Signal::RoundingMode, rounded, rounding.to_string())
                    .of(process)
                    .technique("T1496.001")
                    .number("changes", f64::from(rounding.changes))
                    .number("samples", f64::from(rounding.samples))
                    .number("threads", f64::from(rounding.threads))
                    .number("modes", f64::from(rounding.modes()));
                self.note(unit, "rounding", found);
            }
            if let Some(case) = self.cases.get_mut(&unit) {
                if bits > 0.0 && (case.computing_since.is_none() || case.compute_pause(now) > PAUSE_SECS) {
                    case.computing_since = Some(now.plus_secs(-compute.secs()));
                }
                if bits > 0.0 {
                    case.computed = Some(now);
                }
                case.compute = compute;
                case.rounding = rounding;
            }
        }
        computing.sort_by(|a, b| b.1.total_cmp(&a.1));
        computing
    }

    /// Scores the flows that anything went over lately.
    fn weigh_flows(&mut self, now: Timestamp) {
        for key in self.flows.take_touched() {
            let Some(flow) = self.flows.get(&key) else { continue };
            let (Some(owner), Some(shape)) = (flow.owner, pool_shape(flow)) else { continue };
            let weight = POOL_SHAPE * ((shape.score - 0.35) / 0.5).clamp(0.0, 1.0) as f32;
            let how = if flow.tls { " in TLS" } else { "" };
            let text = format!("talks to {}{how}: {shape}", flow.remote());
            let found = evidence(now, Signal::PoolShape, weight, text)
                .on(key)
                .technique("T1573")
                .number("score", shape.score)
                .number("pushes", f64::from(shape.pushes))
                .number("solutions", f64::from(shape.solutions));
            self.note_shape(&owner, found);
        }
    }

    /// A flow's score may fall as more of it is seen; beside another flow's, the higher one stands.
    fn note_shape(&mut self, owner: &ProcessKey, found: Evidence) {
        let unit = self.processes.unit_of(owner);
        if let Some(case) = self.cases.get_mut(&unit)
            && case.ledger.flow_of("pool_shape") == found.flow
        {
            case.ledger.note("pool_shape", Evidence { process: Some(*owner), ..found });
        } else if found.weight > 0.0 {
            self.note_of(owner, "pool_shape", found);
        }
    }

    fn system_calls(&mut self, time: Timestamp, key: ProcessKey, count: u64, cpu_ns: u64) {
        if cpu_ns < 100_000_000 {
            return;
        }
        let rate = count as f64 * 1e9 / cpu_ns as f64;
        let weight = if rate < 300.0 {
            COMPUTE_FEW_CALLS
        } else if rate > 3_000.0 {
            COMPUTE_MANY_CALLS
        } else {
            return;
        };
        let text = format!("{rate:.0} system calls a CPU-second");
        let found =
            evidence(time, Signal::ComputeShape, weight, text).of(key).number("calls_per_cpu_second", rate);
        self.note_of(&key, "compute/calls", found);
    }

    /// Asks for a closer look at what computes, seldom enough to cost nothing.
    fn ask(&mut self, now: Timestamp, computing: &[(UnitKey, f64)], probes: &mut Vec<ProbeRequest>) {
        let mut memory = 0;
        let mut calls = 0;
        for (unit, _) in computing {
            let Some(case) = self.cases.get_mut(unit) else { continue };
            let process = case.busiest.unwrap_or(*unit);
            if memory < MEMORY_AT_ONCE && due(case.memory_asked, now, MEMORY_EVERY) {
                memory += 1;
                case.memory_asked = Some(now);
                probes.push(ProbeRequest::Memory(process));
            }
            if case.rounding.undecided() && due(case.burst_asked, now, BURST_EVERY) {
                case.burst_asked = Some(now);
                probes.push(ProbeRequest::Burst(process));
            }
            let other = case.ledger.bits(now) - case.ledger.class_bits(Class::Computation, now);
            let open = probability(case.ledger.bits(now)) < self.settings.mining_threshold;
            if calls == 0 && open && other >= -9.0 && due(case.calls_asked, now, CALLS_EVERY) {
                calls += 1;
                case.calls_asked = Some(now);
                probes.push(ProbeRequest::Syscalls(process));
            }
        }
    }

    /// Notes evidence for the unit of a process.
    pub(crate) fn note_of(&mut self, process: &ProcessKey, topic: Topic, mut found: Evidence) {
        found.process.get_or_insert(*process);
        self.note(self.processes.unit_of(process), topic, found);
    }

    pub(crate) fn note(&mut self, unit: UnitKey, topic: Topic, mut found: Evidence) {
        if !self.cases.contains_key(&unit) && self.cases.len() >= self.settings.max_cases {
            self.make_room(found.time);
        }
        let case = self.cases.entry(unit).or_default();
        case.last = case.last.max(found.time);
        if matches!(found.signal, Signal::ComputeShape | Signal::RoundingMode) && topic != "compute/calls" {
            case.busiest = found.process;
            case.ledger.note(topic, found);
        } else if found.signal == Signal::Lateral {
            // Each move is news, also one that weighs no more than the one before; what that one weighed stays.
            found.weight = found.weight.max(case.ledger.signal_bits(Signal::Lateral, found.time));
            case.ledger.note(topic, found);
            case.ledger.grow();
        } else {
            case.ledger.note_strongest(topic, found);
        }
    }

    /// Drops the case with the least evidence that no finding stands on.
    fn make_room(&mut self, now: Timestamp) {
        let weakest = self
            .cases
            .iter()
            .min_by(|(_, a), (_, b)| {
                (a.standing.len(), a.ledger.bits(now))
                    .partial_cmp(&(b.standing.len(), b.ledger.bits(now)))
                    .unwrap_or(std::cmp::Ordering::Equal)
            })
            .map(|(unit, _)| *unit);
        if let Some(unit) = weakest {
            self.cases.remove(&unit);
        }
    }

    fn forget(&mut self, now: Timestamp) {
        let alive: HashSet<UnitKey> = if self.cases.is_empty() {
            HashSet::new()
        } else {
            self.processes.iter().filter(|p| p.alive()).map(|p| p.unit).collect()
        };
        self.cases.retain(|unit, case| {
            let faded = case.ledger.forget(now);
            let over = !alive.contains(unit) && now.secs_since(case.last) > 600.0;
            !(faded || over)
        });
    }
}
