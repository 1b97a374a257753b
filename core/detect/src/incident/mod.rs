//! Incidents: findings joined by cause, told as one story.

mod beginning;
mod guests;
mod story;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use davy_model::{
    Action, ActionId, ActionRecord, ActionState, FileId, Finding, FindingKind, Incident, IncidentId,
    IncidentState, ProcessKey, Severity, Technique, Timestamp, TreeNode,
};

use crate::conclusions::{Conclusions, Slotted};
use crate::detector::Detector;
pub(crate) use guests::Guest;
use story::Story;

/// Processes shown of one incident. When full, no further ones are added.
const MAX_NODES: usize = 64;
/// Findings and actions kept of one incident. When full, the oldest goes.
const MAX_PARTS: usize = 32;
/// A tree that was quiet for longer than this begins a new story, in seconds.
const QUIET_SECS: f64 = 120.0;

/// What joins findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
    /// They happen below the same process.
    Tree(ProcessKey),
    /// They are about the same program.
    Unit(ProcessKey),
    /// A file that one wrote is run by another.
    File(FileId),
}

/// An incident as the detector keeps it.
#[derive(Clone, Debug)]
pub(crate) struct IncidentCase {
    slot: u64,
    id: IncidentId,
    state: IncidentState,
    detected: Timestamp,
    last: Timestamp,
    stopped: Option<Timestamp>,
    causes: HashSet<Cause>,
    findings: BTreeMap<u64, Finding>,
    suspects: BTreeSet<ProcessKey>,
    nodes: BTreeMap<ProcessKey, Node>,
    actions: BTreeMap<ActionId, ActionRecord>,
    /// Whether a process runs, or ran, what a scan found; files that were only written or lie there do nothing.
    runs_malware: bool,
    story: Story,
    told: bool,
    changed: bool,
}

#[derive(Clone, Debug)]
struct Node {
    parent: Option<ProcessKey>,
    comm: String,
    path: String,
    suspect: bool,
    alive: bool,
}

impl IncidentCase {
    fn new(slot: u64, now: Timestamp) -> Self {
        Self {
            slot,
            id: IncidentId::default(),
            state: IncidentState::Running,
            detected: now,
            last: now,
            stopped: None,
            causes: HashSet::new(),
            findings: BTreeMap::new(),
            suspects: BTreeSet::new(),
            nodes: BTreeMap::new(),
            actions: BTreeMap::new(),
            runs_malware: false,
            story: Story::default(),
            told: false,
            changed: true,
        }
    }

    /// Whether a finding with these causes belongs here.
    fn joins(&self, causes: &[Cause], now: Timestamp) -> bool {
        let fresh = self.state == IncidentState::Running || now.secs_since(self.last) <= QUIET_SECS;
        causes.iter().any(|cause| match cause {
            Cause::Tree(_) => fresh && self.causes.contains(cause),
            Cause::Unit(_) | Cause::File(_) => self.causes.contains(cause),
        })
    }

    fn severity(&self) -> Severity {
        self.findings.values().map(|f| f.severity).max().unwrap_or(Severity::Info)
    }

    fn title(&self) -> String {
        let what = self
            .findings
            .values()
            .map(|f| match f.kind {
                FindingKind::Mining if f.severity >= Severity::Critical => (0, "mining"),
                FindingKind::Mining => (1, "mining suspected"),
                FindingKind::Tampering => (2, "reach for Davy"),
                FindingKind::Unproven => (2, "not enforced"),
                FindingKind::PoolContact => (3, "contact with a pool"),
                FindingKind::Fileless => (4, "code without a file"),
                FindingKind::Campaign => (5, "acts of an intrusion"),
                FindingKind::Persistence => (6, "arranged to run again"),
                FindingKind::Masquerade => (7, "a program in disguise"),
                FindingKind::Service => (3, "a service started what it should not"),
                FindingKind::Malware => (2, "known malware"),
                FindingKind::Lateral => (4, "going from host to host"),
                FindingKind::Outbound => (9, "a connection that no rule allows"),
                FindingKind::Scan => (10, "port scan"),
                FindingKind::Untrusted => (8, "code that nobody vouches for"),
            })
            .min()
            .map_or("nothing", |(_, what)| what);
        let state = match self.state {
            IncidentState::Running | IncidentState::Ended if self.is_at_rest() => "not running",
            IncidentState::Running => "running",
            IncidentState::Stopped => "stopped",
            IncidentState::Ended => "ended by itself",
            IncidentState::Undone => "stopped and undone",
        };
        format!("{what}, {state}")
    }

    /// Whether it is all about files that nobody runs.
    fn is_at_rest(&self) -> bool {
        !self.runs_malware && self.findings.values().all(|f| f.kind == FindingKind::Malware)
    }

    fn build(&self) -> Incident {
        let timeline = self.story.timeline();
        let techniques: BTreeSet<Technique> = timeline
            .iter()
            .flat_map(|e| e.techniques.iter().cloned())
            .chain(self.findings.values().flat_map(|f| f.techniques.iter().cloned()))
            .collect();
        Incident {
            id: self.id,
            state: self.state,
            severity: self.severity(),
            title: self.title(),
            first: timeline.first().map_or(self.detected, |e| e.time),
            last: self.last,
            detected: self.detected,
            stopped: self.stopped,
            tree: self.tree(),
            timeline,
            findings: self.findings.values().cloned().collect(),
            actions: self.actions.values().cloned().collect(),
            techniques: techniques.into_iter().collect(),
        }
    }

    /// The processes, depth first.
    fn tree(&self) -> Vec<TreeNode> {
        let mut children: BTreeMap<Option<ProcessKey>, Vec<ProcessKey>> = BTreeMap::new();
        for (key, node) in &self.nodes {
            let parent = node.parent.filter(|p| p != key && self.nodes.contains_key(p));
            children.entry(parent).or_default().push(*key);
        }
        for list in children.values_mut() {
            list.sort_by_key(|key| std::cmp::Reverse((key.start_ticks, key.pid)));
        }
        let mut list = Vec::new();
        let mut open: Vec<(ProcessKey, u32)> =
            children.get(&None).into_iter().flatten().map(|key| (*key, 0)).collect();
        while let Some((key, depth)) = open.pop() {
            let Some(node) = self.nodes.get(&key) else { continue };
            list.push(TreeNode {
                depth,
                process: key,
                comm: node.comm.clone(),
                path: node.path.clone(),
                suspect: node.suspect,
                alive: node.alive,
            });
            open.extend(children.get(&Some(key)).into_iter().flatten().map(|child| (*child, depth + 1)));
        }
        list
    }

    /// What the actions so far amount to, and whether the suspects live.
    fn settle(&mut self, now: Timestamp) {
        let at_rest = self.is_at_rest();
        let stops = |a: &&ActionRecord| match a.action {
            Action::Freeze { .. } | Action::Kill { .. } => true,
            // Where nothing runs, taking the file away is all there is to stop.
            Action::Quarantine { .. } => at_rest,
            Action::Alert
            | Action::Cut { .. }
            | Action::Isolate { .. }
            | Action::Ban { .. }
            | Action::ClosePorts { .. } => false,
        };
        let stopping: Vec<&ActionRecord> = self.actions.values().filter(stops).collect();
        let done = stopping.iter().filter(|a| a.state == ActionState::Done).map(|a| a.changed).min();
        let killed =
            stopping.iter().any(|a| matches!(a.action, Action::Kill { .. }) && a.state == ActionState::Done);
        let undone = stopping.iter().any(|a| a.state == ActionState::Undone);
        // A process that is not known any more has ended.
        let alive = self.suspects.iter().any(|s| self.nodes.get(s).is_some_and(|n| n.alive));
        let state = match done {
            Some(_) if killed && alive && self.respawned(done, now) => IncidentState::Running,
            Some(_) => IncidentState::Stopped,
            None if undone => IncidentState::Undone,
            None if !alive && (at_rest || !self.suspects.is_empty()) => IncidentState::Ended,
            None => IncidentState::Running,
        };
        if done.is_some() && self.stopped.is_none() {
            self.stopped = done;
        }
        if state != self.state {
            self.state = state;
            self.last = self.last.max(now);
            self.changed = true;
        }
    }

    /// Whether a suspect lives on a good while after the kill: something started it again.
    fn respawned(&self, killed: Option<Timestamp>, now: Timestamp) -> bool {
        killed.is_some_and(|killed| now.secs_since(killed) > 3.0)
            && self.findings.values().any(|f| killed.is_some_and(|killed| f.time > killed.plus_secs(3.0)))
    }
}

impl Detector {
    /// Gives the incident in a slot the number it has in the store.
    pub fn number_incident(&mut self, slot: u64, id: IncidentId) {
        if let Some(incident) = self.incidents.iter_mut().find(|i| i.slot == slot) {
            incident.id = id;
        }
    }

    /// An incident as it stands, with the numbers given so far.
    #[must_use]
    pub fn incident(&self, slot: u64) -> Option<Incident> {
        self.incidents.iter().find(|i| i.slot == slot).map(IncidentCase::build)
    }

    /// The slot of the incident that a finding's slot belongs to.
    #[must_use]
    pub fn incident_of(&self, finding: u64) -> Option<u64> {
        self.incidents.iter().find(|i| i.findings.contains_key(&finding)).map(|i| i.slot)
    }

    /// Takes in what was done, or would have been, so that its incident shows it. Records that belong to no incident
    /// kept are let go. The next conclusion tells the incident anew.
    pub fn record_action(&mut self, record: &ActionRecord) {
        let incident = self.incidents.iter_mut().find(|i| {
            record.incident.is_some_and(|id| id.0 != 0 && id == i.id)
                || record.finding.is_some_and(|id| id.0 != 0 && i.findings.values().any(|f| f.id == id))
        });
        let Some(incident) = incident else { return };
        incident.actions.insert(record.id, record.clone());
        while incident.actions.len() > MAX_PARTS {
            incident.actions.pop_first();
        }
        incident.last = incident.last.max(record.changed);
        incident.changed = true;
        incident.settle(record.changed);
    }

    /// Whether an action that was done holds a unit down.
    pub(crate) fn is_stopped(&self, unit: &ProcessKey) -> bool {
        self.incidents
            .iter()
            .any(|i| i.state == IncidentState::Stopped && i.causes.contains(&Cause::Unit(*unit)))
    }

    pub(crate) fn number_in_incidents(&mut self, slot: u64, id: davy_model::FindingId) {
        for incident in &mut self.incidents {
            if let Some(finding) = incident.findings.get_mut(&slot) {
                finding.id = id;
            }
        }
    }

    /// Joins the findings told now to their incidents, and tells those that changed.
    pub(crate) fn join_findings(&mut self, now: Timestamp, conclusions: &mut Conclusions) {
        for told in &conclusions.findings {
            self.join_finding(told, now);
        }
        self.join_guests(now);
        let mut incidents = std::mem::take(&mut self.incidents);
        for incident in &mut incidents {
            self.refresh(incident, now);
            if std::mem::take(&mut incident.changed) {
                let renewed = std::mem::replace(&mut incident.told, true);
                conclusions.incidents.push(Slotted { slot: incident.slot, renewed, item: incident.build() });
            }
        }
        self.incidents = incidents;
        self.forget_incidents(now);
    }

    fn join_finding(&mut self, told: &Slotted<Finding>, now: Timestamp) {
        let finding = &told.item;
        let Some(subject) = finding.subject else { return self.join_loose(told, now) };
        let mut beginning = self.beginning(&subject);
        let unit = self.processes.unit_of(&subject);
        let mut causes = vec![Cause::Tree(beginning.root), Cause::Unit(unit)];
        let bad_files = self.cases.get(&unit).map(|case| case.bad_files.as_slice()).unwrap_or_default();
        let runs_malware = bad_files.iter().any(|file| file.runner.is_some());
        causes.extend(bad_files.iter().map(|file| Cause::File(file.file)));
        // A program that was written while Davy watched brings the writer's story: a cron job that runs
        // what a web request left behind began with that request.
        let file = self.processes.get(&subject).map(|p| p.program.image.file).filter(|f| f.ino != 0);
        if let Some(file) = file
            && let Some(written) = self.written.get(&file)
        {
            causes.push(Cause::File(file));
            let writers = self.beginning(&written.process);
            causes.push(Cause::Tree(writers.root));
            if writers.time.0 > 0 && writers.time < beginning.time {
                beginning = writers;
            }
        }
        let place = self
            .incidents
            .iter()
            .position(|i| i.findings.contains_key(&told.slot))
            .or_else(|| self.incidents.iter().position(|i| i.joins(&causes, now)));
        let mut incident = match place {
            Some(place) => self.incidents.swap_remove(place),
            None if finding.severity < Severity::Medium => return,
            None => IncidentCase::new(self.slot(), now),
        };
        self.tell(&mut incident.story, finding, &beginning);
        incident.causes.extend(causes);
        incident.runs_malware |= runs_malware;
        incident.suspects.extend(finding.processes.iter().take(MAX_NODES));
        incident.findings.insert(told.slot, finding.clone());
        while incident.findings.len() > MAX_PARTS {
            incident.findings.pop_first();
        }
        self.add_nodes(&mut incident, &beginning.root, finding);
        incident.last = now;
        incident.changed = true;
        self.incidents.push(incident);
    }

    /// Joins what a scan found in a file that no known process runs or wrote.
    fn join_loose(&mut self, told: &Slotted<Finding>, now: Timestamp) {
        let Some(loose) = self.loose.iter().find(|loose| loose.slot == told.slot) else { return };
        let causes = [Cause::File(loose.file.file)];
        let place = self.incidents.iter().position(|i| i.joins(&causes, now));
        let mut incident = match place {
            Some(place) => self.incidents.swap_remove(place),
            None if told.item.severity < Severity::Medium => return,
            None => IncidentCase::new(self.slot(), now),
        };
        story::tell_loose(&mut incident.story, &told.item);
        incident.causes.extend(causes);
        incident.findings.insert(told.slot, told.item.clone());
        while incident.findings.len() > MAX_PARTS {
            incident.findings.pop_first();
        }
        incident.last = now;
        incident.changed = true;
        self.incidents.push(incident);
    }

    /// The way from the beginning to the suspects, the suspects, and what they started.
    fn add_nodes(&self, incident: &mut IncidentCase, root: &ProcessKey, finding: &Finding) {
        let children = self.processes.children();
        let mut wanted: Vec<ProcessKey> = Vec::new();
        for suspect in &finding.processes {
            let mut way: Vec<ProcessKey> = vec![*suspect];
            if suspect != root {
                for above in self.processes.ancestors(suspect) {
                    way.push(above.key);
                    if above.key == *root || above.key.pid <= 1 {
                        break;
                    }
                }
            }
            wanted.extend(way.iter().rev());
            wanted.extend(children.get(suspect).into_iter().flatten());
        }
        for key in wanted {
            let Some(process) = self.processes.get(&key) else { continue };
            if key.pid <= 1 || (incident.nodes.len() >= MAX_NODES && !incident.nodes.contains_key(&key)) {
                continue;
            }
            let suspect = incident.suspects.contains(&key);
            let node = Node {
                parent: process.parent,
                comm: process.comm.clone(),
                path: process.program.image.path.clone(),
                suspect,
                alive: process.alive(),
            };
            incident.nodes.insert(key, node);
        }
    }

    fn refresh(&self, incident: &mut IncidentCase, now: Timestamp) {
        if incident.state != IncidentState::Ended {
            for (key, node) in &mut incident.nodes {
                let alive = self.processes.get(key).is_some_and(crate::process_table::Process::alive);
                incident.changed |= node.alive != alive;
                node.alive = alive;
            }
        }
        incident.settle(now);
    }

    fn forget_incidents(&mut self, now: Timestamp) {
        let memory = self.settings.incident_memory_secs;
        self.incidents.retain(|i| i.state == IncidentState::Running || now.secs_since(i.last) <= memory);
        while self.incidents.len() > self.settings.max_incidents {
            let oldest = self
                .incidents
                .iter()
                .enumerate()
                .min_by_key(|(_, i)| (i.state == IncidentState::Running, i.last))
                .map(|(place, _)| place);
            match oldest {
                Some(place) => drop(self.incidents.swap_remove(place)),
                None => break,
            }
        }
    }
}
