//! What is told to the kernel, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use davy_drill::Canary;
use davy_kernel::{Attempted, OutboundGate};
use davy_model::{
    Event, EventKind, Mode, OutboundAttempt, OutboundModes, OutboundTables, ProtectionStatus, Timestamp,
    container_of, unit_of,
};
use davy_net::outbound::{Compiled, Host, allows_name, compile};
use davy_policy::Policy;
use davy_proc::Users;
use davy_wire::{OutboundName, OutboundSummary};

use super::modes::modes;
use super::{PROTECTION, resolvers};
use crate::shared::{Shared, lock};
use crate::standing::Limit;

/// What the kernel refused is tried again after so long.
const AGAIN: Duration = Duration::from_secs(5);

/// How often the kernel is asked what it refused or would have, where connections are judged; and how often it is looked whether
/// they are to be, should nobody have said so.
const AWAKE: Duration = Duration::from_millis(200);
const ASLEEP: Duration = Duration::from_secs(60);

/// How often the host's users and name servers are looked at anew.
const LOOK: Duration = Duration::from_secs(5);

/// Names of an address that are told.
const MAX_NAMES: usize = 4;

/// What is known of connections. Shared by its thread and the sockets that ask.
pub(crate) struct OutboundDesk {
    gate: Option<OutboundGate>,
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// What connections are judged by, apart from the rest: whoever asks for it does not wait while the kernel takes it over.
    judged: Mutex<Option<Judged>>,
    /// Whether there is something to look at before its time.
    roused: Mutex<bool>,
    rouse: Condvar,
}

/// What connections are judged by.
#[derive(Clone)]
pub(super) struct Judged {
    /// The policy,
    pub(super) policy: Arc<Policy>,
    /// and what it comes to on this host.
    pub(super) compiled: Arc<Compiled>,
}

#[derive(Default)]
struct State {
    policy: Option<Arc<Policy>>,
    compiled: Arc<Compiled>,
    facts: Facts,
    /// What the kernel was told, where all of it was done.
    held: Option<(OutboundTables, OutboundModes)>,
    /// Whether the kernel holds nothing, also of an agent before this one.
    rests: bool,
    /// What went wrong.
    fault: Option<Fault>,
    looked: Option<Instant>,
    refused: u64,
    would: u64,
}

/// What of the host a policy depends on.
#[derive(Default, PartialEq, Eq)]
struct Facts {
    resolvers: Vec<IpAddr>,
    /// The numbers of the users that it names.
    users: BTreeMap<String, Option<u32>>,
}

impl Facts {
    fn of(policy: &Policy, users: &mut Users) -> Self {
        let named = policy.outbound.allow.iter().filter_map(|allow| allow.user.as_ref());
        let named = named.chain(&policy.failsafe.protect_users);
        let number = |name: &String| (name.clone(), name.parse().ok().or_else(|| users.uid(name)));
        Self { resolvers: resolvers(), users: named.map(number).collect() }
    }
}

/// Something that the kernel did not do.
struct Fault {
    words: String,
    since: Instant,
    /// What it was to do.
    wanted: OutboundModes,
}

impl OutboundDesk {
    /// With the kernel's gate, where there is one.
    pub(crate) fn new(gate: Option<OutboundGate>, shared: Arc<Shared>) -> Self {
        Self {
            gate,
            shared,
            state: Mutex::default(),
            judged: Mutex::default(),
            roused: Mutex::default(),
            rouse: Condvar::new(),
        }
    }

    /// Has the policy looked at now.
    pub(crate) fn rouse(&self) {
        *lock(&self.roused) = true;
        self.rouse.notify_all();
    }

    /// Waits until it is time to look again: where nothing is judged, only a new policy is worth it.
    pub(super) fn wait(&self) {
        let time = if lock(&self.state).rests || self.gate.is_none() { ASLEEP } else { AWAKE };
        let roused = lock(&self.roused);
        let waited = self.rouse.wait_timeout_while(roused, time, |roused| !*roused);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }

    /// Brings the kernel in line with the policy, the host and what overrules it.
    pub(crate) fn follow(&self, users: &mut Users, now: Timestamp) {
        let policy = lock(&self.shared.rulebook).policy();
        let Some(gate) = &self.gate else {
            // Nothing is refused here; what name servers are asked is told all the same.
            self.compile(&mut lock(&self.state), policy, users, now);
            return;
        };
        let wanted = modes(&policy, &mut lock(&self.shared.standing), now);
        let mut state = lock(&self.state);
        // What is disarmed meanwhile is not left waiting.
        let same = |fault: &Fault| fault.since.elapsed() < AGAIN && fault.wanted == wanted;
        if state.is_of(&policy) && state.fault.as_ref().is_some_and(same) {
            return;
        }
        let off = policy.outbound.mode == Mode::Off;
        self.compile(&mut state, policy, users, now);
        let outcome = if off { state.rest(gate) } else { state.tell(gate, &wanted) };
        let known = state.fault.take().map(|fault| fault.words);
        if let Err(error) = outcome {
            let words = format!(
                "who may connect to what is not as the policy says: {error}; what held before holds on, but where the \
                 policy no longer refuses"
            );
            if known.as_ref() != Some(&words) {
                tracing::error!("{words}");
            }
            state.fault = Some(Fault { words, since: Instant::now(), wanted });
        }
    }

    fn compile(&self, state: &mut State, policy: Arc<Policy>, users: &mut Users, now: Timestamp) {
        if policy.outbound.mode == Mode::Off {
            state.policy = Some(policy);
            state.compiled = Arc::default();
            *lock(&self.judged) = None;
            return;
        }
        state.compile(Arc::clone(&policy), users, now);
        *lock(&self.judged) = Some(Judged { policy, compiled: Arc::clone(&state.compiled) });
    }

    /// What no entry allowed since the last call, as events.
    pub(super) fn attempts(&self) -> Vec<Event> {
        let attempts = self.gate.as_ref().map(OutboundGate::attempts).unwrap_or_default();
        if attempts.is_empty() {
            return Vec::new();
        }
        let answered = self.gate.as_ref().map(OutboundGate::answered).unwrap_or_default();
        let line = lock(&self.shared.rulebook).policy().origin.of("outbound.mode");
        let names = |address: IpAddr| {
            let of_it = answered.iter().filter(|answer| answer.address == address);
            let names: BTreeSet<&str> = of_it.map(|answer| answer.name.as_str()).collect();
            names.into_iter().take(MAX_NAMES).map(str::to_owned).collect()
        };
        // The agent's own canary tries what it is told to.
        let others = attempts.into_iter().filter(|attempted| !Canary::is_home(&attempted.cgroup));
        others.map(|attempted| self.told(attempted, &names, &line)).collect()
    }

    fn told(&self, attempted: Attempted, names: &impl Fn(IpAddr) -> Vec<String>, line: &str) -> Event {
        let mut state = lock(&self.state);
        let counted = if attempted.refused { &mut state.refused } else { &mut state.would };
        *counted = counted.saturating_add(attempted.count);
        drop(state);
        if attempted.refused {
            self.count_refusals(&attempted);
        }
        let attempt = OutboundAttempt {
            refused: attempted.refused,
            protocol: attempted.protocol,
            address: attempted.address,
            port: attempted.port,
            names: names(attempted.address),
            unit: unit_of(&attempted.cgroup).unwrap_or_default().to_owned(),
            container: container_of(&attempted.cgroup),
            cgroup: attempted.cgroup,
            uid: attempted.uid,
            comm: attempted.comm,
            count: attempted.count,
            why: format!("no rule of {line} allows it"),
        };
        let kind = EventKind::Outbound(Box::new(attempt));
        Event { time: attempted.time, process: Some(attempted.process), kind }
    }

    /// A spike of refusals is more likely a gap in the policy than an attack: in that service, login or container, or everywhere
    /// when several of them have a part in it, it is then only observed, loudly.
    fn count_refusals(&self, attempted: &Attempted) {
        let failsafe = lock(&self.shared.rulebook).policy().failsafe.clone();
        let limit =
            Limit { per_minute: failsafe.denials_per_minute, grace_secs: failsafe.grace.as_secs_f64() };
        let mut standing = lock(&self.shared.standing);
        if standing.circumstances(PROTECTION, &attempted.cgroup, attempted.time).rehearsal.is_some() {
            return;
        }
        for _ in 0..attempted.count.min(u64::from(limit.per_minute) + 1) {
            if let Some(why) = standing.acted(PROTECTION, &attempted.cgroup, limit, attempted.time) {
                tracing::error!("a spike of refusals: {why}");
            }
        }
    }

    /// What connections are judged by; `None` while the policy has them judged by nothing.
    pub(super) fn judged(&self) -> Option<Judged> {
        lock(&self.judged).clone()
    }

    /// For `davy status`: what the kernel did not do stands where people look first.
    pub(crate) fn complete(&self, protections: &mut [ProtectionStatus]) {
        let state = lock(&self.state);
        let Some(fault) = &state.fault else { return };
        for protection in protections.iter_mut().filter(|protection| protection.name == PROTECTION) {
            protection.note = format!("{}; {}", protection.note, fault.words);
            protection.proven = Some(false);
        }
    }

    /// For `davy outbound status`.
    pub(crate) fn summary(&self) -> OutboundSummary {
        let policy = lock(&self.shared.rulebook).policy();
        let answered = self.gate.as_ref().map(OutboundGate::answered).unwrap_or_default();
        let state = lock(&self.state);
        let tables = &state.compiled.tables;
        let mut faults = state.compiled.notes.clone();
        faults.extend(state.fault.as_ref().map(|fault| fault.words.clone()));
        if self.gate.is_none() && policy.outbound.mode != Mode::Off {
            faults.push(
                "the kernel lets Davy load no cgroup socket programs, so nothing is looked at".to_owned(),
            );
        }
        let names = answered.iter().filter(|answer| allows_name(tables, &answer.name)).map(|answer| {
            let others =
                answered.iter().filter(|other| other.address == answer.address && other.name != answer.name);
            let others: BTreeSet<String> = others.map(|other| other.name.clone()).collect();
            OutboundName {
                name: answer.name.clone(),
                address: answer.address,
                until: answer.until,
                shared_with: others.into_iter().collect(),
            }
        });
        OutboundSummary {
            mode: policy.outbound.mode,
            rules: policy.outbound.allow.len() as u64,
            resolvers: tables.resolvers.clone(),
            names: names.collect(),
            refused: state.refused,
            would: state.would,
            faults,
        }
    }

    /// Takes everything away that the kernel holds.
    pub(crate) fn release(&self) {
        if let Some(gate) = &self.gate
            && let Err(e) = gate.release()
        {
            tracing::error!("the kernel goes on deciding who may connect to what: {e}");
        }
    }
}

impl State {
    fn is_of(&self, policy: &Arc<Policy>) -> bool {
        self.policy.as_ref().is_some_and(|known| Arc::ptr_eq(known, policy))
    }

    fn compile(&mut self, policy: Arc<Policy>, users: &mut Users, now: Timestamp) {
        let ended = self.compiled.next.is_some_and(|next| next <= now);
        let looked = self.looked.is_some_and(|looked| looked.elapsed() < LOOK);
        if self.is_of(&policy) && !ended && looked {
            return;
        }
        self.looked = Some(Instant::now());
        let facts = Facts::of(&policy, users);
        if self.is_of(&policy) && !ended && self.facts == facts {
            return;
        }
        let user = |name: &str| facts.users.get(name).copied().flatten();
        self.compiled = Arc::new(compile(&policy, &Host { user: &user, resolvers: &facts.resolvers }, now));
        self.facts = facts;
        for note in self.compiled.notes.iter().filter(|_| !self.is_of(&policy)) {
            tracing::warn!("{note}");
        }
        self.policy = Some(policy);
    }

    fn tell(&mut self, gate: &OutboundGate, modes: &OutboundModes) -> davy_kernel::Result<()> {
        let tables = &self.compiled.tables;
        if self.held.as_ref().is_some_and(|(held, before)| held == tables && before == modes) {
            return Ok(());
        }
        self.rests = false;
        match self.held.take() {
            Some((held, _)) if held == *tables => gate.set_modes(modes)?,
            _ => gate.apply(tables, modes)?,
        }
        self.held = Some((tables.clone(), modes.clone()));
        Ok(())
    }

    /// Has the kernel decide nothing; what an agent before this one left goes too.
    fn rest(&mut self, gate: &OutboundGate) -> davy_kernel::Result<()> {
        if !self.rests {
            self.held = None;
            gate.release()?;
            self.rests = true;
        }
        Ok(())
    }
}
