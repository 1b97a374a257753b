//! What a test makes for itself and takes away again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use davy_kernel::{BlockScope, cgroup_id, cgroup2_mount};

/// A cgroup of the test's own.
pub struct OwnCgroup(pub PathBuf);

impl OwnCgroup {
    pub fn make(name: &str) -> Self {
        Self::below(&cgroup2_mount().unwrap(), &format!("davy-test-{name}-{}", std::process::id()))
    }

    pub fn below(parent: &Path, name: &str) -> Self {
        let path = parent.join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn id(&self) -> u64 {
        cgroup_id(&self.0).unwrap()
    }

    pub fn scope(&self) -> BlockScope {
        BlockScope::Cgroup(self.id())
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a cgroup and those below it; whoever was in it may take a moment to be gone.
fn remove(path: &Path) {
    let below = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).for_each(|path| remove(&path));
    let end = Instant::now() + Duration::from_secs(2);
    while std::fs::remove_dir(path).is_err() {
        if Instant::now() > end {
            return eprintln!("{} could not be removed", path.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A BPF file system of the test's own.
pub struct OwnBpfFileSystem(pub tempfile::TempDir);

impl OwnBpfFileSystem {
    pub fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        rustix::mount::mount("bpf", folder.path(), "bpf", rustix::mount::MountFlags::empty(), None).unwrap();
        Self(folder)
    }
}

impl Drop for OwnBpfFileSystem {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}
