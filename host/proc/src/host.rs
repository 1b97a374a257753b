use std::path::{Path, PathBuf};

use davy_model::container_of;
use rustix::fs::CWD;

use crate::cgroup::{MAX_MOUNTINFO, membership, mount_point};
use crate::cpus::in_list;
use crate::procfs::ProcFs;
use crate::status::{kilobytes, parse_status};

/// The inode of the initial pid namespace's link (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// The host's memory in bytes, from `/proc/meminfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryInfo {
    /// All of it.
    pub total: u64,
    /// What a new program could have without swapping.
    pub available: u64,
    /// Explicit huge pages, in bytes over all sizes.
    pub hugetlb: u64,
    /// Explicit huge pages of the default size: how many are reserved.
    pub hugepages_total: u64,
    /// And how many of them are free.
    pub hugepages_free: u64,
}

impl ProcFs {
    /// The host's memory; zeros where it cannot be read.
    #[must_use]
    pub fn meminfo(&self) -> MemoryInfo {
        parse_meminfo(&self.file("meminfo", 64 * 1024).unwrap_or_default())
    }
}

fn parse_meminfo(text: &[u8]) -> MemoryInfo {
    let text = String::from_utf8_lossy(text);
    let mut info = MemoryInfo::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        match name {
            "MemTotal" => info.total = kilobytes(value),
            "MemAvailable" => info.available = kilobytes(value),
            "Hugetlb" => info.hugetlb = kilobytes(value),
            "HugePages_Total" => info.hugepages_total = value.trim().parse().unwrap_or(0),
            "HugePages_Free" => info.hugepages_free = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    info
}

/// What sysfs says of the machine.
#[derive(Clone, Debug)]
pub struct Hardware {
    root: PathBuf,
}

impl Hardware {
    /// This host's, under /sys.
    #[must_use]
    pub fn host() -> Self {
        Self::at(Path::new("/sys"))
    }

    /// Any folder that looks like /sys.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// How many CPUs are online; at least one.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        let listed = self.text("devices/system/cpu/online").map_or(0, |list| in_list(&list));
        if listed > 0 { listed } else { std::thread::available_parallelism().map_or(1, |n| n.get() as u32) }
    }

    /// How many huge pages of every size are reserved.
    #[must_use]
    pub fn hugepages(&self) -> u64 {
        let Ok(sizes) = std::fs::read_dir(self.root.join("kernel/mm/hugepages")) else { return 0 };
        sizes
            .map_while(Result::ok)
            .take(64)
            .filter_map(|size| {
                std::fs::read_to_string(size.path().join("nr_hugepages")).ok()?.trim().parse().ok()
            })
            .fold(0, u64::saturating_add)
    }

    fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }
}

/// What an agent wants to know of its host once, at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// The kernel's release, as `uname -r` gives it.
    pub kernel: String,
    /// The host's name.
    pub hostname: String,
    /// CPUs online.
    pub cpus: u32,
    /// Where cgroup v2 is mounted, also on a hybrid host.
    pub cgroup2: Option<PathBuf>,
    /// Whether cgroup v1 hierarchies are mounted beside it.
    pub hybrid: bool,
    /// In what kind of container Davy itself runs, by what gave it away; `None` outside of any.
    pub container: Option<String>,
    /// Whether the effective user is root.
    pub root: bool,
    /// Davy's own effective capabilities (capabilities(7)).
    pub caps: u64,
    /// The host's memory in bytes.
    pub memory: u64,
    /// The boot's first 32 bits.
    pub boot: u32,
}

impl HostFacts {
    /// Looks at this host.
    #[must_use]
    pub fn gather() -> Self {
        let proc = ProcFs::host();
        let uname = rustix::system::uname();
        let mountinfo = proc.file("self/mountinfo", MAX_MOUNTINFO).unwrap_or_default();
        let mounts = davy_model::parse_mountinfo(&mountinfo);
        let status = proc.file("self/status", 16 * 1024).map(|text| parse_status(&text)).unwrap_or_default();
        Self {
            kernel: uname.release().to_string_lossy().into_owned(),
            hostname: uname.nodename().to_string_lossy().into_owned(),
            cpus: Hardware::host().cpus(),
            cgroup2: mount_point(&mountinfo),
            hybrid: mounts.iter().any(|m| m.kind == "cgroup"),
            container: container(proc),
            root: rustix::process::geteuid().is_root(),
            caps: status.caps,
            memory: proc.meminfo().total,
            boot: proc.boot(),
        }
    }

    /// Whether Davy has a capability, by its number (capabilities(7)).
    #[must_use]
    pub fn can(&self, capability: u32) -> bool {
        self.caps.checked_shr(capability).unwrap_or(0) & 1 == 1
    }
}

/// What says that Davy runs in a container.
fn container(proc: &ProcFs) -> Option<String> {
    let there = |path: &str| rustix::fs::statat(CWD, path, rustix::fs::AtFlags::empty()).is_ok();
    if there("/.dockerenv") {
        return Some("docker".to_owned());
    }
    if there("/run/.containerenv") {
        return Some("podman".to_owned());
    }
    if let Some(id) =
        proc.file("self/cgroup", 64 * 1024).and_then(|c| membership(&String::from_utf8_lossy(&c)).container)
    {
        return Some(id);
    }
    let init = proc.open(1)?;
    let environ = init.file("environ", 64 * 1024).unwrap_or_default();
    if let Some(kind) = environ.split(|b| *b == 0).find_map(|v| v.strip_prefix(b"container=")) {
        return Some(String::from_utf8_lossy(&kind[..kind.len().min(64)]).into_owned());
    }
    if let Some(id) = init.text("cgroup", 64 * 1024).and_then(|c| c.lines().find_map(container_of)) {
        return Some(id);
    }
    let own = init.link("ns/pid").and_then(|link| crate::process::namespace(&link));
    own.filter(|inode| *inode != INITIAL_PID_NAMESPACE).map(|_| "a pid namespace".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_is_read() {
        let info = parse_meminfo(
            b"MemTotal:       1024 kB\nMemAvailable: 12 kB\nHugePages_Total:     168\n\
            HugePages_Free:  4\nHugetlb:  344064 kB\nx\n",
        );
        assert_eq!((info.total, info.available, info.hugetlb), (1 << 20, 12 << 10, 344_064 << 10));
        assert_eq!((info.hugepages_total, info.hugepages_free), (168, 4));
    }

    #[test]
    fn huge_pages_of_all_sizes_are_summed() {
        let root = tempfile::tempdir().unwrap();
        for (size, count) in [("hugepages-2048kB", "1280\n"), ("hugepages-1048576kB", "3\n"), ("odd", "x")] {
            let folder = root.path().join("kernel/mm/hugepages").join(size);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("nr_hugepages"), count).unwrap();
        }
        assert_eq!(Hardware::at(root.path()).hugepages(), 1283);
        assert!(Hardware::at(root.path()).cpus() >= 1);
    }

    #[test]
    fn this_host_has_facts() {
        let facts = HostFacts::gather();
        assert!(!facts.kernel.is_empty() && facts.cpus >= 1 && facts.memory > 0 && facts.boot != 0);
        assert!(!facts.can(64));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse_meminfo(&bytes);
        }
    }
}
