//! What is known of one source.

use std::collections::BTreeSet;

use davy_model::{PacketShape, PortProbeKind, PortSight, ProbeKinds, Timestamp};

use super::base_rate::BaseRate;
use super::shape::{Look, Tally};
use super::weight::{self, Evidence, LEAST_FAILED, NEEDED, Outcome};

/// Visits kept one by one. When full the oldest goes that waits for no answer, and what it weighed stays.
pub(super) const MAX_CONTACTS: usize = 32;

/// Visits that wait for an answer. Beyond it the oldest is taken for one that gets none: who tries so many ports within
/// [`ANSWER_SECS`] is too fast to be waited for, and answers can be late, as they are until this host knows the hardware address
/// that they go to.
const MAX_PENDING: u8 = 24;

/// How long an answer of this host is waited for, in seconds. It sends SYN-ACK and RST at once.
const ANSWER_SECS: f64 = 3.0;

/// Visits of one source that the base rate learns from, so that no single visitor makes it.
const LEARNED_FROM: u8 = 4;

/// Ports listed of those that were found open, and of decoys.
const MAX_LISTED: usize = 16;

/// One visit to one port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contact {
    pub(super) time: Timestamp,
    pub(super) port: u16,
    pub(super) protocol: u8,
    /// Which of this host's addresses.
    pub(super) local: u8,
    pub(super) kind: PortProbeKind,
    pub(super) outcome: Outcome,
    pub(super) look: Look,
}

/// When it became a scan, and by how many visits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) time: Timestamp,
    pub(super) visits: u32,
}

/// One source.
#[derive(Clone, Debug)]
pub(super) struct Track {
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) contacts: Vec<Contact>,
    pub(super) kinds: ProbeKinds,
    /// Ports tried, those no longer kept included.
    pub(super) ports: u32,
    /// Of those, how many failed.
    pub(super) failed: u32,
    pub(super) forbidden: u32,
    pub(super) open: BTreeSet<u16>,
    pub(super) decoys: BTreeSet<u16>,
    /// Probes that the sensor counted.
    pub(super) seen: u32,
    pub(super) tally: Tally,
    pub(super) verdict: Option<Verdict>,
    /// The number of the scan that it was told as, or as part of.
    pub(super) told: Option<u64>,
    evidence: Evidence,
    visits: u32,
    pending: u8,
    visitor: bool,
    proven: bool,
    learned: u8,
}

impl Track {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            first: now,
            last: now,
            contacts: Vec::new(),
            kinds: ProbeKinds::default(),
            ports: 0,
            failed: 0,
            forbidden: 0,
            open: BTreeSet::new(),
            decoys: BTreeSet::new(),
            seen: 0,
            tally: Tally::default(),
            verdict: None,
            told: None,
            evidence: Evidence::new(now),
            visits: 0,
            pending: 0,
            visitor: false,
            proven: false,
            learned: 0,
        }
    }

    /// Bits that speak for a scan.
    pub(super) const fn bits(&self) -> f32 {
        self.evidence.bits()
    }

    /// Takes in a probe; says which visit is waited for no longer because of it.
    pub(super) fn probe(
        &mut self,
        sight: &PortSight,
        local: u8,
        (kind, shape, open): (PortProbeKind, &PacketShape, bool),
        decoy: bool,
        rate: &mut BaseRate,
    ) -> Option<Contact> {
        self.last = self.last.max(sight.time);
        self.seen = self.seen.max(sight.seen);
        let same = |c: &Contact| (c.local, c.port, c.protocol) == (local, sight.port, sight.protocol);
        if self.contacts.iter().any(|c| same(c) && c.kind == kind) {
            return None;
        }
        self.kinds.add(kind);
        self.tally.take(kind, shape);
        if !self.contacts.iter().any(same) {
            self.ports += 1;
        }
        if decoy && self.decoys.len() < MAX_LISTED && self.decoys.insert(sight.port) {
            self.evidence.add(sight.time, weight::DECOY);
        }
        self.forbidden += u32::from(weight::is_forbidden(kind, sight.protocol));
        self.keep(Contact {
            time: sight.time,
            port: sight.port,
            protocol: sight.protocol,
            local,
            kind,
            outcome: Outcome::Pending,
            look: Look::of(shape),
        });
        self.evidence.add(sight.time, weight::bits(kind, sight.protocol, Outcome::Pending, rate.rate()));
        self.visits += 1;
        if open {
            self.settle_at(self.contacts.len() - 1, Outcome::HalfOpen, sight.time, rate);
        }
        let given_up = (self.pending > MAX_PENDING).then(|| {
            let oldest = self.contacts.iter().position(|c| c.outcome == Outcome::Pending).unwrap_or(0);
            self.give_up(oldest, sight.time, rate)
        });
        self.conclude(sight.time);
        given_up
    }

    /// The port took it.
    pub(super) fn opened(&mut self, sight: &PortSight, local: u8, rate: &mut BaseRate) -> Vec<Contact> {
        self.answered(sight, local, rate, |c| match c.kind {
            PortProbeKind::Udp => Some(Outcome::Success),
            _ => (c.outcome == Outcome::Pending).then_some(Outcome::HalfOpen),
        })
    }

    /// The port refused it.
    pub(super) fn refused(&mut self, sight: &PortSight, local: u8, rate: &mut BaseRate) -> Vec<Contact> {
        self.answered(sight, local, rate, |c| (c.outcome != Outcome::Success).then_some(Outcome::Refused))
    }

    /// It completed a handshake.
    pub(super) fn handshake(&mut self, sight: &PortSight, local: u8, rate: &mut BaseRate) -> Vec<Contact> {
        self.last = self.last.max(sight.time);
        let is = |c: &&Contact| {
            (c.local, c.port, c.kind) == (local, sight.port, PortProbeKind::Syn)
                && c.outcome != Outcome::Success
        };
        if !self.contacts.iter().any(|c| is(&c)) {
            if self.contacts.iter().any(|c| (c.local, c.port) == (local, sight.port)) {
                return Vec::new();
            }
            // Its beginning was not told, as it is with visits to what is open.
            self.ports += 1;
            self.kinds.add(PortProbeKind::Syn);
            self.visits += 1;
            self.keep(Contact {
                time: sight.time,
                port: sight.port,
                protocol: sight.protocol,
                local,
                kind: PortProbeKind::Syn,
                outcome: Outcome::Pending,
                look: Look::default(),
            });
        }
        let syn = |c: &Contact| (c.kind == PortProbeKind::Syn).then_some(Outcome::Success);
        let settled = self.answered(sight, local, rate, syn);
        if !self.visitor {
            self.visitor = true;
            // Its visits before this one are those of a visitor too.
            for at in 0..self.contacts.len() {
                self.learn(at, rate);
            }
        }
        settled
    }

    /// Gives what is settled by an answer.
    fn answered(
        &mut self,
        sight: &PortSight,
        local: u8,
        rate: &mut BaseRate,
        becomes: impl Fn(&Contact) -> Option<Outcome>,
    ) -> Vec<Contact> {
        let mut settled = Vec::new();
        for at in 0..self.contacts.len() {
            let contact = &self.contacts[at];
            if (contact.local, contact.port, contact.protocol) == (local, sight.port, sight.protocol)
                && let Some(outcome) = becomes(contact).filter(|outcome| *outcome != contact.outcome)
            {
                self.settle_at(at, outcome, sight.time, rate);
                settled.push(self.contacts[at]);
            }
        }
        self.conclude(sight.time);
        settled
    }

    /// Settles what this host does not answer any more. Says which visits failed by that.
    pub(super) fn wait_no_longer(&mut self, now: Timestamp, rate: &mut BaseRate) -> Vec<Contact> {
        let mut silent = Vec::new();
        if self.pending == 0 {
            return silent;
        }
        for at in 0..self.contacts.len() {
            let contact = &self.contacts[at];
            if contact.outcome == Outcome::Pending && now.secs_since(contact.time) >= ANSWER_SECS {
                silent.push(self.give_up(at, now, rate));
            }
        }
        self.conclude(now);
        silent
    }

    /// Takes a visit for one that gets no answer. An answer that comes none the less puts it right while the visit is kept.
    fn give_up(&mut self, at: usize, now: Timestamp, rate: &mut BaseRate) -> Contact {
        let outcome = match self.contacts[at].kind {
            PortProbeKind::Ack | PortProbeKind::Maimon => Outcome::Unclear,
            _ => Outcome::Silent,
        };
        self.settle_at(at, outcome, now, rate);
        self.contacts[at]
    }

    /// Whether the address is the sender's own: at the time of the failures it completed a handshake, by packets like those
    /// that failed and as far away.
    pub(super) const fn is_proven(&self) -> bool {
        self.proven
    }

    /// The same, from the visits that are kept.
    fn proves_itself(&self) -> bool {
        let failures = || self.contacts.iter().filter(|c| c.outcome.failed() && c.look.is_known());
        let Some(from) = failures().map(|c| c.time).min() else { return false };
        let to = failures().map(|c| c.time).max().unwrap_or(from);
        self.contacts.iter().any(|c| {
            c.outcome == Outcome::Success
                && c.look.is_known()
                && c.time.secs_since(from) >= -ANSWER_SECS
                && to.secs_since(c.time) >= -ANSWER_SECS
                && failures().any(|f| f.kind == PortProbeKind::Syn && f.look == c.look)
        })
    }

    fn keep(&mut self, contact: Contact) {
        if self.contacts.len() >= MAX_CONTACTS {
            let settled = self.contacts.iter().position(|c| c.outcome != Outcome::Pending);
            let gone = self.contacts.remove(settled.unwrap_or(0));
            self.pending -= u8::from(gone.outcome == Outcome::Pending);
        }
        self.pending += u8::from(contact.outcome == Outcome::Pending);
        self.contacts.push(contact);
    }

    fn settle_at(&mut self, at: usize, outcome: Outcome, now: Timestamp, rate: &mut BaseRate) {
        let contact = self.contacts[at];
        if contact.outcome == outcome {
            return;
        }
        let weighs = |outcome| weight::bits(contact.kind, contact.protocol, outcome, rate.rate());
        let change = weighs(outcome) - weighs(contact.outcome);
        self.evidence.add(now, change);
        self.contacts[at].outcome = outcome;
        self.pending -= u8::from(contact.outcome == Outcome::Pending);
        self.count_failed(at, contact.outcome.failed(), outcome.failed());
        let found = matches!(outcome, Outcome::HalfOpen | Outcome::Success) && contact.protocol == 6;
        if found && contact.kind == PortProbeKind::Syn && self.open.len() < MAX_LISTED {
            self.open.insert(contact.port);
        } else if outcome == Outcome::Refused {
            self.open.remove(&contact.port);
        }
        // It stays proven when the handshake is long behind other visits.
        if !self.proven && (outcome == Outcome::Success || (self.visitor && outcome.failed())) {
            self.proven = self.proves_itself();
        }
        self.learn(at, rate);
    }

    /// Counts ports that failed; one that was tried in several ways, once.
    fn count_failed(&mut self, at: usize, before: bool, now: bool) {
        let of = |c: &Contact| (c.local, c.port, c.protocol);
        let own = of(&self.contacts[at]);
        let others = self.contacts.iter().enumerate().filter(|(other, _)| *other != at);
        if others.into_iter().any(|(_, c)| of(c) == own && c.outcome.failed()) {
            return;
        }
        match (before, now) {
            (false, true) => self.failed += 1,
            (true, false) => self.failed = self.failed.saturating_sub(1),
            _ => {}
        }
    }

    fn learn(&mut self, at: usize, rate: &mut BaseRate) {
        let outcome = self.contacts[at].outcome;
        let settled = outcome == Outcome::Success || outcome.failed();
        if self.visitor && settled && self.learned < LEARNED_FROM && self.verdict.is_none() {
            self.learned += 1;
            rate.learn(outcome == Outcome::Success);
        }
    }

    fn conclude(&mut self, now: Timestamp) {
        let plain = self.failed >= LEAST_FAILED;
        let enough = plain || self.forbidden >= 2 || !self.decoys.is_empty();
        // Of a protocol scan nothing need fail: that hardly anybody uses those protocols is what tells.
        let protocols = || {
            let rare = |c: &&Contact| c.kind == PortProbeKind::Protocol;
            self.contacts.iter().filter(rare).count() >= 4
        };
        if self.verdict.is_none() && self.bits() >= NEEDED && (enough || protocols()) {
            self.verdict = Some(Verdict { time: now, visits: self.visits });
        }
    }
}
