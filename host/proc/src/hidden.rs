use std::collections::{HashMap, HashSet};

use davy_model::{Mount, parse_mountinfo};
use rustix::process::{Pid, PidfdFlags, pidfd_open, test_kill_process};

use crate::cgroup::MAX_MOUNTINFO;
use crate::procfs::ProcFs;

/// How a process is hidden.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Concealed {
    /// Something is mounted over its entry in /proc, so that ps(1) and top(1) show that instead.
    Covered {
        /// What was mounted: the file system's type and its folder, such as `tmpfs /`.
        by: String,
    },
    /// It lives and answers to its pid, yet /proc does not list it: the kernel's listing was tampered with.
    Unlisted,
}

/// A process that is hidden.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hiding {
    /// Which.
    pub pid: u32,
    /// How.
    pub how: Concealed,
}

/// Looks for hidden processes, a slice of the pids at a time.
#[derive(Debug)]
pub struct Sweep {
    proc: ProcFs,
    next: u32,
    suspects: HashMap<u32, u8>,
}

/// An unlisted pid must be seen so often before it is reported: a process may be born or reaped between two looks.
const LOOKS: u8 = 2;

/// At most so many suspects are remembered between looks.
const MAX_SUSPECTS: usize = 1024;

impl Sweep {
    /// A sweep over the pids of a view.
    #[must_use]
    pub fn new(proc: &ProcFs) -> Self {
        Self { proc: proc.clone(), next: 1, suspects: HashMap::new() }
    }

    /// Covered processes, and unlisted ones among the next `budget` pids.
    pub fn slice(&mut self, budget: u32) -> Vec<Hiding> {
        let mut found = self.covered();
        let highest = self.highest();
        if self.next > highest {
            self.next = 1;
        }
        let last = self.next.saturating_add(budget.saturating_sub(1)).min(highest);
        if self.is_restricted() {
            return found;
        }
        let before: Vec<u32> = self.suspects.keys().copied().collect();
        let listed: HashSet<u32> = self.proc.pids().into_iter().collect();
        let unlisted: Vec<u32> =
            (self.next..=last).chain(before).filter(|pid| !listed.contains(pid) && lives(*pid)).collect();
        self.next = last.saturating_add(1);
        // What was born since the listing is in a second one.
        let listed: HashSet<u32> =
            if unlisted.is_empty() { listed } else { self.proc.pids().into_iter().collect() };
        let mut suspects = HashMap::new();
        for pid in unlisted {
            if listed.contains(&pid) || !lives(pid) || suspects.len() >= MAX_SUSPECTS {
                continue;
            }
            let looks = self.suspects.get(&pid).copied().unwrap_or(0).saturating_add(1);
            suspects.insert(pid, looks);
        }
        found.extend(
            suspects
                .iter()
                .filter(|(_, looks)| **looks >= LOOKS)
                .map(|(pid, _)| Hiding { pid: *pid, how: Concealed::Unlisted }),
        );
        self.suspects = suspects;
        found.sort_by_key(|hiding| hiding.pid);
        found
    }

    /// All pids at once.
    pub fn whole(&mut self) -> Vec<Hiding> {
        let highest = self.highest();
        self.next = 1;
        self.slice(highest);
        self.slice(0)
    }

    /// Whether /proc does not list others' processes to this user on purpose (`hidepid`, proc(5)).
    fn is_restricted(&self) -> bool {
        let table = self.proc.file("self/mountinfo", MAX_MOUNTINFO).unwrap_or_default();
        let hides = |m: &Mount| {
            m.options
                .split(',')
                .any(|o| o.starts_with("hidepid=") && !matches!(o, "hidepid=0" | "hidepid=off"))
        };
        !rustix::process::geteuid().is_root()
            && parse_mountinfo(&table).iter().any(|m| m.kind == "proc" && hides(m))
    }

    fn highest(&self) -> u32 {
        let text = self.proc.file("sys/kernel/pid_max", 32).unwrap_or_default();
        let limit: Option<u32> = String::from_utf8_lossy(&text).trim().parse().ok();
        limit.map_or(32_768, |n| n.clamp(2, 4_194_304))
    }

    /// Mounts at `/proc/PID` or below, in the mount namespace of Davy and of pid 1.
    fn covered(&self) -> Vec<Hiding> {
        let tables =
            ["self/mountinfo", "1/mountinfo"].map(|t| self.proc.file(t, MAX_MOUNTINFO).unwrap_or_default());
        let mut found: Vec<Hiding> = tables.iter().flat_map(|table| covered_in(table)).collect();
        found.sort_by_key(|hiding| hiding.pid);
        found.dedup_by_key(|hiding| hiding.pid);
        found
    }
}

fn covered_in(table: &[u8]) -> Vec<Hiding> {
    let mounts = parse_mountinfo(table);
    let covered = mounts.into_iter().filter_map(|mount| {
        let pid = mount.point.strip_prefix("/proc/")?.split('/').next()?.parse().ok()?;
        Some(Hiding { pid, how: Concealed::Covered { by: format!("{} {}", mount.kind, mount.root) } })
    });
    covered.collect()
}

/// Whether a process (not a mere thread, which /proc does not list) lives under this pid.
fn lives(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let answers = !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH));
    // Threads answer to kill(2) by their id as well; only a thread-group leader can be opened.
    answers && pidfd_open(pid, PidfdFlags::empty()).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn mounts_over_processes_are_seen() {
        let table = b"22 27 0:21 / /proc rw - proc proc rw\n50 22 254:0 /tmp/.x /proc/4711 rw - ext4 /dev/vda rw\n\
            51 22 0:40 / /proc/17/fd rw - tmpfs none rw\n52 22 0:40 / /proc/sys/fs/binfmt_misc rw - binfmt_misc none rw\n";
        let found = covered_in(table);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Hiding { pid: 4711, how: Concealed::Covered { by: "ext4 /tmp/.x".into() } });
        assert_eq!(found[1].pid, 17);
    }

    #[test]
    fn a_process_that_the_listing_leaves_out_is_found() {
        // A listing without this very process, as a tampered kernel would give it.
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sys/kernel")).unwrap();
        std::fs::write(root.path().join("sys/kernel/pid_max"), "4194304\n").unwrap();
        let own = std::process::id();
        let mut sweep = Sweep::new(&ProcFs::at(root.path()).unwrap());
        sweep.next = own;
        assert!(!sweep.slice(1).iter().any(|h| h.pid == own), "one look is not enough");
        assert!(sweep.slice(1).contains(&Hiding { pid: own, how: Concealed::Unlisted }));
    }

    #[test]
    fn an_honest_host_hides_nothing_unlisted() {
        let mut sweep = Sweep::new(ProcFs::host());
        let found: Vec<_> = (0..3).flat_map(|_| sweep.slice(40_000)).collect();
        assert!(found.iter().all(|h| h.how != Concealed::Unlisted), "{found:?}");
    }
}
