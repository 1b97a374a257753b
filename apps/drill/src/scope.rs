//! The cgroup v2 directory that a drill's act lives in.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

/// How long a cgroup may take to empty after its processes were killed.
const EMPTYING: Duration = Duration::from_secs(3);

/// A cgroup of the drill's own; it goes away with this value, and everything in it too.
#[derive(Debug)]
pub(crate) struct Scope {
    directory: PathBuf,
    path: String,
}

impl Scope {
    /// Makes the cgroup `/NAME` below the cgroup v2 mount.
    ///
    /// # Errors
    /// Without a cgroup v2 mount, or without the right to make one there.
    pub(crate) fn make(name: &str) -> anyhow::Result<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        let (mount, root) = cgroup2_mount(&mountinfo).context("cgroup v2 is not mounted")?;
        let directory = mount.join(name);
        fs::create_dir(&directory).with_context(|| format!("make the cgroup {}", directory.display()))?;
        let path = format!("{}/{name}", root.trim_end_matches('/'));
        Ok(Self { directory, path })
    }

    /// Removes what a drill left that was ended before it could clean up: cgroups named after a pid that is no more.
    pub(crate) fn sweep(prefix: &str) {
        Self::sweep_if(|name| is_orphan(name, prefix));
    }

    /// Removes the cgroups right below the mount whose names are like this, with everything in them.
    pub(crate) fn sweep_if(is_orphan: impl Fn(&str) -> bool) {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let Some((mount, _)) = cgroup2_mount(&mountinfo) else { return };
        for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
            if is_orphan(&entry.file_name().to_string_lossy()) {
                drop(Self { directory: entry.path(), path: String::new() });
            }
        }
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of a cgroup inside it, made when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn part(&self, name: &str) -> anyhow::Result<PathBuf> {
        let part = self.directory.join(name);
        match fs::create_dir(&part) {
            Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(why).with_context(|| format!("make the cgroup {}", part.display()))
            }
            _ => Ok(part),
        }
    }

    /// Its cgroup v2 path.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // Only the drill's own children ever enter it.
        let _ = fs::write(self.directory.join("cgroup.kill"), "1");
        let _ = fs::write(self.directory.join("cgroup.freeze"), "0");
        let until = Instant::now() + EMPTYING;
        while remove(&self.directory).is_err() && self.directory.exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether a name is the prefix and the pid of a process that is no more, with or without more behind it.
pub(crate) fn is_orphan(name: &str, prefix: &str) -> bool {
    let pid = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    pid.is_some_and(|pid| !is_alive(pid))
}

/// Whether a process runs; one that ended and was not reaped does not.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Removes the cgroup and what was made below it, for example by a freezer, deepest first.
fn remove(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

/// Mount point and root of the first cgroup v2 mount in a mountinfo text (proc_pid_mountinfo(5)).
fn cgroup2_mount(mountinfo: &str) -> Option<(PathBuf, String)> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        (right.split(' ').next()? == "cgroup2").then(|| (PathBuf::from(mount), root.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found_among_others() {
        let text = "30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                    31 30 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let found = cgroup2_mount(text);
        assert_eq!(found, Some((PathBuf::from("/sys/fs/cgroup/unified"), "/".to_owned())));
        assert_eq!(cgroup2_mount("31 30 0:27 / /x rw - cgroup cgroup rw,cpu\nnonsense\n"), None);
    }

    #[test]
    fn only_the_dead_leave_orphans() {
        let own = std::process::id();
        assert!(is_orphan("davy-drill-4194399", "davy-drill-"));
        assert!(is_orphan("davy-drill-4194399-pool", "davy-drill-"));
        assert!(!is_orphan(&format!("davy-drill-{own}"), "davy-drill-"));
        assert!(!is_orphan("davy-drill-", "davy-drill-"));
        assert!(!is_orphan("davy-drill-unit-1", "davy-drill-"));
        assert!(!is_orphan("4194399", "davy-drill-"));
    }

    #[test]
    fn a_cgroup_goes_away_with_its_value() {
        let scope = match Scope::make(&format!("davy-drill-unit-{}", std::process::id())) {
            Ok(scope) => scope,
            Err(why) => {
                eprintln!("SKIPPED: a writable cgroup v2 mount: {why:#}");
                return;
            }
        };
        let directory = scope.directory().to_owned();
        assert!(scope.part("below").is_ok_and(|p| p.exists()) && scope.part("below").is_ok());
        drop(scope);
        assert!(!directory.exists());
    }
}
