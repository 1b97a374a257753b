//! What overrules the policy for a time: break-glass, the fall back after a spike of denials, rehearsals.

use std::collections::{BTreeMap, VecDeque};

use davy_model::Timestamp;
use davy_policy::Circumstances;

/// The most rehearsals at once; a further one is refused.
const MAX_REHEARSALS: usize = 64;

/// The overrules in force.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    disarmed_until: Option<Timestamp>,
    fallen_back: BTreeMap<String, (Option<Timestamp>, String)>,
    denials: BTreeMap<String, VecDeque<Timestamp>>,
    rehearsals: Vec<(String, Timestamp)>,
}

/// When acts are a spike, and for how long the protection then observes; no seconds mean until it is armed by hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) per_minute: u32,
    pub(crate) grace_secs: f64,
}

impl Standing {
    /// What holds now besides the policy, for a protection and something in `cgroup`.
    pub(crate) fn circumstances(&mut self, protection: &str, cgroup: &str, now: Timestamp) -> Circumstances {
        self.expire(now);
        Circumstances {
            now,
            disarmed_until: self.disarmed_until,
            fallen_back: self.fallen_back.get(protection).map(|(_, why)| why.clone()),
            rehearsal: self.rehearsals.iter().map(|(scope, _)| scope).find(|s| within(cgroup, s)).cloned(),
        }
    }

    /// Whether a protection only observes now, whatever the policy says.
    pub(crate) fn holds_back(&mut self, protection: &str, now: Timestamp) -> bool {
        self.expire(now);
        self.disarmed_until.is_some() || self.fallen_back.contains_key(protection)
    }

    /// Counts one enforced act and says whether it was one too many within a minute, so that the protection now
    /// only observes. Acts inside a rehearsal are ordered and do not count.
    pub(crate) fn acted(&mut self, protection: &str, limit: Limit, now: Timestamp) -> bool {
        let Limit { per_minute, grace_secs } = limit;
        let recent = self.denials.entry(protection.to_owned()).or_default();
        recent.push_back(now);
        while recent.front().is_some_and(|t| now.secs_since(*t) > 60.0) {
            recent.pop_front();
        }
        let count = recent.len();
        if count <= per_minute as usize || self.fallen_back.contains_key(protection) {
            return false;
        }
        recent.clear();
        let why = format!(
            "{protection}: {count} acts within a minute, more than {per_minute}; it only observes until \
             `davy disarm --end`{}",
            if grace_secs > 0.0 { format!(", or for {grace_secs:.0} s") } else { String::new() }
        );
        let until = (grace_secs > 0.0).then(|| now.plus_secs(grace_secs));
        self.fallen_back.insert(protection.to_owned(), (until, why));
        true
    }

    /// Break-glass until `until`.
    pub(crate) fn disarm(&mut self, until: Timestamp) {
        self.disarmed_until = Some(until);
    }

    /// Ends break-glass and every fall back.
    pub(crate) fn arm(&mut self) {
        self.disarmed_until = None;
        self.fallen_back.clear();
        self.denials.clear();
    }

    /// Enforces inside `cgroup` until `until`. Says whether there was room.
    pub(crate) fn rehearse(&mut self, cgroup: &str, until: Timestamp, now: Timestamp) -> bool {
        self.expire(now);
        self.rehearsals.retain(|(scope, _)| scope != cgroup);
        if until <= now {
            return true;
        }
        if self.rehearsals.len() >= MAX_REHEARSALS {
            return false;
        }
        self.rehearsals.push((cgroup.to_owned(), until));
        true
    }

    /// Until when break-glass holds.
    pub(crate) fn disarmed_until(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.expire(now);
        self.disarmed_until
    }

    /// The protections that fell back, with the reason.
    pub(crate) fn fallen_back(&mut self, now: Timestamp) -> Vec<String> {
        self.expire(now);
        self.fallen_back.values().map(|(_, why)| why.clone()).collect()
    }

    fn expire(&mut self, now: Timestamp) {
        if self.disarmed_until.is_some_and(|until| until <= now) {
            self.disarmed_until = None;
        }
        self.fallen_back.retain(|_, (until, _)| until.is_none_or(|t| t > now));
        self.rehearsals.retain(|(_, until)| *until > now);
    }
}

/// Whether a cgroup path is the scope or lies below it.
pub(crate) fn within(cgroup: &str, scope: &str) -> bool {
    let scope = scope.trim_end_matches('/');
    cgroup.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const LIMIT: Limit = Limit { per_minute: 3, grace_secs: 600.0 };

    #[test]
    fn a_spike_of_denials_falls_back_and_arming_ends_it() {
        let mut standing = Standing::default();
        let fell: Vec<bool> =
            (0..5).map(|i| standing.acted("mining", LIMIT, NOW.plus_secs(f64::from(i)))).collect();
        assert_eq!(fell, [false, false, false, true, false]);
        let later = NOW.plus_secs(6.0);
        assert!(standing.circumstances("mining", "/", later).fallen_back.is_some());
        assert!(standing.circumstances("fileless", "/", later).fallen_back.is_none());
        assert!(standing.holds_back("mining", later) && !standing.holds_back("fileless", later));
        assert_eq!(standing.fallen_back(NOW.plus_secs(599.0)).len(), 1);
        assert_eq!(standing.fallen_back(NOW.plus_secs(604.0)).len(), 0);
        assert!((0..4).any(|_| standing.acted("mining", LIMIT, NOW)));
        standing.arm();
        assert!(standing.circumstances("mining", "/", NOW).fallen_back.is_none());
    }

    #[test]
    fn denials_spread_over_time_are_no_spike() {
        let mut standing = Standing::default();
        assert!((0..50).all(|i| !standing.acted("mining", LIMIT, NOW.plus_secs(f64::from(i) * 30.0))));
    }

    #[test]
    fn break_glass_and_rehearsals_end_by_themselves() {
        let mut standing = Standing::default();
        assert!(standing.rehearse("/drill", NOW.plus_secs(60.0), NOW));
        standing.disarm(NOW.plus_secs(10.0));
        assert!(standing.holds_back("mining", NOW) && !standing.holds_back("mining", NOW.plus_secs(10.0)));
        standing.disarm(NOW.plus_secs(10.0));
        assert!(standing.circumstances("mining", "/drill/a", NOW).disarmed_until.is_some());
        let later = NOW.plus_secs(10.0);
        let inside = standing.circumstances("mining", "/drill/a", later);
        assert_eq!((inside.disarmed_until, inside.rehearsal.as_deref()), (None, Some("/drill")));
        assert_eq!(standing.circumstances("mining", "/drill-2", later).rehearsal, None);
        assert_eq!(standing.circumstances("mining", "/drill", NOW.plus_secs(61.0)).rehearsal, None);
    }

    #[test]
    fn rehearsals_are_bounded() {
        let mut standing = Standing::default();
        let taken =
            (0..100).filter(|i| standing.rehearse(&format!("/d{i}"), NOW.plus_secs(60.0), NOW)).count();
        assert_eq!(taken, MAX_REHEARSALS);
    }
}
