//! What is told of connections that no rule allows: one finding for each who tried, with what it tried.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use davy_model::{
    Evidence, Finding, FindingId, FindingKind, OutboundAttempt, OutboundProtocol, ProcessKey, Severity,
    Signal, Technique, Timestamp,
};

/// The most of whom something is remembered; beyond it the one that was silent longest is forgotten.
pub const MAX_SUBJECTS: usize = 1024;

/// Destinations that one finding shows; further ones are counted.
const MAX_DESTINATIONS: usize = 32;

/// A finding that grows is told anew no more often than this, in seconds.
const RENEW_SECS: f64 = 1.0;

/// Whoever was silent for so long, in seconds, and tries again has a finding of its own.
const OVER_SECS: f64 = 3600.0;

/// Who tried, and whether it was refused.
type Subject = (bool, String, u32);

/// Where to.
type Destination = (OutboundProtocol, IpAddr, u16);

/// All that was tried lately.
#[derive(Clone, Debug, Default)]
pub struct Cases {
    cases: BTreeMap<Subject, Case>,
}

#[derive(Clone, Debug)]
struct Case {
    id: FindingId,
    first: Timestamp,
    last: Timestamp,
    /// When it was last told, and whether something came since. Attempts are heard of later than they are made, so that their
    /// times do not tell.
    told: Option<Timestamp>,
    news: bool,
    process: Option<ProcessKey>,
    destinations: BTreeMap<Destination, Seen>,
    /// Attempts on destinations beyond the bound.
    more: u64,
}

#[derive(Clone, Debug)]
struct Seen {
    last: Timestamp,
    count: u64,
    process: Option<ProcessKey>,
    attempt: OutboundAttempt,
}

impl Cases {
    /// Takes in an attempt; `id` gives a number for a finding that has none.
    pub fn see(
        &mut self,
        time: Timestamp,
        process: Option<ProcessKey>,
        attempt: &OutboundAttempt,
        id: impl FnOnce() -> FindingId,
    ) {
        let who = if attempt.unit.is_empty() { &attempt.cgroup } else { &attempt.unit };
        let subject = (attempt.refused, who.clone(), attempt.uid);
        let over = |case: &Case| time.secs_since(case.last) > OVER_SECS;
        if self.cases.get(&subject).is_some_and(over) {
            self.cases.remove(&subject);
        }
        if !self.cases.contains_key(&subject) && self.cases.len() >= MAX_SUBJECTS {
            let silent =
                self.cases.iter().min_by_key(|(_, case)| case.last).map(|(subject, _)| subject.clone());
            silent.map(|subject| self.cases.remove(&subject));
        }
        let case = self.cases.entry(subject).or_insert_with(|| Case {
            id: id(),
            first: time,
            last: time,
            told: None,
            news: true,
            process,
            destinations: BTreeMap::new(),
            more: 0,
        });
        case.last = case.last.max(time);
        case.news = true;
        case.process = process.or(case.process);
        let destination = (attempt.protocol, attempt.address, attempt.port);
        if let Some(seen) = case.destinations.get_mut(&destination) {
            seen.count = seen.count.saturating_add(attempt.count);
            seen.last = time;
            seen.process = process.or(seen.process);
            seen.attempt = attempt.clone();
        } else if case.destinations.len() < MAX_DESTINATIONS {
            let seen = Seen { last: time, count: attempt.count, process, attempt: attempt.clone() };
            case.destinations.insert(destination, seen);
        } else {
            case.more = case.more.saturating_add(attempt.count);
        }
    }

    /// The findings that are new or have grown, and may be told now.
    pub fn due(&mut self, now: Timestamp) -> Vec<Finding> {
        let due = |case: &Case| case.news && case.told.is_none_or(|told| now.secs_since(told) >= RENEW_SECS);
        let cases = self.cases.iter_mut().filter(|(_, case)| due(case));
        cases
            .map(|(subject, case)| {
                (case.told, case.news) = (Some(now), false);
                case.finding(subject, now)
            })
            .collect()
    }
}

impl Case {
    fn finding(&self, (refused, who, uid): &Subject, now: Timestamp) -> Finding {
        let mut seen: Vec<&Seen> = self.destinations.values().collect();
        seen.sort_by_key(|seen| std::cmp::Reverse((seen.last, seen.count)));
        let evidence: Vec<Evidence> = seen.iter().map(|seen| seen.evidence(*refused)).collect();
        let others = self.destinations.len().saturating_sub(1);
        let others = match (others, self.more) {
            (0, 0) => String::new(),
            (1, 0) => " and one other destination".to_owned(),
            (others, 0) => format!(" and {others} other destinations"),
            (others, more) => format!(" and {others} other destinations, and {more} times to still others"),
        };
        let did = if *refused { "was kept from connecting to" } else { "connected to" };
        let (place, why) =
            seen.first().map(|seen| (seen.attempt.place(), seen.attempt.why.clone())).unwrap_or_default();
        let comm = seen.first().map_or("", |seen| seen.attempt.comm.as_str());
        let who = if who.is_empty() { format!("user {uid}") } else { who.clone() };
        Finding {
            id: self.id,
            kind: FindingKind::Outbound,
            first: self.first,
            time: now,
            severity: if *refused { Severity::Medium } else { Severity::Low },
            confidence: 1.0,
            subject: self.process,
            processes: self.process.into_iter().collect(),
            summary: format!("\"{comm}\" of {who} {did} {place}{others}: {why}"),
            evidence,
            techniques: vec![Technique::new("T1071")],
        }
    }
}

impl Seen {
    fn evidence(&self, refused: bool) -> Evidence {
        let did = if refused { "was kept from connecting to" } else { "connected to" };
        let times = if self.count > 1 { format!(", {} times", self.count) } else { String::new() };
        let attempt = &self.attempt;
        Evidence {
            time: self.last,
            signal: Signal::Outbound,
            weight: 0.0,
            text: format!("\"{}\" {did} {}{times}: {}", attempt.comm, attempt.place(), attempt.why),
            numbers: BTreeMap::from([("attempts".to_owned(), self.count as f64)]),
            process: self.process,
            flow: None,
            technique: Some(Technique::new("T1071")),
        }
    }
}

/// Where an attempt went, for people.
trait Place {
    fn place(&self) -> String;
}

impl Place for OutboundAttempt {
    fn place(&self) -> String {
        if self.protocol == OutboundProtocol::Raw {
            return "anywhere, by a socket that is neither TCP nor UDP".to_owned();
        }
        let udp = if self.protocol == OutboundProtocol::Udp { " by UDP" } else { "" };
        let to = SocketAddr::new(self.address, self.port);
        match self.names.as_slice() {
            [] => format!("{to}{udp}"),
            [name] => format!("{to}{udp} ({name})"),
            names => format!("{to}{udp} (an address that {} share)", names.join(", ")),
        }
    }
}
