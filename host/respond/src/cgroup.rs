//! A cgroup v2 that a tree has for itself can be frozen and killed as a whole, without a race.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::process;

/// Folders looked at below one cgroup before it is called too large to be a tree's own.
const MAX_FOLDERS: usize = 1_024;

/// A cgroup v2 that is not the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// Its path below the mount, such as `/system.slice/cron.service`.
    pub(crate) path: String,
    folder: PathBuf,
}

impl Cgroup {
    /// The cgroup of this path; `None` for the root and for paths that lead elsewhere.
    pub(crate) fn at(mount: &Path, path: &str) -> Option<Self> {
        let below = path.strip_prefix('/')?;
        let plain = !below.is_empty() && below.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let folder = mount.join(below);
        (plain && folder.join("cgroup.freeze").exists()).then(|| Self { path: path.into(), folder })
    }

    /// The cgroup that holds all these processes and nobody else. `own` says who belongs.
    pub(crate) fn alone(mount: &Path, pids: &HashSet<u32>) -> Option<Self> {
        let mut paths: Vec<String> = pids.iter().filter_map(|&pid| process::cgroup(pid)).collect();
        paths.sort();
        // Sorted, the first is the highest if one of them holds all others.
        let cgroup = Self::at(mount, paths.first()?)?;
        let below = format!("{}/", cgroup.path);
        let together = paths.iter().all(|path| *path == cgroup.path || path.starts_with(&below));
        let inhabitants = cgroup.inhabitants()?;
        (together && inhabitants.is_subset(pids)).then_some(cgroup)
    }

    fn inhabitants(&self) -> Option<HashSet<u32>> {
        let mut pids = HashSet::new();
        let mut open = vec![self.folder.clone()];
        let mut seen = 0;
        while let Some(folder) = open.pop() {
            seen += 1;
            if seen > MAX_FOLDERS {
                return None;
            }
            let text = fs::read_to_string(folder.join("cgroup.procs")).ok()?;
            for line in text.lines() {
                match line.parse() {
                    // Zero stands for a process of another pid namespace: somebody else.
                    Ok(0) | Err(_) => return None,
                    Ok(pid) => drop(pids.insert(pid)),
                }
            }
            let entries = fs::read_dir(&folder).ok()?.flatten();
            open.extend(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
        Some(pids)
    }

    /// Whether somebody wants it frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        fs::read_to_string(self.folder.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
    }

    /// Freezes it and waits until it stands still; `false` when it does not within the time.
    pub(crate) fn freeze(&self, within: Duration) -> io::Result<bool> {
        fs::write(self.folder.join("cgroup.freeze"), "1")?;
        let begin = Instant::now();
        loop {
            let events = fs::read_to_string(self.folder.join("cgroup.events"))?;
            if events.lines().any(|line| line == "frozen 1") {
                return Ok(true);
            }
            if begin.elapsed() > within {
                return Ok(false);
            }
            sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn thaw(&self) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.freeze"), "0")
    }

    /// Sends SIGKILL to all in it, also to those that are being forked. Since Linux 5.14.
    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.kill"), "1")
    }
}
