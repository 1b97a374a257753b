//! Where which mode holds now: the policy's, and what overrules it.

use davy_drill::Canary;
use davy_model::{Mode, OutboundMode, OutboundModes, Timestamp};
use davy_policy::Policy;

use super::PROTECTION;
use crate::standing::{Standing, within};

/// What holds at a moment.
pub(super) fn modes(policy: &Policy, standing: &mut Standing, now: Timestamp) -> OutboundModes {
    let chosen = match policy.outbound.mode {
        Mode::Off => return OutboundModes::default(),
        Mode::Observe => OutboundMode::Observe,
        Mode::Enforce if standing.holds_back(PROTECTION, now) => OutboundMode::Observe,
        Mode::Enforce => OutboundMode::Enforce,
    };
    let scope = &policy.scope.cgroups;
    let everywhere = if scope.is_empty() { chosen } else { OutboundMode::Observe };
    let fallen: Vec<String> = standing.places(now).into_iter().collect();
    let fallen: Vec<String> =
        fallen.into_iter().filter(|place| standing.holds_back_in(PROTECTION, place, now)).collect();
    let in_scope = scope.iter().map(|cgroup| {
        let fell_back = fallen.iter().any(|place| within(cgroup, place));
        (cgroup.clone(), if fell_back { OutboundMode::Observe } else { chosen })
    });
    let mut places: Vec<(String, OutboundMode)> = in_scope.collect();
    // What lies within another fallen place is no deeper scope of its own.
    places.extend(fallen.iter().map(|place| (place.clone(), OutboundMode::Observe)));
    // The canary is there to be refused. Drills of other protections talk to pools of their own, which no policy knows.
    let holds_back = standing.holds_back(PROTECTION, now);
    places.extend(standing.rehearsed(now).into_iter().map(|place| {
        let refused = Canary::is_home(&place) && !holds_back;
        (place, if refused { OutboundMode::Enforce } else { OutboundMode::Observe })
    }));
    OutboundModes { everywhere, places }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::standing::Limit;

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const WEB: &str = "/system.slice/web.service";

    fn policy(scope: &str, mode: &str) -> Policy {
        let text = format!("[scope]\ncgroups = [{scope}]\n[outbound]\nmode = \"{mode}\"\n");
        Policy::parse("p.toml", &text).unwrap()
    }

    fn of(modes: &OutboundModes, cgroup: &str) -> OutboundMode {
        let around = modes.places.iter().filter(|(place, _)| within(cgroup, place));
        // Of the same place the last one that is written into the table holds.
        let mut deepest: Option<&(String, OutboundMode)> = None;
        for place in around {
            if deepest.is_none_or(|deepest| place.0.len() >= deepest.0.len()) {
                deepest = Some(place);
            }
        }
        deepest.map_or(modes.everywhere, |(_, mode)| *mode)
    }

    #[test]
    fn outside_of_the_scope_it_only_observes() {
        let found = modes(&policy("\"/system.slice\"", "enforce"), &mut Standing::default(), NOW);
        assert_eq!(
            (of(&found, WEB), of(&found, "/user.slice")),
            (OutboundMode::Enforce, OutboundMode::Observe)
        );
        let host = modes(&policy("", "enforce"), &mut Standing::default(), NOW);
        assert_eq!(of(&host, "/user.slice"), OutboundMode::Enforce);
        let off = modes(&policy("", "off"), &mut Standing::default(), NOW);
        assert_eq!(off, OutboundModes::default());
    }

    #[test]
    fn what_fell_back_and_what_drills_observes_and_the_canary_is_refused() {
        let mut standing = Standing::default();
        let limit = Limit { per_minute: 1, grace_secs: 600.0 };
        let fell = (0..2).filter_map(|_| standing.acted(PROTECTION, WEB, limit, NOW)).count();
        assert_eq!(fell, 1);
        for place in ["/davy-drill-1", "/davy-canary-1"] {
            standing.rehearse(place, NOW.plus_secs(60.0), NOW);
        }
        for scope in ["\"/system.slice\"", "", "\"/system.slice/web.service/worker\""] {
            let found = modes(&policy(scope, "enforce"), &mut standing, NOW);
            assert_eq!(of(&found, &format!("{WEB}/worker")), OutboundMode::Observe, "{scope}");
            assert_eq!(of(&found, "/davy-drill-1/act"), OutboundMode::Observe, "{scope}");
            assert_eq!(of(&found, "/davy-canary-1"), OutboundMode::Enforce, "{scope}");
        }
        let elsewhere = modes(&policy("\"/system.slice\"", "enforce"), &mut standing, NOW);
        assert_eq!(of(&elsewhere, "/system.slice/other.service"), OutboundMode::Enforce);
        standing.disarm(NOW.plus_secs(60.0));
        let disarmed = modes(&policy("", "enforce"), &mut standing, NOW);
        assert_eq!(of(&disarmed, "/system.slice/other.service"), OutboundMode::Observe);
        assert_eq!(of(&disarmed, "/davy-canary-1"), OutboundMode::Observe);
    }
}
