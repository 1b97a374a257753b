//! What `davy ports` shows.

use std::collections::BTreeMap;

use davy_model::{Mode, Place, Timestamp, Transport};
use davy_net::inbound::{Entry, Plan, PortKey, PortUse};
use davy_proc::Users;
use davy_wire::{ListeningPort, OpenTo, PortOwner, PortSource, PortsState, PortsView};

use super::PortsDesk;
use super::listeners::{self, Listening};
use super::moment::Moment;
use crate::shared::lock;

/// How many of a port's latest sources are shown.
const LATEST: usize = 10;

impl PortsDesk {
    /// Who listens, who may reach it, and who did. Looks at every socket and every file that the policy names.
    pub(crate) fn view(&self) -> PortsView {
        let moment = Moment::now();
        let now = moment.wall;
        let policy = self.policy();
        let all = listeners::gather(self.network);
        let written = (policy.inbound.mode != Mode::Off).then(|| {
            self.lists.plan(&policy).map(|plan| {
                let mut plan = Plan::clone(&plan);
                plan.hear(&listeners::lasting(&all));
                plan
            })
        });
        let enforce = self.enforces(&policy, now);
        let mut force = lock(&self.force);
        let standing = force.standing();
        let held = force.is_held();
        let in_force = force.plan().filter(|_| held).cloned();
        let state = match (held && standing.armed, force.is_on_trial(), force.is_confirmed()) {
            (true, true, _) => PortsState::Trial,
            (true, false, _) => PortsState::Closed,
            (false, _, true) if !enforce => PortsState::Suspended,
            _ => PortsState::Open,
        };
        let confirm_until = force.trial_until(moment);
        let mut faults = force.faults();
        drop(force);
        let (written, wrong) = match written {
            Some(Ok(plan)) => (Some(plan), Vec::new()),
            Some(Err(faults)) => (None, faults),
            None => (None, Vec::new()),
        };
        faults.extend(wrong);
        if let Some(plan) = &written {
            faults.extend(plan.unheard(&listeners::ours(&all), now));
        }
        let outdated =
            in_force.as_ref().is_some_and(|holds| written.as_ref().is_none_or(|plan| !same(plan, holds)));
        let plan = in_force.as_ref().or(written.as_ref());
        // Whoever counts connections waits for this lock, so what is looked up on disk is not looked up under it.
        let watch = lock(&self.watch);
        let used: BTreeMap<PortKey, PortUse> =
            all.iter().filter_map(|one| Some((one.key, watch.usage.of(one.key)?.clone()))).collect();
        let (uncounted, spared) = (watch.usage.lost(), watch.spared.clone());
        drop(watch);
        // Nobody looks who is logged in while nothing is closed or judged.
        let administrators = if self.is_idle() { davy_respond::administrators() } else { spared };
        let mut users = Users::new();
        // A socket that only asks is shown when somebody came to it, or the policy opens its port.
        let opens = |one: &Listening| {
            plan.is_some_and(|plan| plan.of_port(one.key.transport, one.key.port, now).next().is_some())
        };
        let shown = all.iter().filter(|one| !one.passing || used.contains_key(&one.key) || opens(one));
        let ports = shown.map(|one| row(one, plan, used.get(&one.key), &mut users, now)).collect();
        PortsView {
            mode: policy.inbound.mode,
            state,
            confirm_until,
            entries: plan.map_or(0, |plan| u32::try_from(plan.entries.len()).unwrap_or(u32::MAX)),
            outdated,
            refused_packets: standing.refused,
            administrators,
            faults,
            since: self.shared.started,
            uncounted,
            ports,
        }
    }
}

/// Whether two plans open the same. Where services were heard before, and on which line it stands, does not count.
fn same(one: &Plan, other: &Plan) -> bool {
    let alike = |a: &Entry, b: &Entry| {
        (&a.ports, &a.service, &a.transports, &a.from, &a.said, &a.reason, a.until)
            == (&b.ports, &b.service, &b.transports, &b.from, &b.said, &b.reason, b.until)
    };
    one.entries.len() == other.entries.len()
        && one.entries.iter().zip(&other.entries).all(|(a, b)| alike(a, b))
}

fn row(
    one: &Listening,
    plan: Option<&Plan>,
    used: Option<&PortUse>,
    users: &mut Users,
    now: Timestamp,
) -> ListeningPort {
    let (transport, port): (Transport, u16) = (one.key.transport, one.key.port);
    let open_to = match plan {
        None => OpenTo::Unsaid,
        Some(_) if !one.is_ours() => OpenTo::Exempt,
        Some(plan) => {
            let mut to: Vec<String> =
                plan.of_port(transport, port, now).flat_map(|entry| entry.said.clone()).collect();
            to.sort();
            to.dedup();
            if to.is_empty() { OpenTo::Nobody } else { OpenTo::Some(to) }
        }
    };
    let sources = used.map(PortUse::sources).unwrap_or_default();
    let at = |place: Place| sources.iter().filter(|source| source.place == place).count() as u64;
    ListeningPort {
        transport,
        port,
        addresses: one.addresses.clone(),
        reach: one.reach(),
        apart: one.apart,
        owners: one
            .owners
            .iter()
            .map(|owner| PortOwner {
                pid: owner.pid,
                program: owner.program.clone(),
                user: users.name_or_number(owner.uid),
                service: owner.service.clone(),
                container: owner.container.clone(),
            })
            .collect(),
        more_owners: one.more_owners,
        open_to,
        connections: used.map_or(0, |used| used.connections),
        not_covered: used.map_or(0, |used| used.refused),
        sources: sources.len() as u64,
        inside: at(Place::Inside),
        outside: at(Place::Outside),
        more_sources: used.is_some_and(|used| used.forgotten > 0),
        last: used.and_then(|used| used.last),
        latest: sources
            .iter()
            .take(LATEST)
            .map(|source| PortSource {
                from: source.from,
                place: source.place,
                connections: source.connections,
                last: source.last,
            })
            .collect(),
    }
}
