//! The engine's thread. It owns the detector; everything that reaches the detector goes through its one queue.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use davy_detect::{Detector, Process, Slotted};
use davy_model::{
    Event, EventKind, Finding, FindingId, Incident, IncidentId, IncidentState, ProbeRequest, ProcessInfo,
    Proposal,
};
use davy_net::map::Filter;
use davy_net::scans::PortScan;
use davy_store::Store;
use davy_wire::{BusyTree, ConnectionEntry, Proof, Reply, TopView, TreeFlow};
use tokio::sync::broadcast;

use crate::alarm::Alarm;
use crate::arbiter::{Case, Order};
use crate::clock;
use crate::connections::Connections;
use crate::eyes::{Every, Eyes};
use crate::keeper::Keeper;
use crate::lateral::LateralWatch;
use crate::outbound::OutboundTeller;
use crate::own;
use crate::port_scans::{self, PortScanTeller};
use crate::ports::PortsDesk;
use crate::scan::ScanSights;
use crate::services::{Look, ServiceWatch};
use crate::shared::{Ask, Input, Shared, lock};
use crate::trust::Sights;

/// How many inputs are taken before the engine looks at its clock again.
const BATCH: usize = 2048;

/// How often all threads are looked at, and how often while a suspect is looked at closely.
const SAMPLE: Duration = Duration::from_secs(1);
const BURST_SAMPLE: Duration = Duration::from_millis(100);

/// How long a close look lasts.
const BURST: Duration = Duration::from_secs(3);

/// How long a change of a file waits before it is judged, and a refusal of code to a process that is not known yet. Files and
/// processes are told by different ways, and a program that writes as soon as it begins must be known by then; records
/// gather in the kernel's ring buffers for 20 ms.
const PROCESSES_FIRST: Duration = Duration::from_millis(100);

/// The most changes that wait; beyond it the oldest is judged at once.
const MAX_HELD: usize = 1024;

/// How often conclusions are drawn.
const CONCLUDE: Duration = Duration::from_millis(500);

/// Conclusions that cannot wait are drawn at once, but no closer to each other than this.
const URGENT: Duration = Duration::from_millis(20);

/// How often /proc is read in the poll tier, and GPUs and huge pages in every tier.
const POLL: Duration = Duration::from_secs(1);

/// For how many of the newest findings it is known which incident they belong to.
const MAX_NUMBERED: usize = 4096;

/// The most trees in `davy top`.
const TOP_TREES: usize = 30;

/// What happens now, for clients that follow. Findings go apart from events, so that a flood of the one never pushes out the
/// other.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) events: broadcast::Sender<Arc<Reply>>,
    pub(crate) findings: broadcast::Sender<Arc<Reply>>,
}

impl Live {
    /// Channels that remember so many for a slow follower.
    pub(crate) fn new(events: usize, findings: usize) -> Self {
        Self { events: broadcast::channel(events).0, findings: broadcast::channel(findings).0 }
    }
}

/// The engine.
pub(crate) struct Engine {
    pub(crate) detector: Detector,
    pub(crate) eyes: Eyes,
    pub(crate) shared: Arc<Shared>,
    pub(crate) keeper: Keeper,
    pub(crate) arbiter: SyncSender<Order>,
    /// New events and findings, for clients that follow.
    pub(crate) live: Live,
    pub(crate) store: Store,
    pub(crate) rhythm: Rhythm,
    pub(crate) batch: Vec<Event>,
    /// Changes of files whose writer may not be known yet, oldest first.
    pub(crate) held: VecDeque<(Instant, Event)>,
    /// Which incident a finding belongs to, as last concluded.
    pub(crate) incident_of: BTreeMap<FindingId, IncidentId>,
    pub(crate) users: davy_proc::Users,
    /// Where code that ran is looked at.
    pub(crate) sights: Sights,
    /// Who comes from which service.
    pub(crate) services: ServiceWatch,
    /// Who reaches which port.
    pub(crate) ports: Arc<PortsDesk>,
    /// Where files that ran or were written are scanned.
    pub(crate) scans: ScanSights,
    /// Who talks to whom.
    pub(crate) connections: Connections,
    /// Who goes from this host to others inside.
    pub(crate) lateral: LateralWatch,
    /// What is told of connections that no rule allows.
    pub(crate) outbound: OutboundTeller,
    /// What is told of the agent's own canaries.
    pub(crate) alarm: Alarm,
    /// What is told of scans of ports.
    pub(crate) port_scans: PortScanTeller,
}

/// When the engine does what.
#[derive(Debug)]
pub(crate) struct Rhythm {
    sample: Every,
    burst_sample: Every,
    burst_until: Instant,
    conclude: Every,
    /// When conclusions were last drawn.
    concluded: Instant,
    /// Whether something waits for conclusions that cannot wait long.
    urgent: bool,
    poll: Every,
    rate_since: Instant,
    rate_events: u64,
    rate: f32,
}

impl Default for Rhythm {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            sample: Every::new(SAMPLE),
            burst_sample: Every::new(BURST_SAMPLE),
            burst_until: now,
            conclude: Every::new(CONCLUDE),
            concluded: now,
            urgent: false,
            poll: Every::new(POLL),
            rate_since: now,
            rate_events: 0,
            rate: 0.0,
        }
    }
}

impl Rhythm {
    fn next(&self) -> Instant {
        let mut next = self.sample.next().min(self.conclude.next()).min(self.poll.next());
        if self.urgent {
            next = next.min(self.concluded + URGENT);
        }
        if self.bursting() { next.min(self.burst_sample.next()) } else { next }
    }

    fn bursting(&self) -> bool {
        self.burst_until > Instant::now()
    }

    fn conclude_due(&mut self) -> bool {
        let regular = self.conclude.due();
        let due = regular || (self.urgent && self.concluded.elapsed() >= URGENT);
        if due {
            self.concluded = Instant::now();
            self.urgent = false;
        }
        due
    }

    fn sample_due(&mut self) -> bool {
        // Both are asked, so that a burst does not leave the slow one overdue.
        let slow = self.sample.due();
        self.bursting() && self.burst_sample.due() || slow
    }
}

impl Engine {
    /// Runs until it is told to stop.
    pub(crate) fn run(mut self, inputs: &Receiver<Input>) {
        // The sensors already run, so what begins during the backfill waits in the queue and nothing falls between.
        for event in self.eyes.backfill() {
            self.observe(event);
        }
        self.connections.watched();
        self.lateral.watched();
        for event in self.services.settle(&self.detector) {
            self.observe(event);
        }
        self.hand_over();
        loop {
            let held = self.held.front().map(|(since, _)| *since + PROCESSES_FIRST);
            let next = held.map_or(self.rhythm.next(), |held| held.min(self.rhythm.next()));
            let wait = next.saturating_duration_since(Instant::now());
            match inputs.recv_timeout(wait) {
                Ok(input) => {
                    let mut go_on = self.take(input);
                    // Whatever else waits is taken in one go, up to a bound that keeps the clock's turns coming.
                    for input in inputs.try_iter().take(BATCH) {
                        go_on &= self.take(input);
                    }
                    if !go_on {
                        // What still waits for its writer is judged as it is, rather than forgotten.
                        self.release(0);
                        self.keeper.connections(self.connections.rest(clock::now(), &self.detector));
                    }
                    self.hand_over();
                    if !go_on {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.turn();
        }
    }

    fn take(&mut self, input: Input) -> bool {
        match input {
            Input::Event(event) if self.may_come_early(&event) => {
                self.held.push_back((Instant::now(), event));
                self.release(MAX_HELD);
            }
            Input::Event(event) => self.observe(event),
            Input::Ask(Ask::Top(reply)) => drop(reply.send(self.top())),
            Input::Ask(Ask::Process(pid, reply)) => drop(reply.send(self.process(pid))),
            Input::Ask(Ask::Connections(filter, reply)) => drop(reply.send(self.talks(&filter))),
            Input::Acted(record) => self.detector.record_action(&record),
            Input::Proven(proof) => self.hear(&proof),
            Input::Forget(before) => self.connections.forget_before(before),
            Input::PortScan(scan) => self.scanned(&scan),
            Input::Stop => return false,
        }
        true
    }

    /// Whether it comes by another way than what its process began with, and may have overtaken that.
    fn may_come_early(&self, event: &Event) -> bool {
        let known = || event.process.is_none_or(|key| self.detector.processes().get(&key).is_some());
        match event.kind {
            EventKind::File(_) => true,
            // Who was refused waited for that in the kernel, as a rule in a child that had only just begun.
            EventKind::CodeJudged(_) => !known(),
            _ => false,
        }
    }

    /// Judges the changes of files that have waited long enough, and as many more as keep no more than `most` waiting.
    fn release(&mut self, most: usize) {
        while let Some((since, _)) = self.held.front()
            && (self.held.len() > most || since.elapsed() >= PROCESSES_FIRST)
        {
            if let Some((_, event)) = self.held.pop_front() {
                self.observe(event);
            }
        }
    }

    fn observe(&mut self, event: Event) {
        self.detector.observe(&event);
        self.sights.see(&event, &self.detector);
        self.outbound.see(&event, &self.detector, || self.store.new_finding_id());
        self.scans.see(&event);
        self.connections.see(&event, &self.detector);
        self.shared.counters.events.fetch_add(1, Ordering::Relaxed);
        if self.live.events.receiver_count() > 0 {
            let _ = self.live.events.send(Arc::new(Reply::Event(event.clone())));
        }
        let inbound = self.ports.see(&event, &self.detector);
        let look = self.services.see(&event, &self.detector);
        let moved = self.lateral.see(&event, &self.detector, &self.services);
        self.batch.push(event);
        if let Some(told) = moved {
            self.observe(told);
        }
        if let Some(told) = inbound {
            self.observe(told);
        }
        match look {
            Look::Nothing => {}
            Look::Told(event) => self.observe(event),
            Look::Unknown(began) => self.sights.descended(began),
        }
    }

    fn hand_over(&mut self) {
        if !self.batch.is_empty() {
            self.keeper.events(std::mem::take(&mut self.batch));
        }
    }

    /// Does what it is time for.
    fn turn(&mut self) {
        self.release(MAX_HELD);
        // Before the events are handed over, so that none is written after the finding that rests on it.
        for moved in self.lateral.tend(clock::now(), &self.detector) {
            self.observe(moved);
        }
        self.hand_over();
        if self.rhythm.poll.due() {
            for event in self.eyes.poll() {
                self.observe(event);
            }
            self.hand_over();
            let mut drops = self.eyes.drops();
            let sizes = self.detector.sizes();
            let counted = [
                ("processes, the table was full", sizes.processes_refused),
                ("flows, the table was full", sizes.flows_evicted),
                ("threads, the table was full", sizes.threads_refused),
                ("code that ran, not looked at", self.sights.lost()),
                ("processes of services, the table was full", self.services.lost()),
            ];
            for (what, count) in counted.into_iter().chain(self.connections.losses()) {
                if count > 0 {
                    drops.push((what.to_owned(), count));
                }
            }
            *lock(&self.shared.sensor_drops) = drops;
            self.tell_of_attempts();
        }
        if self.rhythm.sample_due() {
            let batch = self.eyes.sample();
            self.detector.sample(&batch);
        }
        self.rhythm.urgent |= self.detector.take_urgent();
        if self.rhythm.conclude_due() {
            self.conclude();
        }
    }

    fn conclude(&mut self) {
        for (uid, name) in self.users.news() {
            self.detector.name_user(uid, name);
        }
        let outbound = self.outbound.due(clock::now());
        outbound.iter().for_each(|finding| self.detector.adopt(finding));
        let conclusions = self.detector.conclude(clock::now());
        for request in conclusions.probes {
            if let ProbeRequest::Burst(_) = request {
                self.rhythm.burst_until = Instant::now() + BURST;
            } else if let Some(event) = self.eyes.probe(request) {
                self.observe(event);
            }
        }
        // Findings are numbered before the incidents that hold them, so that no incident names one without a number.
        let mut findings = conclusions.findings;
        for Slotted { slot, item: finding, .. } in &mut findings {
            if finding.id == FindingId(0) {
                finding.id = self.store.new_finding_id();
                self.detector.number_finding(*slot, finding.id);
            }
        }
        for Slotted { slot, item: incident, .. } in conclusions.incidents {
            if incident.id == IncidentId(0) {
                self.detector.number_incident(slot, self.store.new_incident_id());
            }
            if let Some(incident) = self.detector.incident(slot) {
                self.publish_incident(incident);
            }
        }
        for Slotted { slot, item: finding, .. } in findings {
            let own = conclusions.proposals.iter().filter(|p| p.slot == slot);
            let proposals = own.map(|p| Proposal { finding: finding.id, ..p.item.clone() }).collect();
            self.publish_finding(finding, proposals);
        }
        if let Some(changes) = self.connections.tend(clock::now(), &self.detector) {
            self.keeper.connections(changes);
        }
        for finding in outbound {
            self.publish_finding(finding, Vec::new());
        }
        let counters = &self.shared.counters;
        counters.turns.fetch_add(1, Ordering::Relaxed);
        counters.processes.store(self.detector.processes().len() as u64, Ordering::Relaxed);
        counters.flows.store(self.detector.flows().len() as u64, Ordering::Relaxed);
        self.measure_rate();
    }

    fn publish_incident(&mut self, mut incident: Incident) {
        // The detector keeps a bounded number of names; users beyond them are numbers in what it tells.
        for entry in &mut incident.timeline {
            if let Some(uid) = entry.user.as_deref().and_then(|user| user.parse().ok()) {
                entry.user = Some(self.users.name_or_number(uid));
            }
        }
        for finding in &incident.findings {
            self.incident_of.insert(finding.id, incident.id);
        }
        while self.incident_of.len() > MAX_NUMBERED {
            self.incident_of.pop_first();
        }
        let mut running = lock(&self.shared.running);
        running.retain(|id| *id != incident.id);
        if incident.state == IncidentState::Running {
            running.push(incident.id);
        }
        drop(running);
        self.keeper.incident(incident);
    }

    fn publish_finding(&mut self, finding: Finding, proposals: Vec<Proposal>) {
        let _ = self.live.findings.send(Arc::new(Reply::Finding(finding.clone())));
        self.keeper.finding(finding.clone());
        let process = finding.subject.and_then(|key| self.detector.processes().get(&key)).map(Process::info);
        let incident = self.incident_of.get(&finding.id).copied();
        let shown = finding.evidence.iter().filter_map(|e| e.process).chain(finding.subject);
        let service = self.services.service_of(shown).map(str::to_owned);
        let case = Order::Judge(Box::new(Case { finding, incident, proposals, process, service }));
        if let Err(TrySendError::Full(_)) = self.arbiter.try_send(case) {
            self.shared.counters.arbiter_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes findings of attempts on Davy itself. One attempt a second is told; a flood of them says nothing more.
    fn tell_of_attempts(&mut self) {
        if let Some(refused) = self.eyes.refusals().first() {
            let processes = self.detector.processes();
            let who = processes.get(&refused.process).map_or("a process", |p| p.comm.as_str()).to_owned();
            let finding = own::finding(self.store.new_finding_id(), refused, &who);
            tracing::error!("{}", finding.summary);
            self.publish_finding(finding, Vec::new());
        }
    }

    /// Makes an incident of a canary that was not stopped.
    fn hear(&mut self, proof: &Proof) {
        let store = &self.store;
        let new = || (store.new_finding_id(), store.new_incident_id());
        let Some(incident) = self.alarm.hear(proof, new) else { return };
        let findings = incident.findings.clone();
        self.publish_incident(incident);
        for finding in findings {
            self.publish_finding(finding, Vec::new());
        }
    }

    /// Makes a finding of a scan of ports, and an incident where it is one.
    fn scanned(&mut self, scan: &PortScan) {
        let store = &self.store;
        let (finding, incident) =
            self.port_scans.tell(scan, clock::now(), || store.new_finding_id(), || store.new_incident_id());
        if let Some(incident) = incident {
            self.publish_incident(incident);
        }
        let proposals = port_scans::proposals(scan, finding.id);
        self.publish_finding(finding, proposals);
    }

    fn measure_rate(&mut self) {
        let elapsed = self.rhythm.rate_since.elapsed();
        if elapsed >= Duration::from_secs(2) {
            let events = self.shared.counters.events.load(Ordering::Relaxed);
            self.rhythm.rate = (events - self.rhythm.rate_events) as f32 / elapsed.as_secs_f32();
            self.rhythm.rate_events = events;
            self.rhythm.rate_since = Instant::now();
        }
    }

    fn process(&self, pid: u32) -> Option<ProcessInfo> {
        self.detector.processes().by_pid(pid).map(Process::info)
    }

    fn talks(&mut self, filter: &Filter) -> Vec<ConnectionEntry> {
        let users = &mut self.users;
        let rows = self.connections.select(filter).into_iter().map(|connection| ConnectionEntry {
            user: connection.talker.uid.map(|uid| users.name_or_number(uid)),
            connection,
        });
        rows.collect()
    }

    fn top(&mut self) -> TopView {
        let users = &mut self.users;
        let trees = self.detector.busiest(TOP_TREES).into_iter().map(|tree| BusyTree {
            root: tree.root,
            comm: tree.comm,
            path: tree.path,
            user: users.name_or_number(tree.uid),
            cpu: tree.cpu as f32,
            threads: tree.threads,
            bits: tree.bits,
            confidence: tree.confidence,
            evidence: tree.evidence,
            flows: tree
                .flows
                .into_iter()
                .map(|f| TreeFlow { transport: f.open.transport, remote: f.remote(), volume: f.volume })
                .collect(),
            stopped: tree.stopped,
        });
        TopView {
            time: clock::now(),
            cpus: davy_proc::Hardware::host().cpus(),
            event_rate: self.rhythm.rate,
            trees: trees.collect(),
            blocked: lock(&self.shared.blocked).clone(),
        }
    }
}
