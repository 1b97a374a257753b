//! Who may reach which port: what the policy says is looked up here, held in the kernel where it is enforced, and told.

mod force;
mod hand;
mod listeners;
mod lists;
mod lockout;
mod moment;
mod thread;
mod view;
mod watch;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use davy_detect::Detector;
use davy_model::{ActionId, Event, EventKind, Mode, ProcessKey, ProtectionStatus, Tier, Timestamp};
use davy_net::inbound::{Listener, Plan};
use davy_policy::Policy;

pub(crate) use force::Happened;
pub use lists::inbound_plan;
pub(crate) use thread::PortsThread;

use crate::shared::{Intake, Shared, lock};
use crate::{Paths, clock};
use force::Force;
use hand::Nftables;
use lists::Lists;
use moment::Moment;
use watch::Watch;

/// The protection's name in the policy.
const PROTECTION: &str = "inbound";

/// The longest trial, and the shortest: who has to look whether a way in still works needs some seconds for it.
pub(crate) const MIN_TRIAL: u32 = 5;
pub(crate) const MAX_TRIAL: u32 = 3600;

/// All that is known of ports. Shared by the engine, the arbiter, the sockets that ask, and a thread of its own.
pub(crate) struct PortsDesk {
    shared: Arc<Shared>,
    lists: Lists,
    /// The network namespace that the agent is in; zero where unknown.
    network: u64,
    force: Mutex<Force>,
    watch: Mutex<Watch>,
    /// What is wrong with what the policy names.
    faults: Mutex<Vec<String>>,
    judged: Mutex<Option<Judged>>,
}

/// By what connections are judged that the kernel lets in, and what that was made of.
struct Judged {
    written: Arc<Plan>,
    heard: Vec<Listener>,
    plan: Arc<Plan>,
}

/// Opens what an agent that is gone left closed, and says whether there was anything. What was confirmed is kept.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn take_away(paths: &Paths) -> Result<bool, String> {
    let file = paths.state.join("ports.json");
    Force::open(Box::new(Nftables::default()), file, true, paths.base.is_none()).take_away()
}

/// Something to be closed, looked up and found to make sense.
pub(crate) struct Ready {
    plan: Plan,
}

impl Ready {
    /// How many entries open something.
    pub(crate) fn entries(&self) -> u32 {
        u32::try_from(self.plan.entries.len()).unwrap_or(u32::MAX)
    }
}

impl PortsDesk {
    /// With what an earlier agent kept. `outlives` says whether what was confirmed holds on when the agent ends.
    pub(crate) fn open(paths: &Paths, shared: Arc<Shared>, outlives: bool) -> Self {
        let network = std::fs::metadata("/proc/self/ns/net").map(|m| std::os::unix::fs::MetadataExt::ino(&m));
        let file = paths.state.join("ports.json");
        let force = Force::open(Box::new(Nftables::default()), file, outlives, paths.base.is_none());
        Self {
            shared,
            lists: Lists::new(paths.config.clone()),
            network: network.unwrap_or(0),
            force: Mutex::new(force),
            watch: Mutex::default(),
            faults: Mutex::default(),
            judged: Mutex::default(),
        }
    }

    /// Takes in an event. Gives what is to be told of it.
    pub(crate) fn see(&self, event: &Event, detector: &Detector) -> Option<Event> {
        let network = |key: Option<ProcessKey>| {
            let of = detector.processes().get(&key?).map(|process| process.program.ns.net);
            of.filter(|network| *network != 0)
        };
        match &event.kind {
            EventKind::FlowOpen(open) if open.accepted => {
                let mut watch = lock(&self.watch);
                // An address of this network tells best: a process may have sockets in other networks than its own. Of whom it
                // is not known that he is elsewhere, it is taken for one, where the addresses are not known yet.
                let here = watch.has(open.local.ip()).then_some(self.network);
                let network = here
                    .or_else(|| network(event.process))
                    .unwrap_or_else(|| if watch.is_own(open.local.ip()) { self.network } else { 0 });
                let told = watch.accepted(event.time, open, network, network != self.network)?;
                Some(Event { time: event.time, process: event.process, kind: EventKind::Inbound(told) })
            }
            EventKind::Flows(flows) if flows.accepted => {
                let network = network(event.process).unwrap_or(self.network);
                lock(&self.watch).counted(event.time, flows, network);
                None
            }
            _ => None,
        }
    }

    /// Looks up what the policy opens, for a trial. Entries that open nothing are refused unless `unused` lets them pass, and what
    /// would lock an administrator out is unless `anyway` does.
    pub(crate) fn prepare(&self, unused: bool, anyway: bool) -> Result<Ready, String> {
        let policy = self.policy();
        if policy.inbound.mode != Mode::Enforce {
            let mode = if policy.inbound.mode == Mode::Off { "off" } else { "observe" };
            return Err(format!(
                "the policy does not enforce [inbound], its mode is {mode}: set mode = \"enforce\", `davy policy reload`, and \
                 apply then"
            ));
        }
        let now = clock::now();
        if lock(&self.shared.standing).holds_back(PROTECTION, now) {
            return Err("Davy is disarmed and closes nothing; `davy disarm --end` ends that".to_owned());
        }
        let mut plan = Plan::clone(&*self.lists.plan(&policy).map_err(|faults| faults.join("\n"))?);
        let all = listeners::gather(self.network);
        plan.hear(&listeners::lasting(&all));
        let idle = plan.unheard(&listeners::ours(&all), now);
        if !unused && !idle.is_empty() {
            return Err(format!(
                "{}\nsuch an entry is a mistake more often than not; if it is meant, `davy ports apply --unused` lets it pass",
                idle.join("\n")
            ));
        }
        if !anyway {
            lockout::refuse(&plan, &davy_respond::administrators_sessions(), now)?;
        }
        Ok(Ready { plan })
    }

    /// Closes what was found to make sense, for a trial of so many seconds. `action` is its number in the journal.
    pub(crate) fn apply(&self, ready: Ready, action: ActionId, seconds: u32) -> Result<(), String> {
        lock(&self.watch).spared = davy_respond::administrators();
        let spared = lock(&self.watch).spared.clone();
        let mut force = lock(&self.force);
        force.spare_from_now(&spared);
        force.apply(action.0, ready.plan, seconds, Moment::now())?;
        drop(force);
        lock(&self.watch).judging = None;
        Ok(())
    }

    /// Keeps what is on trial.
    pub(crate) fn confirm(&self) -> Result<(), String> {
        lock(&self.force).confirm(Moment::now())
    }

    /// Ends a trial before its time: what was confirmed before it holds again, else all is open.
    pub(crate) fn abandon(&self) -> Result<(), String> {
        lock(&self.force).abandon(Moment::now())
    }

    /// Forgets what was confirmed; a trial goes on.
    pub(crate) fn forget(&self) -> Result<(), String> {
        lock(&self.force).forget()
    }

    /// Opens everything. Says whether anything was closed.
    pub(crate) fn release(&self) -> Result<bool, String> {
        lock(&self.force).release()
    }

    /// The action that closed what was confirmed, by this agent or one before it.
    pub(crate) fn confirmed(&self) -> Option<ActionId> {
        lock(&self.force).confirmed_action().map(ActionId)
    }

    /// How the protection stands, for `davy status`; nothing while the policy does not speak of it.
    pub(crate) fn protection(&self, policy: &Policy) -> Option<ProtectionStatus> {
        let force = lock(&self.force);
        if policy.inbound.mode == Mode::Off {
            return None;
        }
        let held = force.is_held();
        let mut note = match (policy.inbound.mode, held, force.is_on_trial()) {
            (Mode::Enforce, true, true) => "ports are closed for a trial by nftables; davy ports confirm keeps them so",
            (Mode::Enforce, true, false) => "every port but those that the policy opens is closed by nftables",
            (Mode::Enforce, false, _) => {
                "nothing is closed: the policy says enforce, which begins with davy ports apply and davy ports confirm"
            }
            _ => "connections that would be refused are told: davy ports, davy events --kind inbound",
        }
        .to_owned();
        for fault in force.faults().iter().chain(lock(&self.faults).iter()) {
            note.push_str("; ");
            note.push_str(fault);
        }
        Some(ProtectionStatus {
            name: PROTECTION.to_owned(),
            mode: if held { Mode::Enforce } else { Mode::Observe },
            tier: Some(if held { Tier::Permission } else { Tier::Poll }),
            proven: None,
            note,
        })
    }

    fn policy(&self) -> Arc<Policy> {
        lock(&self.shared.rulebook).policy()
    }

    /// Whether the policy, and nothing that overrules it, wants ports closed now.
    fn enforces(&self, policy: &Policy, now: Timestamp) -> bool {
        policy.inbound.mode == Mode::Enforce && !lock(&self.shared.standing).holds_back(PROTECTION, now)
    }

    /// Has the kernel hold what is to hold now, and looks who was refused.
    fn tick(&self, spared: &[IpAddr], intake: &Intake) -> Option<Happened> {
        let now = Moment::now();
        let enforce = self.enforces(&self.policy(), now.wall);
        let mut force = lock(&self.force);
        let happened = force.tick(enforce, spared, now);
        let refused = force.refused();
        drop(force);
        let mut watch = lock(&self.watch);
        watch.spared = spared.to_vec();
        let events = watch.refused(now.wall, &refused);
        drop(watch);
        events.into_iter().for_each(|event| intake.event(event));
        happened
    }

    /// Looks anew who listens and what the policy names, for what is observed and for services that moved.
    fn look(&self) {
        lock(&self.watch).own = davy_proc::addresses();
        let policy = self.policy();
        let wanted = policy.inbound.mode != Mode::Off;
        let held = lock(&self.force).is_held();
        if !wanted {
            lock(&self.watch).judging = None;
            *lock(&self.judged) = None;
            lock(&self.faults).clear();
            return;
        }
        let services = policy.inbound.allow.iter().any(|allow| allow.service.is_some());
        let heard =
            if services || held { listeners::lasting(&listeners::gather(self.network)) } else { Vec::new() };
        lock(&self.force).hear(&heard);
        let (judging, faults) = match self.lists.plan(&policy) {
            Ok(written) => ((!held).then(|| self.judge_by(written, heard)), Vec::new()),
            Err(faults) => (None, faults),
        };
        let mut known = lock(&self.faults);
        if !faults.is_empty() && *known != faults {
            faults.iter().for_each(|fault| tracing::error!("[inbound] cannot be judged by: {fault}"));
        }
        *known = faults;
        drop(known);
        lock(&self.watch).judging = judging;
    }

    /// What is written with the ports on which services listen; the same as before while neither changes.
    fn judge_by(&self, written: Arc<Plan>, heard: Vec<Listener>) -> Arc<Plan> {
        let mut judged = lock(&self.judged);
        let same = |judged: &&Judged| Arc::ptr_eq(&judged.written, &written) && judged.heard == heard;
        if let Some(judged) = judged.as_ref().filter(same) {
            return Arc::clone(&judged.plan);
        }
        let mut plan = Plan::clone(&written);
        plan.hear(&heard);
        let plan = Arc::new(plan);
        *judged = Some(Judged { written, heard, plan: Arc::clone(&plan) });
        plan
    }

    /// Whether there is nothing to look after: the policy does not speak of ports, and nothing is closed.
    fn is_idle(&self) -> bool {
        self.policy().inbound.mode == Mode::Off && lock(&self.force).is_idle()
    }

    /// The agent goes.
    pub(crate) fn end(&self, ordered: bool) {
        let now = Moment::now();
        let enforce = self.enforces(&self.policy(), now.wall);
        lock(&self.force).end(ordered, enforce, now);
    }
}
