//! Which mounts are asked about while a policy enforces: those that the processes in its scope see.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use davy_files::permission::{CodeMount, GateCounts, PermissionGate, code_mounts};

/// Processes of a scope whose mount namespace is looked at in one look.
const MAX_PROCESSES: usize = 65_536;

/// Mount namespaces whose mounts are marked.
const MAX_NAMESPACES: usize = 1024;

/// How often every mark is made again. A mount that took the place, the name and the number of another since the last
/// look is marked then.
const SWEEP: Duration = Duration::from_secs(10);

/// How often every process is looked at where the scope is the whole host.
const WHOLE: Duration = Duration::from_secs(5);

/// Marks that are refused and told; then all are told again.
const MAX_TOLD: usize = 256;

/// Whose mounts are marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Of whoever is in these folders of the cgroup tree, or below.
    In(Vec<PathBuf>),
    /// Of every process.
    Everybody,
}

/// A gate that stands while a policy enforces, and what it asks about.
pub(super) struct Marks {
    gate: PermissionGate,
    whose: Whose,
    marked: BTreeSet<(u64, String)>,
    told: BTreeSet<String>,
    restarts: u64,
    swept: Instant,
    /// When every process was last looked at.
    looked: Option<Instant>,
}

impl Marks {
    /// Marks nothing yet.
    pub(super) fn new(gate: PermissionGate, whose: Whose) -> Self {
        let now = Instant::now();
        Self {
            gate,
            whose,
            marked: BTreeSet::new(),
            told: BTreeSet::new(),
            restarts: 0,
            swept: now,
            looked: None,
        }
    }

    /// Whether it is still what is wanted.
    pub(super) fn is_for(&self, whose: &Whose, opens: bool) -> bool {
        self.whose == *whose && self.gate.asks_about_opens() == opens
    }

    /// What its gate did so far.
    pub(super) fn counts(&self) -> GateCounts {
        self.gate.counts()
    }

    /// Asks about nothing any more; what the gate did in all.
    pub(super) fn stop(self) -> GateCounts {
        self.gate.stop()
    }

    /// Forgets what was allowed to anyone.
    pub(super) fn forget(&self) {
        self.gate.forget();
    }

    /// Marks what is not marked yet. The agent's own mounts are: what starts in a scope mostly starts from there.
    pub(super) fn look(&mut self) {
        let restarts = self.gate.counts().restarts;
        if restarts != self.restarts || self.swept.elapsed() >= SWEEP {
            self.marked.clear();
            (self.restarts, self.swept) = (restarts, Instant::now());
            self.looked = None;
        }
        if self.whose == Whose::Everybody && self.looked.is_some_and(|last| last.elapsed() < WHOLE) {
            return;
        }
        self.looked = Some(Instant::now());
        let mut seen = BTreeSet::new();
        for pid in self.whose.namespaces().into_values() {
            // One that has ended meanwhile is in no scope any more.
            for mount in code_mounts(pid).unwrap_or_default() {
                let face = (mount.id, mount.point.clone());
                if self.marked.contains(&face) || self.mark(&mount) {
                    seen.insert(face);
                }
            }
        }
        self.marked = seen;
    }

    /// One that cannot be marked is told once, and must not leave the others unmarked.
    fn mark(&mut self, mount: &CodeMount) -> bool {
        // Hidden by another mount: nobody gets there by a path.
        let Ok(opened) = mount.open() else { return false };
        let Err(error) = self.gate.mark_opened(&opened) else { return true };
        if self.told.len() >= MAX_TOLD {
            self.told.clear();
        }
        if self.told.insert(format!("{} {}", mount.kind, mount.point)) {
            tracing::warn!("code on it is not refused ({}): {error}", mount.kind);
        }
        false
    }
}

impl Whose {
    /// One process of each mount namespace.
    fn namespaces(&self) -> BTreeMap<u64, u32> {
        let mut pids = vec![std::process::id()];
        match self {
            Self::In(folders) => folders.iter().for_each(|folder| members(folder, &mut pids)),
            Self::Everybody => pids.extend(processes()),
        }
        let mut namespaces = BTreeMap::new();
        for pid in pids {
            let Ok(namespace) = fs::metadata(format!("/proc/{pid}/ns/mnt")) else { continue };
            if namespaces.len() < MAX_NAMESPACES {
                namespaces.entry(namespace.ino()).or_insert(pid);
            }
        }
        namespaces
    }
}

/// Who is in this cgroup, or below.
fn members(folder: &Path, pids: &mut Vec<u32>) {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        // Those of another process namespace show as zero.
        let known = text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0);
        pids.extend(known.take(MAX_PROCESSES.saturating_sub(pids.len())));
        let below = fs::read_dir(folder).into_iter().flatten().flatten();
        folders.extend(below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).take(MAX_PROCESSES)
}
