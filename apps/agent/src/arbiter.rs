//! The arbiter: the one place that lets anything act on the machine.
//!
//! The detector proposes. The arbiter asks the policy and what overrules it, lets the responder's failsafes look, writes
//! the action down durably, has it carried out, and writes down what became of it.

mod bans;
mod isolating;
mod ports;
mod sealed;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use davy_model::{
    Action, ActionRecord, ActionState, FileId, Finding, FindingId, FindingKind, IncidentId, Mode,
    ProcessInfo, Proposal, Timestamp,
};
use davy_policy::{ActionKind, AllowedBy, Circumstances, Decision, Digest, Policy, Subject};
use davy_proc::Users;
use davy_respond::Responder;
use davy_store::Store;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::bans::BansDesk;
use crate::block::{KernelBlock, Reach};
use crate::deed::{self, fingerprint, holds_for, in_order, outcome_words, record, said, settle, timed};
use crate::ports::PortsDesk;
use crate::shared::{Input, Intake, Shared, lock};
use crate::standing::Limit;
use crate::{clock, opening};

pub(crate) use bans::BanOrder;
pub(crate) use isolating::IsolationOrder;
pub(crate) use ports::PortsOrder;
pub(crate) use sealed::{Refused, SealedOrder};

/// How many incidents' proposals are remembered for `davy act`; the oldest goes first.
const MAX_CASES: usize = 1024;

/// How long before its time a cut counts as over when somebody dials anew, in seconds: the book and the kernel begin to count one after the
/// other.
const CUT_ENDS: f64 = 2.0;

/// A finding with what could be done about it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) finding: Finding,
    pub(crate) incident: Option<IncidentId>,
    pub(crate) proposals: Vec<Proposal>,
    /// The process the finding is about, as last known.
    pub(crate) process: Option<ProcessInfo>,
    /// The profile of the service that it came from, if it did.
    pub(crate) service: Option<String>,
}

/// By which section something is done, to whom, and what holds there.
#[derive(Clone, Copy)]
struct Place<'a> {
    section: &'static str,
    subject: &'a Subject,
    under: &'a Circumstances,
}

/// What the arbiter is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// A finding was made or has grown.
    Judge(Box<Case>),
    /// An administrator wants this done, whatever the policy says.
    Act(IncidentId, Vec<ActionKind>, oneshot::Sender<Result<String, String>>),
    /// An administrator wants a file taken away.
    Quarantine { path: String, file: FileId, reason: String, reply: oneshot::Sender<Result<String, String>> },
    /// An administrator wants these actions undone.
    Undo(Vec<ActionRecord>, oneshot::Sender<Result<String, String>>),
    /// The agent's own canary is to be acted on, whatever the policy says; a cut is for this cgroup alone.
    Prove(Action, Option<String>, oneshot::Sender<ActionRecord>),
    /// Something about the files in quarantine.
    Sealed(SealedOrder),
    /// The host, or a cgroup, is to be isolated or let back.
    Isolation(IsolationOrder),
    /// Somebody is to be banned or let in again.
    Ban(BanOrder),
    /// Something about closed ports.
    Ports(PortsOrder),
    /// Time to go; what is timed is left to the kernel and the next agent.
    Stop,
}

/// What the arbiter does through the packet filter.
pub(crate) struct Firewall {
    pub(crate) ports: Arc<PortsDesk>,
    pub(crate) bans: Arc<BansDesk>,
}

/// The arbiter's thread.
pub(crate) struct Arbiter {
    shared: Arc<Shared>,
    store: Store,
    runtime: Handle,
    responder: Responder,
    block: Arc<KernelBlock>,
    intake: Intake,
    ports: Arc<PortsDesk>,
    bans: Arc<BansDesk>,
    /// What the journal says of closed ports.
    lines: ports::Lines,
    /// What was decided, so that a finding that grows is not answered twice; the mode belongs to it, because what would
    /// have been done under observe may be done later under enforce.
    decided: BTreeSet<(FindingId, String, bool)>,
    /// What an administrator undid: the same is not done again to the same process or file, also after a restart.
    let_be: BTreeSet<String>,
    cases: BTreeMap<IncidentId, Vec<Case>>,
    order: VecDeque<IncidentId>,
    /// Actions in force that end by themselves.
    timed: Vec<ActionRecord>,
    users: Users,
}

impl Arbiter {
    pub(crate) fn new(
        shared: Arc<Shared>,
        store: Store,
        runtime: Handle,
        responder: Responder,
        block: Arc<KernelBlock>,
        intake: Intake,
        Firewall { ports, bans }: Firewall,
    ) -> Self {
        Self {
            shared,
            store,
            runtime,
            responder,
            block,
            intake,
            ports,
            bans,
            lines: ports::Lines::default(),
            decided: BTreeSet::new(),
            let_be: BTreeSet::new(),
            cases: BTreeMap::new(),
            order: VecDeque::new(),
            timed: Vec::new(),
            users: Users::new(),
        }
    }

    /// Takes over what an earlier agent left: actions that were intended when it died, and timed ones in force.
    pub(crate) fn take_over(&mut self, journal: Vec<ActionRecord>) {
        self.block.set_reach(reach(&lock(&self.shared.rulebook).policy()));
        for mut record in journal {
            if record.is_canary() {
                self.release(record);
                continue;
            }
            if matches!(record.action, Action::ClosePorts { .. }) {
                self.take_over_ports(record);
                continue;
            }
            if matches!(record.action, Action::Ban { .. }) {
                self.take_over_ban(record);
                continue;
            }
            if record.state == ActionState::Undone {
                self.leave_alone(&record.action);
                continue;
            }
            if record.state == ActionState::Intended {
                let outcome = self.responder.settle(&record);
                settle(&mut record, outcome);
                self.change(&record);
            }
            let left = davy_respond::expiry::remaining(&record, clock::now());
            if let (Action::Cut { destination, cgroup, .. }, Some(seconds)) = (&record.action, left)
                && let Err(e) = self.block.resume(*destination, cgroup.as_deref(), seconds)
            {
                tracing::error!("{} is cut no longer: {e}", destination.address);
            }
            if let (Action::Isolate { .. }, Some(seconds)) = (&record.action, left)
                && let Err(e) = self.responder.resume_isolation(&record, seconds)
            {
                tracing::error!("what was isolated is not any longer: {e}");
            }
            if davy_respond::expiry::ends(&record).is_some() {
                self.timed.push(record);
            }
        }
        self.tell_isolated();
        if self.bans.count() > 0
            && let Err(why) = self.bans.restore(clock::now())
        {
            tracing::error!("who was banned is not any longer: {why}");
        }
    }

    /// Judges until told to stop.
    pub(crate) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            match orders.recv_timeout(Duration::from_secs(5)) {
                Ok(Order::Judge(case)) => self.judge(*case),
                Ok(Order::Act(incident, actions, reply)) => {
                    let _ = reply.send(self.act(incident, &actions));
                }
                Ok(Order::Quarantine { path, file, reason, reply }) => {
                    let _ = reply.send(self.quarantine(path, file, &reason));
                }
                Ok(Order::Undo(records, reply)) => {
                    let _ = reply.send(self.undo(records));
                }
                Ok(Order::Sealed(order)) => self.on_sealed(order),
                Ok(Order::Isolation(order)) => self.on_isolation(order),
                Ok(Order::Ban(order)) => self.on_ban(order),
                Ok(Order::Ports(order)) => self.on_ports(order),
                Ok(Order::Prove(action, cgroup, reply)) => {
                    // Of a canary without a cgroup nothing is cut; what comes here all the same is cut for nobody.
                    self.block.set_reach(Reach::Cgroups(cgroup.into_iter().collect()));
                    let _ = reply.send(self.carry_out(deed::canary(action)));
                }
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.expire();
        }
    }

    fn judge(&mut self, case: Case) {
        let policy = lock(&self.shared.rulebook).policy();
        let now = clock::now();
        let subject =
            Subject { service: case.service.clone(), ..self.subject(case.process.as_ref(), &policy) };
        let section = Policy::section_of(case.finding.kind);
        let under = lock(&self.shared.standing).circumstances(section, &subject.cgroup, now);
        let mut decision = policy.decide_under(&case.finding, &subject, &under);
        self.remember(&case);
        self.block.set_reach(match &under.rehearsal {
            Some(cgroup) => Reach::Cgroups(vec![cgroup.clone()]),
            None => reach(&policy),
        });
        let place = Place { section, subject: &subject, under: &under };
        let cuts_itself = decision.mode == Mode::Enforce && decision.actions.contains(&ActionKind::Cut);
        let pools = Policy::section_of(FindingKind::PoolContact);
        let of_pools = lock(&self.shared.standing).circumstances(pools, &subject.cgroup, now);
        // A miner's pool is cut once, by whichever of the two sections enforces.
        if let Some(cuts) = policy.cuts_pool_of(&case.finding, &subject, &of_pools).filter(|_| !cuts_itself) {
            self.answer(&case, &policy, &cuts, &Place { section: pools, under: &of_pools, ..place });
            decision.actions.retain(|action| *action != ActionKind::Cut);
        }
        self.answer(&case, &policy, &decision, &place);
    }

    /// Does what was decided about a finding, or writes down what would have been done.
    fn answer(&mut self, case: &Case, policy: &Policy, decision: &Decision, place: &Place<'_>) {
        if decision.mode == Mode::Off || decision.allowed {
            return;
        }
        let enforce = decision.mode == Mode::Enforce;
        for proposal in in_order(&case.proposals, &decision.actions) {
            let action = self.lengthened(timed(proposal.action.clone(), policy, place.section));
            let action = within_rehearsal(action, place.under);
            let print = fingerprint(&action);
            if enforce {
                self.end_what_ends_now(&action, &place.subject.cgroup);
            }
            // What one finding of an incident has cut off needs no second cut for the next, nor a wider one: others who dial it are cut
            // off by what they say themselves.
            let cut_off = |r: &ActionRecord| {
                r.incident == case.incident && holds_for(&r.action, &action, &place.subject.cgroup)
            };
            if enforce && self.timed.iter().any(cut_off) {
                continue;
            }
            let decided = !self.decided.insert((case.finding.id, print.clone(), enforce));
            if decided || self.let_be.contains(&print) {
                continue;
            }
            if !enforce {
                self.note(case, action, ActionState::WouldHave, &decision.why);
                continue;
            }
            let limit = Limit {
                per_minute: policy.failsafe.denials_per_minute,
                grace_secs: policy.failsafe.grace.as_secs_f64(),
            };
            if place.under.rehearsal.is_none()
                && let Some(why) = lock(&self.shared.standing).acted(
                    place.section,
                    &place.subject.cgroup,
                    limit,
                    place.under.now,
                )
            {
                tracing::error!("a spike of actions: {why}");
                self.note(case, action, ActionState::Refused, &format!("a spike of actions: {why}"));
                return;
            }
            self.carry_out(intended(case, action, &decision.why));
        }
    }

    /// A ban that a finding asks for is longer each time for whoever was banned before.
    fn lengthened(&self, action: Action) -> Action {
        match action {
            Action::Ban { who, ports, reject, seconds } => {
                Action::Ban { who, ports, reject, seconds: self.bans.length(who, seconds) }
            }
            other => other,
        }
    }

    /// Writes down, does, writes down.
    fn carry_out(&mut self, mut record: ActionRecord) -> ActionRecord {
        if matches!(record.action, Action::Ban { .. }) {
            return self.carry_out_ban(record);
        }
        let prepared = match self.responder.prepare(&record.action) {
            Ok(prepared) => prepared,
            Err(refusal) => {
                record.state = ActionState::Refused;
                record.note = said(&record, refusal.to_string());
                self.write(&mut record);
                return record;
            }
        };
        prepared.undo().clone_into(&mut record.undo);
        self.write(&mut record);
        settle(&mut record, self.responder.carry_out(&prepared));
        tracing::info!("{}: {:?}, {}", fingerprint(&record.action), record.state, record.note);
        self.change(&record);
        if davy_respond::expiry::ends(&record).is_some() {
            self.timed.push(record.clone());
        }
        record
    }

    fn note(&self, case: &Case, action: Action, state: ActionState, why: &str) {
        let mut record = record(case.incident, Some(case.finding.id), action, state, why);
        self.write(&mut record);
    }

    fn act(&mut self, incident: IncidentId, actions: &[ActionKind]) -> Result<String, String> {
        let cases = self.cases.get(&incident).cloned().unwrap_or_default();
        if cases.is_empty() {
            return Err(format!("nothing is proposed for incident {} any more", incident.0));
        }
        self.block.set_reach(Reach::Host);
        let policy = lock(&self.shared.rulebook).policy();
        let mut lines = Vec::new();
        let mut done = false;
        let mut seen = BTreeSet::new();
        for case in &cases {
            for proposal in in_order(&case.proposals, actions) {
                let section = Policy::section_of(case.finding.kind);
                let action = timed(proposal.action.clone(), &policy, section);
                if seen.insert(fingerprint(&action)) {
                    let record = self.carry_out(intended(case, action, "by order of an administrator"));
                    done |= record.state == ActionState::Done;
                    lines.push(format!("{}: {}", fingerprint(&record.action), outcome_words(&record)));
                }
            }
        }
        match (done, lines.is_empty()) {
            (_, true) => Err(format!("none of these actions is proposed for incident {}", incident.0)),
            (true, false) => Ok(lines.join("\n")),
            (false, false) => Err(lines.join("\n")),
        }
    }

    /// Takes a file away that is no incident's. The responder's failsafes hold as for any other.
    fn quarantine(&mut self, path: String, file: FileId, reason: &str) -> Result<String, String> {
        let action = Action::Quarantine { path, file, process: None };
        let why = format!("by order of an administrator: {reason}");
        let record = self.carry_out(record(None, None, action, ActionState::Intended, &why));
        let words = format!("action {}: {}", record.id.0, outcome_words(&record));
        if record.state == ActionState::Done { Ok(words) } else { Err(words) }
    }

    fn undo(&mut self, mut records: Vec<ActionRecord>) -> Result<String, String> {
        records.retain(|r| r.state == ActionState::Done);
        if records.is_empty() {
            return Err("there is nothing to undo: nothing was done, or it is undone already".to_owned());
        }
        // Backwards: a file must lie in its place again before what runs it goes on.
        records.sort_by_key(|r| std::cmp::Reverse(r.id));
        let mut lines = Vec::new();
        let mut undone = 0_u32;
        let mut failed = false;
        for mut record in records {
            if !record.undoable {
                lines.push(format!("{}: cannot be undone: {}", fingerprint(&record.action), record.note));
                continue;
            }
            if matches!(record.action, Action::ClosePorts { .. } | Action::Ban { .. }) {
                let outcome = if matches!(record.action, Action::Ban { .. }) {
                    self.undo_ban(&record)
                } else {
                    self.undo_ports(&record)
                };
                undone += u32::from(outcome.is_ok());
                failed |= outcome.is_err();
                let words = outcome.unwrap_or_else(|why| why);
                lines.push(format!("{}: {words}", fingerprint(&record.action)));
                continue;
            }
            let outcome = self.responder.undo(&record);
            failed |= outcome.state != ActionState::Undone;
            if outcome.state == ActionState::Undone {
                undone += 1;
                if !record.is_canary() {
                    self.leave_alone(&record.action);
                }
            }
            record.changed = clock::now();
            record.state =
                if outcome.state == ActionState::Undone { ActionState::Undone } else { record.state };
            record.note = said(&record, outcome.note);
            record.undoable = outcome.undoable && record.state != ActionState::Undone;
            lines.push(format!("{}: {}", fingerprint(&record.action), outcome_words(&record)));
            self.timed.retain(|t| t.id != record.id);
            self.change(&record);
        }
        if failed || undone == 0 { Err(lines.join("\n")) } else { Ok(lines.join("\n")) }
    }

    /// Lets go of the canary of an agent that died. It ends by itself then, because nobody asks it any more.
    fn release(&self, mut record: ActionRecord) {
        if matches!(record.state, ActionState::Intended | ActionState::Done) {
            let outcome = self.responder.undo(&record);
            record.note = said(&record, outcome.note);
            record.changed = clock::now();
            record.state = ActionState::Undone;
            record.undoable = false;
            self.change(&record);
        }
    }

    /// A cut whose time ran out is no answer any more: whoever still lives and dials the same pool is cut off again.
    fn decide_anew(&mut self, over: &ActionRecord) {
        if !matches!(over.action, Action::Cut { .. }) {
            return;
        }
        let print = fingerprint(&over.action);
        self.decided.retain(|(_, decided, enforce)| *decided != print || !enforce);
    }

    /// Remembers what was undone. A destination is left out: another miner may dial it tomorrow.
    fn leave_alone(&mut self, action: &Action) {
        if !matches!(action, Action::Cut { .. } | Action::Isolate { .. } | Action::Ban { .. } | Action::Alert)
        {
            self.let_be.insert(fingerprint(action));
            if self.let_be.len() > MAX_CASES {
                self.let_be.pop_first();
            }
        }
    }

    /// Ends those of the records whose time is over then.
    fn end_those(&mut self, over: impl Fn(&ActionRecord, Option<Timestamp>) -> bool) {
        let (over, running): (Vec<_>, Vec<_>) = std::mem::take(&mut self.timed)
            .into_iter()
            .partition(|record| over(record, davy_respond::expiry::ends(record)));
        self.timed = running;
        for mut record in over {
            let outcome = self.responder.expire(&record);
            settle(&mut record, outcome);
            self.change(&record);
            self.decide_anew(&record);
        }
    }

    /// Ends a cut that is over in the kernel and not yet in the book, or is about to be: whoever dialled in between is told once,
    /// and must not be taken for cut off already.
    fn end_what_ends_now(&mut self, cut: &Action, own: &str) {
        let soon = clock::now().plus_secs(CUT_ENDS);
        self.end_those(|record, end| {
            holds_for(&record.action, cut, own) && end.is_none_or(|end| end <= soon)
        });
    }

    fn expire(&mut self) {
        let now = clock::now();
        self.end_those(|_, end| end.is_none_or(|end| end <= now));
        self.block.follow();
        self.look_after_bans();
        self.tell_isolated();
        // A canary's port is nobody's destination.
        let own =
            self.timed.iter().filter(|r| r.is_canary()).map(|r| fingerprint(&r.action)).collect::<Vec<_>>();
        let mut blocked = self.block.list();
        blocked.retain(|place| !own.contains(&format!("cut {place}")));
        *lock(&self.shared.blocked) = blocked;
    }

    /// What the policy wants to know of a process. The program's content is read only when the policy names any, because
    /// reading a large file takes time that a miner would have.
    fn subject(&mut self, process: Option<&ProcessInfo>, policy: &Policy) -> Subject {
        let Some(process) = process else { return Subject::default() };
        let wants_content = policy.mining.allow.iter().any(|a| matches!(a.by, AllowedBy::Content(_)));
        Subject {
            path: process.image.path.clone(),
            sha256: wants_content.then(|| content_of(process)).flatten(),
            user: Some(self.users.name_or_number(process.creds.uid)),
            cgroup: process.cgroup.clone(),
            service: None,
        }
    }

    fn remember(&mut self, case: &Case) {
        let Some(incident) = case.incident else { return };
        if !self.cases.contains_key(&incident) {
            self.order.push_back(incident);
            if self.order.len() > MAX_CASES
                && let Some(old) = self.order.pop_front()
                && let Some(cases) = self.cases.remove(&old)
            {
                // What was decided for a forgotten incident is forgotten with it, so that the set stays bounded.
                let gone: BTreeSet<FindingId> = cases.iter().map(|c| c.finding.id).collect();
                self.decided.retain(|(finding, ..)| !gone.contains(finding));
            }
        }
        let cases = self.cases.entry(incident).or_default();
        cases.retain(|c| c.finding.id != case.finding.id);
        cases.push(case.clone());
    }

    /// Writes a new line of the journal and tells the engine.
    fn write(&self, record: &mut ActionRecord) {
        match self.runtime.block_on(self.store.record(record)) {
            Ok(id) => record.id = id,
            // Protection goes on without its journal rather than not at all; the store counts and shows the loss.
            Err(e) => tracing::error!("the journal could not be written: {e}"),
        }
        self.intake.must(Input::Acted(Box::new(record.clone())));
    }

    /// Writes down what became of an action and tells the engine.
    fn change(&self, record: &ActionRecord) {
        if let Err(e) = self.runtime.block_on(self.store.change(record)) {
            tracing::error!("the journal could not be written: {e}");
        }
        self.intake.must(Input::Acted(Box::new(record.clone())));
    }
}

fn intended(case: &Case, action: Action, why: &str) -> ActionRecord {
    record(case.incident, Some(case.finding.id), action, ActionState::Intended, why)
}

/// A rehearsal shows what is done in its own cgroup, so that all of it is cut off, and nobody else.
fn within_rehearsal(action: Action, under: &Circumstances) -> Action {
    match (action, &under.rehearsal) {
        (Action::Cut { destination, seconds, .. }, Some(cgroup)) => {
            Action::Cut { destination, cgroup: Some(cgroup.clone()), seconds }
        }
        (action, _) => action,
    }
}

/// Whose flows the policy lets cut.
fn reach(policy: &Policy) -> Reach {
    match policy.scope.cgroups.as_slice() {
        [] => Reach::Host,
        cgroups => Reach::Cgroups(cgroups.to_vec()),
    }
}

/// The digest of the program a process runs, read through the process itself, so that a file without a name counts too.
/// One that is longer than what is read has none: no list can name it, and everybody else's case waits behind this one.
fn content_of(process: &ProcessInfo) -> Option<Digest> {
    let program = opening::regular(&format!("/proc/{}/exe", process.key.pid)).ok()?;
    // The pid may have changed hands before the open; after it, the file stays the same.
    (davy_proc::key(process.key.pid)? == process.key).then_some(())?;
    let mut hash = Sha256::new();
    // It may grow while it is read.
    std::io::copy(&mut program.take(opening::LONGEST), &mut hash).ok()?;
    Some(Digest(hash.finalize().into()))
}
