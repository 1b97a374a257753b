use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::namespace;
use crate::procfs::ProcFs;

/// At most so many network namespaces are looked into; on a host with more, those of the lowest pids.
pub const MAX_NAMESPACES: usize = 1024;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    /// Its inode; zero where unknown.
    pub inode: u64,
    /// A process that lives in it.
    pub pid: u32,
    /// Whether it is Davy's own.
    pub own: bool,
    /// An open handle, for entering.
    handle: Option<OwnedFd>,
}

impl Namespace {
    /// Runs a closure with the namespace as its network; `None` when it cannot be entered. Entering is done in a
    /// thread that ends with the closure, so that no other code ever runs in a foreign namespace.
    pub(super) fn run<T: Send>(&self, task: impl FnOnce(&Self) -> T + Send) -> Option<T> {
        if self.own {
            return Some(task(self));
        }
        let handle = self.handle.as_ref()?;
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("davy-netns".into()).spawn_scoped(scope, || {
                move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
                    .ok()
                    .map(|()| task(self))
            });
            thread.ok()?.join().ok()?
        })
    }
}

/// Davy's own network namespace.
pub(super) fn own(proc: &ProcFs) -> Namespace {
    let pid = std::process::id();
    let inode = proc.link(pid, "ns/net").and_then(|link| namespace(&link));
    Namespace { inode: inode.unwrap_or(0), pid, own: true, handle: None }
}

/// All network namespaces with a process in them, Davy's own first. Without root it is mostly the own one, since
/// others' links cannot be read.
pub(super) fn all(proc: &ProcFs) -> Vec<Namespace> {
    let own = own(proc);
    let mut seen = HashSet::from([own.inode]);
    let mut found = vec![own];
    for pid in proc.pids() {
        if found.len() >= MAX_NAMESPACES {
            break;
        }
        let Some(inode) = proc.link(pid, "ns/net").and_then(|link| namespace(&link)) else { continue };
        if seen.insert(inode) {
            let handle = proc.open(pid).and_then(|folder| folder.open("ns/net"));
            found.push(Namespace { inode, pid, own: false, handle });
        }
    }
    found
}
