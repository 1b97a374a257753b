//! Who may reach which port: what the policy says is looked up here, held in the kernel where it is enforced, and told.

mod force;
mod listeners;
mod lists;
mod thread;
mod view;
mod watch;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use davy_detect::Detector;
use davy_model::{Event, EventKind, Mode, ProcessKey, ProtectionStatus, Tier, Timestamp};
use davy_net::inbound::Plan;
use davy_policy::Policy;

pub(crate) use force::Happened;
pub use lists::inbound_plan;
pub(crate) use thread::PortsThread;

use crate::shared::{Intake, Shared, lock};
use crate::{Paths, clock};
use force::{Force, Nftables};
use watch::Watch;

/// The protection's name in the policy.
const PROTECTION: &str = "inbound";

/// The longest trial, and the shortest: who has to look whether a way in still works needs some seconds for it.
pub(crate) const MIN_TRIAL: u32 = 5;
pub(crate) const MAX_TRIAL: u32 = 3600;

/// All that is known of ports. Shared by the engine, the arbiter, the sockets that ask, and a thread of its own.
pub(crate) struct PortsDesk {
    shared: Arc<Shared>,
    config: PathBuf,
    /// The network namespace that the agent is in; zero where unknown.
    network: u64,
    force: Mutex<Force>,
    watch: Mutex<Watch>,
    /// What is wrong with what the policy names.
    faults: Mutex<Vec<String>>,
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
        let force = Force::open(Box::new(Nftables::default()), paths.state.join("ports.json"), outlives);
        Self {
            shared,
            config: paths.config.clone(),
            network: network.unwrap_or(0),
            force: Mutex::new(force),
            watch: Mutex::default(),
            faults: Mutex::default(),
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

    /// Looks up what the policy opens, for a trial. Entries that open nothing are refused unless `unused` lets them pass.
    pub(crate) fn prepare(&self, unused: bool) -> Result<Ready, String> {
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
        let mut plan = inbound_plan(&policy, &self.config).map_err(|faults| faults.join("\n"))?;
        let all = listeners::gather(self.network);
        plan.hear(&listeners::lasting(&all));
        let idle = plan.unheard(&listeners::ours(&all), now);
        if !unused && !idle.is_empty() {
            return Err(format!(
                "{}\nsuch an entry is a mistake more often than not; if it is meant, `davy ports apply --unused` lets it pass",
                idle.join("\n")
            ));
        }
        Ok(Ready { plan })
    }

    /// Closes what was found to make sense, for a trial of so many seconds.
    pub(crate) fn apply(&self, ready: Ready, seconds: u32) -> Result<(), String> {
        lock(&self.watch).spared = davy_respond::administrators();
        let spared = lock(&self.watch).spared.clone();
        let mut force = lock(&self.force);
        force.spare_from_now(&spared);
        force.apply(ready.plan, seconds, clock::now())?;
        drop(force);
        lock(&self.watch).judging = None;
        Ok(())
    }

    /// Keeps what is on trial.
    pub(crate) fn confirm(&self) -> Result<(), String> {
        lock(&self.force).confirm(clock::now())
    }

    /// Opens everything. Says whether anything was closed.
    pub(crate) fn release(&self) -> Result<bool, String> {
        lock(&self.force).release()
    }

    /// Whether something was confirmed, by this agent or one before it.
    pub(crate) fn is_confirmed(&self) -> bool {
        lock(&self.force).is_confirmed()
    }

    /// How the protection stands, for `davy status`; nothing while the policy does not speak of it.
    pub(crate) fn protection(&self, policy: &Policy) -> Option<ProtectionStatus> {
        let force = lock(&self.force);
        if policy.inbound.mode == Mode::Off {
            return None;
        }
        let held = force.is_held();
        let mut note = match (policy.inbound.mode, held, force.trial_until().is_some()) {
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
        let now = clock::now();
        let enforce = self.enforces(&self.policy(), now);
        let mut force = lock(&self.force);
        let happened = force.tick(enforce, spared, now);
        let refused = force.refused();
        drop(force);
        let mut watch = lock(&self.watch);
        watch.spared = spared.to_vec();
        let events = watch.refused(now, &refused);
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
            lock(&self.faults).clear();
            return;
        }
        let services = policy.inbound.allow.iter().any(|allow| allow.service.is_some());
        let heard =
            if services || held { listeners::lasting(&listeners::gather(self.network)) } else { Vec::new() };
        lock(&self.force).hear(&heard);
        let (judging, faults) = match inbound_plan(&policy, &self.config) {
            Ok(mut plan) => {
                plan.hear(&heard);
                ((!held).then(|| Arc::new(plan)), Vec::new())
            }
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

    /// The agent goes.
    pub(crate) fn end(&self, ordered: bool) {
        let now = clock::now();
        let enforce = self.enforces(&self.policy(), now);
        lock(&self.force).end(ordered, enforce, now);
    }
}
