use std::collections::{HashMap, HashSet};

use davy_model::ProcessKey;

use super::Socket;
use crate::procfs::ProcFs;

/// At most so many sockets' owners are remembered; beyond that, new ones have none.
const MAX_INODES: usize = 262_144;

/// At most so many descriptors of one process are looked at.
const MAX_DESCRIPTORS: usize = 65_536;

/// At most so many owners of one socket are told; a socket inherited by a thousand workers needs no more.
const MAX_OWNERS: usize = 64;

/// Which processes hold which sockets, from `/proc/PID/fd`.
///
/// The walk over all descriptors is the dear part, so it is made only when a socket turns up whose inode is not known
/// yet, or every so many calls, since sockets are inherited and handed on.
#[derive(Debug, Default)]
pub struct Owners {
    known: HashMap<u64, Vec<ProcessKey>>,
    unowned: HashSet<u64>,
    calls: u32,
}

/// After so many calls the walk is made even when nothing is new.
const REFRESH: u32 = 30;

impl Owners {
    /// Nothing known yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills in the owners of sockets. Without root, only sockets of the user's own processes have any.
    pub fn fill(&mut self, proc: &ProcFs, sockets: &mut [Socket]) {
        self.calls = self.calls.wrapping_add(1);
        let unknown = |s: &Socket| {
            s.inode != 0 && !self.known.contains_key(&s.inode) && !self.unowned.contains(&s.inode)
        };
        let due = self.calls.is_multiple_of(REFRESH);
        if due || sockets.iter().any(unknown) {
            let wanted: HashSet<u64> =
                sockets.iter().map(|s| s.inode).filter(|i| *i != 0).take(MAX_INODES).collect();
            self.known = walk(proc, &wanted);
            self.unowned = wanted.into_iter().filter(|inode| !self.known.contains_key(inode)).collect();
        }
        for socket in sockets {
            socket.owners = self.known.get(&socket.inode).cloned().unwrap_or_default();
        }
    }
}

fn walk(proc: &ProcFs, wanted: &HashSet<u64>) -> HashMap<u64, Vec<ProcessKey>> {
    let mut owners: HashMap<u64, Vec<ProcessKey>> = HashMap::with_capacity(wanted.len());
    for pid in proc.pids() {
        let Some(folder) = proc.open(pid) else { continue };
        let mut key = None;
        for fd in folder.numbers("fd", MAX_DESCRIPTORS) {
            let Some(inode) = folder.link(&format!("fd/{fd}")).and_then(|link| socket_inode(&link)) else {
                continue;
            };
            if !wanted.contains(&inode) {
                continue;
            }
            if key.is_none() {
                key = folder.stat().map(|stat| proc.key_of(&stat));
            }
            let Some(key) = key else { break };
            let holders = owners.entry(inode).or_default();
            if holders.len() < MAX_OWNERS && !holders.contains(&key) {
                holders.push(key);
            }
        }
    }
    owners
}

/// The inode in a link such as `socket:[12345]`.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::socket_inode;

    #[test]
    fn only_sockets_have_a_socket_inode() {
        assert_eq!(socket_inode("socket:[12345]"), Some(12345));
        for other in ["pipe:[1]", "/tmp/socket:[1]", "socket:[x]", "socket:[", ""] {
            assert_eq!(socket_inode(other), None);
        }
    }
}
