//! What of an agent is still there when it goes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use davy_kernel::Held;

use crate::Paths;

/// How long the kernel may take to free what was let go.
const PATIENCE: Duration = Duration::from_secs(3);
const REST: Duration = Duration::from_millis(20);

/// What to look for when it is over.
#[derive(Debug)]
pub(crate) struct Remains {
    /// What the agent held while it ran; why it is not known, where it is not.
    held: Result<Held, String>,
    pins: PathBuf,
    cgroup2: Option<PathBuf>,
}

impl Remains {
    /// Of an agent that still runs.
    pub(crate) fn of_running(paths: &Paths, cgroup2: Option<PathBuf>) -> Self {
        let held = Held::by_this_process().map_err(|error| error.to_string()).and_then(|held| {
            let seen = held.left() == held.count();
            seen.then_some(held).ok_or_else(|| "the kernel does not tell what is loaded".to_owned())
        });
        Self { held, pins: pins(paths), cgroup2 }
    }

    /// What is left of it, in words; nothing when nothing is. Waits a moment for what the kernel has yet to free.
    pub(crate) fn look(&self) -> Vec<String> {
        let begin = Instant::now();
        loop {
            let left = self.now();
            if left.is_empty() || self.held.is_err() || begin.elapsed() > PATIENCE {
                return left;
            }
            std::thread::sleep(REST);
        }
    }

    fn now(&self) -> Vec<String> {
        let held = match &self.held {
            Ok(held) => match held.left() {
                0 => None,
                left => Some(format!("{left} programs, tables and links of BPF")),
            },
            Err(why) => Some(format!("programs of BPF, perhaps: {why}")),
        };
        let own = std::process::id();
        let cgroups = self.cgroup2.iter().flat_map(|mount| canaries(mount, own));
        held.into_iter().chain(pinned(&self.pins)).chain(cgroups).collect()
    }
}

/// Where the agents of these folders pin what is to outlive them.
pub(crate) fn pins(paths: &Paths) -> PathBuf {
    let name = paths.base.as_ref().map_or("davy".to_owned(), |base| {
        format!("davy{}", base.display().to_string().replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
    });
    Path::new("/sys/fs/bpf").join(name)
}

/// What an agent before this one left there, which this one did not take over.
fn pinned(folder: &Path) -> Option<String> {
    let any = std::fs::read_dir(folder).ok()?.next().is_some();
    any.then(|| {
        format!(
            "what an earlier `davy agent` enforces, pinned in {} (start it and `davy stop` it to end that)",
            folder.display()
        )
    })
}

/// The cgroups of this agent's own canaries.
fn canaries(mount: &Path, agent: u32) -> Vec<String> {
    let prefix = format!("davy-canary-{agent}-");
    let all = std::fs::read_dir(mount).into_iter().flatten().flatten();
    let own = all.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    own.map(|entry| format!("the cgroup {}", entry.path().display())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_left_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let remains = Remains {
            held: Ok(Held::default()),
            pins: folder.path().join("davy"),
            cgroup2: Some(folder.path().to_owned()),
        };
        std::fs::create_dir(folder.path().join(format!("davy-canary-{own}1-9-1"))).unwrap();
        assert_eq!(remains.now(), [""; 0], "that one is another's");
        std::fs::create_dir(folder.path().join("davy")).unwrap();
        assert_eq!(remains.now(), [""; 0], "nothing is pinned there");
        std::fs::write(folder.path().join("davy/link_a"), "").unwrap();
        std::fs::create_dir(folder.path().join(format!("davy-canary-{own}-9-1"))).unwrap();
        let left = remains.now();
        assert!(left.len() == 2 && left[0].contains("pinned in") && left[1].contains("cgroup"), "{left:?}");
        let unknown = Remains { held: Err("not told".to_owned()), pins: PathBuf::new(), cgroup2: None };
        assert_eq!(unknown.look(), ["programs of BPF, perhaps: not told"]);
    }
}
