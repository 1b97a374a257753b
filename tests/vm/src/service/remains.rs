use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where a package could leave something.
const PLACES: [&str; 8] = ["/etc", "/usr", "/var", "/opt", "/root", "/home", "/run/davy", "/sys/fs/bpf"];

/// The package manager's own memory, and what the rest of the system writes meanwhile.
const NOT_OURS: [&str; 4] = ["/var/lib/dpkg", "/var/log", "/var/cache/debconf", "/var/lib/systemd/timers"];

/// Every file and folder that is there now.
pub(crate) fn files() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for place in PLACES.iter().map(Path::new).filter(|place| place.exists()) {
        walk(place, &mut found);
    }
    // Only what a package made below it counts.
    found.remove(Path::new("/sys/fs/bpf"));
    found
}

fn walk(path: &Path, found: &mut BTreeSet<PathBuf>) {
    if NOT_OURS.iter().any(|place| path == Path::new(place)) {
        return;
    }
    found.insert(path.to_owned());
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), found);
        }
    }
}
