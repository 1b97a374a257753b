//! What Davy never touches: pid 1 and the kernel, itself, the system's backbone, and the last way in.

use std::collections::HashMap;

use davy_model::Destination;

use crate::{
    ResponderConfig, administrator,
    process::{self, Stat},
    program::Role,
};

/// The name of the agent's own service; a process in it is Davy's.
const OWN_SERVICE: &str = "davy.service";

/// Why this process must be left alone; `None` when it may be acted on.
pub(crate) fn spares(stat: &Stat, all: &HashMap<u32, Stat>, config: &ResponderConfig) -> Option<String> {
    let own = std::process::id();
    let named = |reason: &str| Some(format!("{} ({}) is {reason}", stat.comm, stat.pid));
    if stat.pid == 1 {
        return named("the first process");
    }
    if stat.kernel_thread || stat.pid == 2 {
        return named("a kernel thread");
    }
    if stat.pid == own {
        return named("Davy itself");
    }
    if ancestors(own, all).contains(&stat.pid) {
        return named("what Davy was started by");
    }
    if config.spare_children && ancestors(stat.pid, all).contains(&own) {
        return named("a part of Davy");
    }
    if is_own_service(stat.pid, own) {
        return named("a part of Davy's service");
    }
    match Role::of(stat.pid, stat.parent) {
        Some(Role::System(name)) => return named(&format!("{name}, which the system cannot do without")),
        Some(Role::PackageManager(name)) => {
            return named(&format!("{name} at work; interrupting it would leave packages half installed"));
        }
        Some(Role::Door) => return named("how people log in"),
        None => {}
    }
    if administrator::is_login_of_administrator(stat, all) {
        return named("an administrator's login session");
    }
    (config.protected)(&stat.key(process::boot()))
}

/// Why this destination must stay reachable; `None` when it may be cut.
pub(crate) fn keeps(destination: &Destination, all: &HashMap<u32, Stat>) -> Option<String> {
    let address = destination.address.to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        return Some(format!("{address} is no host's address"));
    }
    if address.is_loopback() && destination.port == 0 {
        return Some("all of this host's own loopback cannot be cut".into());
    }
    if matches!(destination.port, 0 | 53) && administrator::name_servers().contains(&address) {
        return Some(format!("{address} is the name server that this host asks"));
    }
    if administrator::addresses(all).contains(&address) {
        return Some(format!("an administrator is logged in from {address}"));
    }
    None
}

/// The pids above a process, nearest first.
fn ancestors(pid: u32, all: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut line = Vec::new();
    let mut next = all.get(&pid).map(|stat| stat.parent);
    // A snapshot is not taken at one instant, so that reuse of pids could close a circle in it.
    while let Some(parent) = next.filter(|parent| *parent != 0 && !line.contains(parent)) {
        line.push(parent);
        next = all.get(&parent).map(|stat| stat.parent);
    }
    line
}

fn is_own_service(pid: u32, own: u32) -> bool {
    let (Some(theirs), Some(ours)) = (process::cgroup(pid), process::cgroup(own)) else { return false };
    let Some(end) = ours.find(OWN_SERVICE).map(|at| at + OWN_SERVICE.len()) else { return false };
    let service = &ours[..end];
    theirs == service || theirs.strip_prefix(service).is_some_and(|below| below.starts_with('/'))
}
