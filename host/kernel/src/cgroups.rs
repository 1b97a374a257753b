//! Names of cgroups by their ids, and where cgroup v2 is mounted.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::error::{During, Result};

/// Names kept; the cache is emptied when full.
const BOUND: usize = 8192;

/// Where cgroup v2 is mounted, from `/proc/self/mountinfo`: the first mount of its type.
#[must_use]
pub fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The id of a cgroup: the inode of its directory.
///
/// # Errors
/// When the directory cannot be looked at.
pub fn cgroup_id(directory: &Path) -> Result<u64> {
    let stat = rustix::fs::stat(directory).during(|| format!("looking at {}", directory.display()))?;
    Ok(stat.st_ino)
}

pub(crate) fn open(directory: &Path) -> Result<OwnedFd> {
    rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .during(|| format!("opening {}", directory.display()))
}

/// Paths of cgroups by id. A process is asked first, because its answer costs one read; the kernel's tree is
/// walked for the id of a process that has already gone.
pub(crate) struct Cgroups {
    mount: Option<PathBuf>,
    paths: HashMap<u64, String>,
    walked: bool,
}

impl Cgroups {
    pub(crate) fn new(mount: Option<PathBuf>) -> Self {
        Self { mount, paths: HashMap::new(), walked: false }
    }

    /// The path of the cgroup with this id, in which `pid` lives or lived; empty where unknown.
    pub(crate) fn path(&mut self, id: u64, pid: u32) -> String {
        if let Some(path) = self.paths.get(&id) {
            return path.clone();
        }
        let found = self.ask_process(id, pid).or_else(|| self.walk_for(id)).unwrap_or_default();
        if self.paths.len() >= BOUND {
            self.paths.clear();
            self.walked = false;
        }
        // An unknown id is remembered too, so that a flood of short processes in it costs one walk.
        self.paths.insert(id, found.clone());
        found
    }

    /// Forgets names that were not found, so that they are looked for again.
    pub(crate) fn renew(&mut self) {
        self.paths.retain(|_, path| !path.is_empty());
        self.walked = false;
    }

    fn ask_process(&self, id: u64, pid: u32) -> Option<String> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        let directory = self.mount.as_ref()?.join(path.trim_start_matches('/'));
        (cgroup_id(&directory).ok()? == id).then(|| path.to_owned())
    }

    fn walk_for(&mut self, id: u64) -> Option<String> {
        let mount = self.mount.clone()?;
        if self.walked {
            return None;
        }
        self.walked = true;
        let mut open = vec![mount.clone()];
        while let Some(directory) = open.pop() {
            if self.paths.len() >= BOUND {
                break;
            }
            if let (Ok(found), Ok(below)) = (cgroup_id(&directory), directory.strip_prefix(&mount)) {
                self.paths.insert(found, format!("/{}", below.display()));
            }
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            open.extend(
                entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()),
            );
        }
        self.paths.get(&id).cloned()
    }
}

/// The container a cgroup path names: its last component that carries 64 hexadecimal digits (as Docker, containerd,
/// CRI-O and Podman write it), shortened to 12.
pub(crate) fn container(path: &str) -> Option<String> {
    path.rsplit('/').find_map(|part| {
        let stem = part.strip_suffix(".scope").or_else(|| part.strip_suffix(".service")).unwrap_or(part);
        let id = stem.rsplit(['-', ':']).next()?;
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id[..12].to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_named_by_their_runtimes() {
        let id = "3f2a".repeat(16);
        for path in [
            format!("/system.slice/docker-{id}.scope"),
            format!("/docker/{id}"),
            format!("/kubepods/burstable/podX/crio-{id}.scope"),
            format!("/kubepods.slice/cri-containerd:{id}"),
            format!("/machine.slice/libpod-{id}.scope/container"),
        ] {
            assert_eq!(container(&path).as_deref(), Some("3f2a3f2a3f2a"), "{path}");
        }
        assert_eq!(container("/system.slice/ssh.service"), None);
        assert_eq!(container(""), None);
    }
}
