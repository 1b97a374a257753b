use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// Where cgroup v2 is mounted (on a hybrid host somewhere below v1), if groups can be made there.
pub(crate) fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (places, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| places.split(' ').nth(4).map(PathBuf::from))?
    })?;
    let trial = mount.join(format!("davy-exam-trial-{}", std::process::id()));
    fs::create_dir(&trial).ok()?;
    fs::remove_dir(&trial).ok()?;
    Some(mount)
}

/// A cgroup that holds the processes of one case and no other, so that the marks are given for them alone and
/// nothing of them is left behind.
pub(crate) struct Scope {
    folder: PathBuf,
    name: String,
    seen: BTreeSet<u32>,
}

impl Scope {
    pub(crate) fn create(number: usize) -> Result<Self> {
        let mount = cgroup2().context("no writable cgroup v2 mount")?;
        let name = format!("davy-exam-{}-{number}", std::process::id());
        let folder = mount.join(&name);
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self { folder, name, seen: BTreeSet::new() })
    }

    /// A command that moves into the scope before it becomes `program`.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.folder.join("cgroup.procs"))
            .arg(program);
        command
    }

    /// Looks who is in it now.
    pub(crate) fn look(&mut self) {
        let now = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        self.seen.extend(now.lines().filter_map(|line| line.parse::<u32>().ok()));
    }

    /// Whether a process with this pid was ever seen in it.
    pub(crate) fn had(&self, pid: u32) -> bool {
        self.seen.contains(&pid)
    }

    /// The pids that were ever seen in it.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.seen.iter().copied()
    }

    /// Whether a cgroup path names it.
    pub(crate) fn named_by(&self, path: &str) -> bool {
        path.split('/').any(|part| part == self.name)
    }

    /// CPU time of everything that was ever in it, where the kernel counts it.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        let numbers = fs::read_to_string(self.folder.join("cpu.stat")).ok()?;
        let used = numbers.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        used.parse().ok().map(Duration::from_micros)
    }

    /// Ends everything in it.
    pub(crate) fn empty(&self) {
        for _ in 0..50 {
            // Fails on kernels before 5.14; then the processes are signalled one by one.
            if fs::write(self.folder.join("cgroup.kill"), "1").is_err() {
                self.signal_each();
            }
            let left = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
            if left.trim().is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(40));
        }
    }

    fn signal_each(&self) {
        use rustix::process::{Pid, Signal, kill_process};
        let left = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for pid in left.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            // A process that is gone already is what was wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.empty();
        // A group stays busy for a moment after its last process is gone from the list.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(40));
        }
        eprintln!("{} could not be removed", self.folder.display());
    }
}

/// A child that does not outlive its owner.
pub(crate) struct Held(pub(crate) Child);

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
