//! Which cgroup a process is in, and through it which container.

use std::collections::HashMap;
use std::path::PathBuf;

use davy_model::{container_of, parse_mountinfo};
use rustix::fs::CWD;

/// At most so many cgroups' ids are remembered; then all are forgotten and asked for again.
const MAX_KNOWN: usize = 8192;

/// At most so many bytes of a mount table are read.
pub(crate) const MAX_MOUNTINFO: usize = 8 * 1024 * 1024;

/// A process's place in the cgroup hierarchies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The path shown for the process.
    pub(crate) path: String,
    /// Whether that path is of the v2 hierarchy, and so has an id.
    pub(crate) unified: bool,
    /// The container, by any hierarchy.
    pub(crate) container: Option<String>,
}

/// Reads `/proc/PID/cgroup` (cgroups(7)).
///
/// On a hybrid host the v2 path is often `/` for everything while v1 paths name the container; hence the container is
/// looked for in all of them, v2 first.
pub(crate) fn membership(text: &str) -> Membership {
    let lines = || {
        text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            Some((parts.next()?, parts.next()?, parts.next()?))
        })
    };
    let unified =
        lines().find(|(id, controllers, _)| *id == "0" && controllers.is_empty()).map(|(_, _, path)| path);
    let systemd =
        || lines().find(|(_, controllers, _)| *controllers == "name=systemd").map(|(_, _, path)| path);
    let longest = || lines().map(|(_, _, path)| path).max_by_key(|path| path.len());
    let path = unified.or_else(systemd).or_else(longest).unwrap_or("");
    let container = container_of(path).or_else(|| lines().find_map(|(_, _, path)| container_of(path)));
    Membership { path: path.to_owned(), unified: unified.is_some(), container }
}

/// The cgroup v2 mount, and the ids of cgroups below it.
#[derive(Debug)]
pub(crate) struct Ids {
    mount: Option<PathBuf>,
    known: HashMap<String, u64>,
}

impl Ids {
    pub(crate) fn new(mountinfo: &[u8]) -> Self {
        Self { mount: mount_point(mountinfo), known: HashMap::new() }
    }

    /// The id of a v2 path: the inode of its folder (since kernel 5.5 on 64 bit); zero where it cannot be seen.
    pub(crate) fn id(&mut self, path: &str) -> u64 {
        if let Some(id) = self.known.get(path) {
            return *id;
        }
        // A path that begins with /.. lies outside of this cgroup namespace and cannot be reached.
        let Some(mount) = self.mount.as_ref().filter(|_| !path.starts_with("/..")) else { return 0 };
        let folder = mount.join(path.trim_start_matches('/'));
        let id = rustix::fs::statat(CWD, folder, rustix::fs::AtFlags::empty()).map_or(0, |s| s.st_ino);
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(path.to_owned(), id);
        id
    }
}

/// Where the v2 hierarchy is mounted whole, also on a hybrid host.
pub(crate) fn mount_point(mountinfo: &[u8]) -> Option<PathBuf> {
    let mounts = parse_mountinfo(mountinfo);
    let unified = || mounts.iter().filter(|m| m.kind == "cgroup2");
    unified().find(|m| m.root == "/").or_else(|| unified().next()).map(|m| PathBuf::from(&m.point))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_unified_path_comes_first() {
        let hybrid = "4:memory:/docker/x\n1:name=systemd:/a\n0::/user.slice\n";
        let found = membership(hybrid);
        assert_eq!((found.path.as_str(), found.unified), ("/user.slice", true));
        let v1 = membership("4:memory:/a/very/long/one\n1:name=systemd:/system.slice/x\n");
        assert_eq!((v1.path.as_str(), v1.unified), ("/system.slice/x", false));
        assert_eq!(membership("4:memory:/long\n2:cpu:/\n").path, "/long");
        assert_eq!(membership(""), Membership::default());
    }

    #[test]
    fn a_container_shows_in_any_hierarchy() {
        let id = "ab".repeat(32);
        let found = membership(&format!("4:memory:/docker/{id}\n0::/\n"));
        assert_eq!(found.container.as_deref(), Some("abababababab"));
    }

    #[test]
    fn the_mount_is_found_on_a_hybrid_host() {
        let table = b"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(table), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point(b""), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9:a-z/=\n.]{0,200}") {
            let _ = membership(&text);
            let _ = mount_point(text.as_bytes());
        }
    }
}
