//! Which mounted file systems are worth a mark.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use davy_model::{Mount, parse_mountinfo};

use crate::watcher::FileSystems;

/// At most so many bytes of a mount table are read.
pub(crate) const MAX_TABLE: u64 = 8 * 1024 * 1024;

/// Types that hold no programs: windows into the kernel, and file systems that cannot be written.
const WINDOWS: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "cramfs",
    "debugfs",
    "devpts",
    "efivarfs",
    "erofs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];

/// Of these, what can hold programs that somebody put there before.
const READ_ONLY: &[&str] = &["cramfs", "erofs", "iso9660", "ramfs", "squashfs"];

/// Types that other machines or user programs write behind the kernel's back, and that may keep an open waiting.
const REMOTE: &[&str] = &["9p", "afs", "ceph", "cifs", "nfs", "nfs4", "smb3", "glusterfs", "lustre"];

/// A mount to mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) device: (u32, u32),
    pub(crate) point: PathBuf,
    pub(crate) kind: String,
}

/// The mount table as it is now.
pub(crate) fn table() -> Vec<Mount> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open("/proc/self/mountinfo").and_then(|f| f.take(MAX_TABLE).read_to_end(&mut bytes));
    read.map_or_else(|_| Vec::new(), |_| parse_mountinfo(&bytes))
}

/// One mount a file system, the root's first; of several mounts of one file system the one that shows most of it.
pub(crate) fn candidates(mounts: &[Mount], wanted: &FileSystems) -> Vec<Candidate> {
    let mut worth: Vec<&Mount> = mounts.iter().filter(|m| is_worth(m) && is_wanted(m, wanted)).collect();
    worth.sort_by_key(|m| (m.point != "/", m.root != "/", m.point.len()));
    let mut seen = HashSet::new();
    let once = worth.into_iter().filter(|m| seen.insert(m.device));
    once.map(|m| Candidate { device: m.device, point: PathBuf::from(&m.point), kind: m.kind.clone() })
        .collect()
}

/// Whether code can lie on it, and opening it waits for nobody; also where nothing can be written.
pub(crate) fn may_hold_code(mount: &Mount) -> bool {
    let kind = mount.kind.as_str();
    (READ_ONLY.contains(&kind) || !WINDOWS.contains(&kind)) && !is_elsewhere(kind)
}

fn is_elsewhere(kind: &str) -> bool {
    REMOTE.contains(&kind) || kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.")
}

fn is_worth(mount: &Mount) -> bool {
    let kind = mount.kind.as_str();
    !WINDOWS.contains(&kind) && !is_elsewhere(kind) && !mount.options.split(',').any(|o| o == "ro")
}

fn is_wanted(mount: &Mount, wanted: &FileSystems) -> bool {
    match wanted {
        FileSystems::Host => true,
        FileSystems::At(points) => points.iter().any(|point| point == Path::new(&mount.point)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 27 0:21 / /proc rw - proc proc rw\n\
        26 24 0:24 / /dev/shm rw - tmpfs tmpfs rw,size=1k\n\
        27 1 254:0 / / rw - ext4 /dev/vda rw\n\
        28 27 254:0 /srv /mnt/bind rw - ext4 /dev/vda rw\n\
        29 27 0:30 / /mnt/nfs rw - nfs4 host:/x rw\n\
        30 27 0:31 / /mnt/fuse rw - fuse.sshfs x rw\n\
        31 27 7:0 / /snap/x ro - squashfs /dev/loop0 ro\n\
        32 27 0:33 /sub /data/sub rw - btrfs /dev/vdb rw\n\
        33 27 0:33 / /data/whole/of/it rw - btrfs /dev/vdb rw\n\
        34 27 7:1 / /cd rw - vfat /dev/x ro\n";

    #[test]
    fn each_local_file_system_is_taken_once() {
        let points = |wanted| -> Vec<String> {
            let found = candidates(&parse_mountinfo(TABLE), wanted);
            found.into_iter().map(|c| c.point.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(points(&FileSystems::Host), ["/", "/dev/shm", "/data/whole/of/it"]);
        assert_eq!(points(&FileSystems::At(vec!["/dev/shm".into()])), ["/dev/shm"]);
        let code: Vec<_> =
            parse_mountinfo(TABLE).into_iter().filter(may_hold_code).map(|m| m.point).collect();
        let all = ["/dev/shm", "/", "/mnt/bind", "/snap/x", "/data/sub", "/data/whole/of/it", "/cd"];
        assert_eq!(code, all, "each mount, because each is asked about by itself");
    }
}
