//! Who administers this host, and where from: the ways in that must stay open.

use std::{collections::HashMap, fs, net::IpAddr};

use crate::{
    process::{Stat, effective_uid},
    program::Role,
};

/// Groups whose members may become root.
const GROUPS: [&str; 3] = ["sudo", "wheel", "admin"];

/// Whether the process is the shell (or whatever stands in its place) that an administrator was given at login:
/// the leader of a session with a terminal, below sshd or login.
pub(crate) fn is_login_of_administrator(stat: &Stat, all: &HashMap<u32, Stat>) -> bool {
    stat.session == stat.pid
        && stat.tty != 0
        && came_through_a_door(stat, all)
        && effective_uid(stat.pid).is_some_and(is_administrator)
}

fn came_through_a_door(stat: &Stat, all: &HashMap<u32, Stat>) -> bool {
    all.get(&stat.parent).is_some_and(|parent| Role::of(parent.pid, parent.parent) == Some(Role::Door))
}

fn is_administrator(uid: u32) -> bool {
    if uid == 0 {
        return true;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    is_member(uid, &accounts, &groups)
}

fn is_member(uid: u32, accounts: &str, groups: &str) -> bool {
    let account = accounts.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| Some((*fields.first()?, *fields.get(3)?)))?
    });
    let Some((name, primary)) = account else { return false };
    groups.lines().any(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let [group, _, gid, members] = fields[..] else { return false };
        GROUPS.contains(&group) && (gid == primary || members.split(',').any(|member| member == name))
    })
}

/// The addresses from which administrators are logged in now, by the `SSH_CONNECTION` that sshd gave their sessions.
#[must_use]
pub fn administrators() -> Vec<IpAddr> {
    let mut found = addresses(&crate::process::snapshot());
    found.sort_unstable();
    found.dedup();
    found
}

/// The addresses that administrators' living login sessions come from.
pub(crate) fn addresses(all: &HashMap<u32, Stat>) -> Vec<IpAddr> {
    sessions(all).into_iter().map(|(address, _)| address).collect()
}

/// Administrators' login sessions over the network that live now: where each comes from, and at which port of this host.
#[must_use]
pub fn administrators_sessions() -> Vec<(IpAddr, u16)> {
    sessions(&crate::process::snapshot())
}

/// Administrators' living login sessions over the network, by the `SSH_CONNECTION` that sshd gave them: where each comes
/// from, and at which port of this host. Nobody else's count: whoever was let in can write another address there.
pub(crate) fn sessions(all: &HashMap<u32, Stat>) -> Vec<(IpAddr, u16)> {
    let sessions = all.values().filter(|stat| {
        came_through_a_door(stat, all) && effective_uid(stat.pid).is_some_and(is_administrator)
    });
    let mut found: Vec<_> = sessions
        .filter_map(|stat| connection(&fs::read(format!("/proc/{}/environ", stat.pid)).ok()?))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// sshd writes the client's address and port and then the server's.
fn connection(environment: &[u8]) -> Option<(IpAddr, u16)> {
    let value = environment.split(|&b| b == 0).find_map(|entry| entry.strip_prefix(b"SSH_CONNECTION="))?;
    let mut fields = std::str::from_utf8(value).ok()?.split(' ');
    let address = fields.next()?.parse::<IpAddr>().ok()?.to_canonical();
    Some((address, fields.nth(2)?.parse().ok()?))
}

/// The name servers this host asks, by resolv.conf(5).
pub(crate) fn name_servers() -> Vec<IpAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = |line: &str| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok();
    text.lines().filter_map(server).map(|address| address.to_canonical()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n\
        bob:x:1001:27::/home/bob:/bin/sh\neve:x:1002:1002::/home/eve:/bin/sh\nbroken\n";
    const GROUP_LINES: &str = "sudo:x:27:ann,joe\nannexe:x:9:eve\nbroken\n";

    #[test]
    fn members_by_name_and_by_primary_group() {
        let administrators: Vec<u32> = [1000, 1001, 1002, 4242]
            .into_iter()
            .filter(|&uid| is_member(uid, ACCOUNTS, GROUP_LINES))
            .collect();
        assert_eq!(administrators, [1000, 1001]);
    }

    #[test]
    fn where_a_session_comes_from() {
        let environment = b"TERM=xterm\0SSH_CONNECTION=::ffff:203.0.113.9 50022 10.0.0.1 22\0";
        assert_eq!(connection(environment), "203.0.113.9".parse().ok().map(|address| (address, 22)));
        assert_eq!(connection(b"SSH_CONNECTION=203.0.113.9 50022\0"), None);
        assert_eq!(connection(b"SSH_CONNECTION=\0"), None);
        assert_eq!(connection(b""), None);
    }
}
