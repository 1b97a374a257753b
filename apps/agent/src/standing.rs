//! What overrules the policy for a time: break-glass, the fall back after a spike of denials, rehearsals.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use davy_model::Timestamp;
use davy_policy::Circumstances;

/// The most rehearsals at once; a further one is refused.
const MAX_REHEARSALS: usize = 64;

/// The most places in which the acts of one protection are counted apart; what is done in further ones counts for the host.
const MAX_PLACES: usize = 1024;

/// The most places that protections fell back in at once; a further spike makes its protection fall back everywhere.
const MAX_FALLEN: usize = 256;

/// Whoever is in one place must not make a protection fall back everywhere: of the acts that do, one place counts for no
/// more than this part of what is too many.
const SHARES: u32 = 4;

/// The place that everything is in.
const HOST: &str = "/";

/// The overrules in force.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    disarmed_until: Option<Timestamp>,
    /// By protection and place.
    fallen_back: BTreeMap<(String, String), FallenBack>,
    /// When each protection acted within the last minute, by place.
    acts: BTreeMap<String, BTreeMap<String, VecDeque<Timestamp>>>,
    rehearsals: Vec<(String, Timestamp)>,
}

/// Until when, if not until it is armed by hand, and why.
#[derive(Debug)]
struct FallenBack {
    until: Option<Timestamp>,
    why: String,
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
            fallen_back: fallen_back(&self.fallen_back, protection, cgroup).map(|fallen| fallen.why.clone()),
            rehearsal: self.rehearsals.iter().map(|(scope, _)| scope).find(|s| within(cgroup, s)).cloned(),
        }
    }

    /// Whether a protection only observes now on the whole host, whatever the policy says.
    pub(crate) fn holds_back(&mut self, protection: &str, now: Timestamp) -> bool {
        self.holds_back_in(protection, HOST, now)
    }

    /// Whether a protection only observes now in this cgroup, whatever the policy says.
    pub(crate) fn holds_back_in(&mut self, protection: &str, cgroup: &str, now: Timestamp) -> bool {
        self.expire(now);
        self.disarmed_until.is_some() || fallen_back(&self.fallen_back, protection, cgroup).is_some()
    }

    /// The cgroups in which a protection fell back while it holds elsewhere.
    pub(crate) fn places(&mut self, now: Timestamp) -> BTreeSet<String> {
        self.expire(now);
        let places = self.fallen_back.keys().map(|(_, place)| place);
        places.filter(|place| *place != HOST && !place.is_empty()).cloned().collect()
    }

    /// Counts one enforced act in this cgroup. If it was one too many within a minute, the protection only observes from now
    /// on, and what this gives says where, why and how long: in that service, login or container, or on the whole host when
    /// several of them had a part in it. Acts inside a rehearsal are ordered and do not count.
    pub(crate) fn acted(
        &mut self,
        protection: &str,
        cgroup: &str,
        limit: Limit,
        now: Timestamp,
    ) -> Option<String> {
        self.expire(now);
        let Limit { per_minute, grace_secs } = limit;
        let recent = self.acts.entry(protection.to_owned()).or_default();
        recent.retain(|_, times| {
            while times.front().is_some_and(|t| now.secs_since(*t) > 60.0) {
                times.pop_front();
            }
            !times.is_empty()
        });
        let place = place(cgroup);
        let place = if recent.len() < MAX_PLACES || recent.contains_key(place) { place } else { HOST };
        let many = per_minute as usize;
        let times = recent.entry(place.to_owned()).or_default();
        times.push_back(now);
        if times.len() > many + 1 {
            // What is too many is too many.
            times.pop_front();
        }
        let here = times.len();
        let share = (per_minute / SHARES).max(1) as usize;
        let everywhere: usize = recent.values().map(|times| times.len().min(share)).sum();
        if (here <= many && everywhere <= many)
            || fallen_back(&self.fallen_back, protection, cgroup).is_some()
        {
            return None;
        }
        let spread = everywhere > many;
        let place = if spread || self.fallen_back.len() >= MAX_FALLEN { HOST } else { place };
        let (of, there) = match place {
            HOST => (String::new(), ""),
            "" => (" of processes whose cgroup is not known".to_owned(), " there"),
            place => (format!(" in {place}"), " there"),
        };
        let by = if spread { format!(" in {} places", recent.len()) } else { String::new() };
        let end = if grace_secs > 0.0 { format!(", or for {grace_secs:.0} s") } else { String::new() };
        let why = format!(
            "{protection}{of}: more than {per_minute} acts within a minute{by}; it only observes{there} until \
             `davy disarm --end`{end}"
        );
        if place == HOST {
            recent.clear();
            self.fallen_back.retain(|(fallen, _), _| fallen != protection);
        }
        let until = (grace_secs > 0.0).then(|| now.plus_secs(grace_secs));
        let fallen = FallenBack { until, why: why.clone() };
        self.fallen_back.insert((protection.to_owned(), place.to_owned()), fallen);
        Some(why)
    }

    /// Break-glass until `until`.
    pub(crate) fn disarm(&mut self, until: Timestamp) {
        self.disarmed_until = Some(until);
    }

    /// Ends break-glass and every fall back.
    pub(crate) fn arm(&mut self) {
        self.disarmed_until = None;
        self.fallen_back.clear();
        self.acts.clear();
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

    /// The cgroups that are rehearsed in.
    pub(crate) fn rehearsed(&mut self, now: Timestamp) -> Vec<String> {
        self.expire(now);
        self.rehearsals.iter().map(|(scope, _)| scope.clone()).collect()
    }

    /// Until when break-glass holds.
    pub(crate) fn disarmed_until(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.expire(now);
        self.disarmed_until
    }

    /// Which protections fell back and where, with the reason.
    pub(crate) fn fallen_back(&mut self, now: Timestamp) -> Vec<String> {
        self.expire(now);
        self.fallen_back.values().map(|fallen| fallen.why.clone()).collect()
    }

    fn expire(&mut self, now: Timestamp) {
        if self.disarmed_until.is_some_and(|until| until <= now) {
            self.disarmed_until = None;
        }
        self.fallen_back.retain(|_, fallen| fallen.until.is_none_or(|t| t > now));
        self.rehearsals.retain(|(_, until)| *until > now);
    }
}

/// The fall back that holds for a protection in a cgroup.
fn fallen_back<'a>(
    all: &'a BTreeMap<(String, String), FallenBack>,
    protection: &str,
    cgroup: &str,
) -> Option<&'a FallenBack> {
    // Where cgroups are not known, none of them is below another.
    let covers = |place: &str| if place.is_empty() { cgroup.is_empty() } else { within(cgroup, place) };
    all.iter().find(|((fallen, place), _)| fallen == protection && covers(place)).map(|(_, fallen)| fallen)
}

/// The service, login or container that a cgroup belongs to. What one of them makes below itself is no place of its own, and
/// all logins of a user are one, so that nobody can be in many places at will.
fn place(cgroup: &str) -> &str {
    let mut end = 0;
    for part in cgroup.split('/') {
        end += part.len();
        if is_whole(part) {
            return cgroup.get(..end).unwrap_or(cgroup);
        }
        end += 1;
    }
    cgroup
}

/// Whether a cgroup of this name is one service, one user or one container, as systemd and container runtimes name them.
fn is_whole(name: &str) -> bool {
    let is_id = |part: &str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
    name.ends_with(".service")
        || name.ends_with(".scope")
        || (name.starts_with("user-") && name.ends_with(".slice"))
        || name.starts_with("lxc.payload.")
        || name.rsplit('-').next().is_some_and(is_id)
}

/// Whether a cgroup path is the scope or lies below it.
pub(crate) fn within(cgroup: &str, scope: &str) -> bool {
    let scope = scope.trim_end_matches('/');
    cgroup.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const LIMIT: Limit = Limit { per_minute: 3, grace_secs: 600.0 };

    const WEB: &str = "/system.slice/web.service";

    /// Which of these acts were one too many.
    fn spike(standing: &mut Standing, cgroup: &str, acts: u32, now: Timestamp) -> Vec<bool> {
        (0..acts).map(|_| standing.acted("mining", cgroup, LIMIT, now).is_some()).collect()
    }

    #[test]
    fn a_spike_of_denials_falls_back_and_arming_ends_it() {
        let mut standing = Standing::default();
        let mut at = |i: u32| standing.acted("mining", "/", LIMIT, NOW.plus_secs(f64::from(i)));
        let fell: Vec<bool> = (0..5).map(|i| at(i).is_some()).collect();
        assert_eq!(fell, [false, false, false, true, false]);
        let later = NOW.plus_secs(6.0);
        assert!(standing.circumstances("mining", "/", later).fallen_back.is_some());
        assert!(standing.circumstances("mining", WEB, later).fallen_back.is_some());
        assert!(standing.circumstances("fileless", "/", later).fallen_back.is_none());
        assert!(standing.holds_back("mining", later) && !standing.holds_back("fileless", later));
        assert_eq!(standing.fallen_back(NOW.plus_secs(599.0)).len(), 1);
        assert_eq!(standing.fallen_back(NOW.plus_secs(604.0)).len(), 0);
        assert!(spike(&mut standing, "/", 4, NOW).contains(&true));
        standing.arm();
        assert!(standing.circumstances("mining", "/", NOW).fallen_back.is_none());
    }

    #[test]
    fn whoever_is_in_one_place_makes_nothing_fall_back_elsewhere() {
        let mut standing = Standing::default();
        // Cgroups of one's own below a service or a login are no further places.
        let own = |i: u32| match i % 3 {
            0 => "/user.slice/user-1000.slice/session-1.scope",
            1 => "/user.slice/user-1000.slice/session-2.scope",
            _ => "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
        };
        let fell: Vec<_> = (0..1000).filter_map(|i| standing.acted("trust", own(i), LIMIT, NOW)).collect();
        let user = "/user.slice/user-1000.slice";
        assert_eq!(fell.len(), 1, "{fell:?}");
        assert!(fell[0].starts_with("trust in /user.slice/user-1000.slice: more than 3 "), "{fell:?}");
        assert!(standing.holds_back_in("trust", &format!("{user}/session-9.scope"), NOW));
        for elsewhere in ["/", WEB, "/user.slice", "/user.slice/user-10000.slice", ""] {
            assert!(!standing.holds_back_in("trust", elsewhere, NOW), "{elsewhere}");
            assert!(standing.circumstances("trust", elsewhere, NOW).fallen_back.is_none(), "{elsewhere}");
        }
        assert_eq!(standing.places(NOW), BTreeSet::from([user.to_owned()]));
        assert!(standing.places(NOW.plus_secs(601.0)).is_empty());
    }

    #[test]
    fn a_spike_in_several_places_falls_back_everywhere() {
        let mut standing = Standing::default();
        let limit = Limit { per_minute: 30, ..LIMIT };
        let mut acts = |service: u32, acts: u32| {
            let cgroup = format!("/system.slice/s{service}.service");
            (0..acts).find_map(|_| standing.acted("trust", &cgroup, limit, NOW))
        };
        assert_eq!((0..4).find_map(|service| acts(service, 30)), None, "four are not enough");
        let why = acts(4, 3).unwrap();
        assert!(
            why.starts_with("trust: more than 30 acts within a minute in 5 places; it only observes until"),
            "{why}"
        );
        assert!(standing.holds_back("trust", NOW) && standing.holds_back_in("trust", WEB, NOW));
        assert!(standing.places(NOW).is_empty());
    }

    #[test]
    fn where_cgroups_are_not_known_all_of_it_is_one_place() {
        let mut standing = Standing::default();
        assert_eq!(spike(&mut standing, "", 4, NOW), [false, false, false, true]);
        assert!(standing.circumstances("mining", "", NOW).fallen_back.is_some());
        assert!(!standing.holds_back("mining", NOW) && !standing.holds_back_in("mining", WEB, NOW));
        assert!(standing.places(NOW).is_empty(), "nothing can be bound there");
    }

    #[test]
    fn a_service_a_user_and_a_container_are_places_whatever_is_below_them() {
        let id = "0123456789abcdef".repeat(4);
        for (cgroup, whole) in [
            ("/", "/".to_owned()),
            ("", String::new()),
            ("/system.slice/php.service/a/b", "/system.slice/php.service".to_owned()),
            ("/user.slice/user-7.slice/session-1.scope", "/user.slice/user-7.slice".to_owned()),
            ("/machine.slice/machine-a.scope/payload/a.service", "/machine.slice/machine-a.scope".to_owned()),
            ("/lxc.payload.a/system.slice/a.service", "/lxc.payload.a".to_owned()),
            (format!("/docker/{id}/a").as_str(), format!("/docker/{id}")),
            (format!("/libpod_parent/libpod-{id}/a").as_str(), format!("/libpod_parent/libpod-{id}")),
            ("/batch/job-1", "/batch/job-1".to_owned()),
        ] {
            assert_eq!(place(cgroup), whole);
        }
    }

    #[test]
    fn what_is_counted_is_bounded_and_beyond_it_counts_for_the_host() {
        let mut standing = Standing::default();
        let limit = Limit { per_minute: 10_000, ..LIMIT };
        for i in 0..3000 {
            assert!(standing.acted("trust", &format!("/job/{i}"), limit, NOW).is_none());
        }
        assert!(standing.acts["trust"].len() <= MAX_PLACES + 1);
        for _ in 0..20_000 {
            standing.acted("services", "/job/0", limit, NOW);
        }
        assert!(standing.acts["services"]["/job/0"].len() <= 10_001);
        // One place after the other, so that no spike is one of several places.
        let mut standing = Standing::default();
        let limit = Limit { grace_secs: 0.0, ..LIMIT };
        for i in 0..300_u32 {
            let then = NOW.plus_secs(f64::from(i) * 61.0);
            (0..4).for_each(|_| drop(standing.acted("trust", &format!("/job/{i}"), limit, then)));
        }
        assert!(standing.fallen_back.len() <= MAX_FALLEN);
        assert!(standing.holds_back("trust", NOW), "what could not be kept apart holds everywhere");
    }

    #[test]
    fn denials_spread_over_time_are_no_spike() {
        let mut standing = Standing::default();
        let mut at = |i: u32| standing.acted("mining", WEB, LIMIT, NOW.plus_secs(f64::from(i) * 30.0));
        assert!((0..50).all(|i| at(i).is_none()));
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
