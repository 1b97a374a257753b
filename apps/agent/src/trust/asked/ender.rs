//! The signal tier: programs without a file are ended by the kernel before their first instruction.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Result, bail};
use davy_kernel::{Ended, Nameless, NamelessMode};
use davy_model::{CodeJudgement, CodeKind, CodeOutcome, CodeReason, Event, EventKind, FileId, Mode};

use super::super::gate::Binding;
use crate::shared::lock;

/// Container runtimes execute a sealed copy of themselves from memory: what these start may have no file. Where they
/// install themselves, by runc, crun, containerd, Docker, Podman and `CRI-O`.
const RUNTIMES: [&str; 9] = [
    "/usr/bin/runc",
    "/usr/sbin/runc",
    "/usr/local/sbin/runc",
    "/usr/local/bin/runc",
    "/usr/bin/crun",
    "/usr/local/bin/crun",
    "/usr/bin/containerd-shim-runc-v2",
    "/usr/local/bin/containerd-shim-runc-v2",
    "/usr/libexec/crio/runc",
];

/// Where programs without a file are ended.
pub(super) struct Ender {
    inner: Mutex<Inner>,
    cgroup2: PathBuf,
    /// The agent's own cgroup, where it is not the root of all.
    own: Option<u64>,
}

struct Inner {
    nameless: Nameless,
    bound: BTreeMap<u64, NamelessMode>,
    runtimes: BTreeSet<FileId>,
}

impl Ender {
    /// Ends nothing yet.
    pub(super) fn new(nameless: Nameless, cgroup2: PathBuf) -> Self {
        let own = crate::own::own_cgroup(&cgroup2);
        let own = (own != cgroup2).then(|| davy_kernel::cgroup_id(&own).ok()).flatten();
        let inner = Inner { nameless, bound: BTreeMap::new(), runtimes: BTreeSet::new() };
        Self { inner: Mutex::new(inner), cgroup2, own }
    }

    /// Replaces where they are ended.
    pub(super) fn bind(&self, binding: &Binding) -> Result<()> {
        let mut wanted = BTreeMap::new();
        let mut in_root = false;
        if binding.everywhere(CodeKind::Nameless) == Mode::Enforce {
            match (self.own, davy_kernel::cgroup_id(&self.cgroup2)) {
                // Its own processes would be ended when its file is replaced.
                (None, _) => in_root = true,
                (Some(_), Ok(root)) => drop(wanted.insert(root, NamelessMode::Enforce)),
                (Some(_), Err(error)) => bail!("the root of all cgroups: {error}"),
            }
        }
        let scoped = binding.in_scope(CodeKind::Nameless) == Mode::Enforce;
        let scopes = binding.cgroups.iter().filter(|_| scoped).chain(&binding.rehearsed);
        for cgroup in scopes {
            if let Some(id) = self.cgroup(cgroup) {
                wanted.insert(id, NamelessMode::Enforce);
            }
        }
        if !wanted.is_empty() {
            let fallen = binding.fallen_back.iter().map(|fallen| &fallen.cgroup);
            for cgroup in fallen.filter(|cgroup| !binding.refuses(cgroup, CodeKind::Nameless)) {
                if let Some(id) = self.cgroup(cgroup) {
                    wanted.insert(id, NamelessMode::Exempt);
                }
            }
            wanted.extend(self.own.map(|own| (own, NamelessMode::Exempt)));
        }
        let inner = &mut *lock(&self.inner);
        // The exemption comes before what it is exempt from.
        let exempt_first = |mode: &NamelessMode| *mode == NamelessMode::Enforce;
        let mut order: Vec<_> = wanted.iter().collect();
        order.sort_by_key(|(_, mode)| exempt_first(mode));
        if !wanted.is_empty() {
            inner.know_runtimes();
        }
        for (id, mode) in order {
            inner.nameless.set_scope(*id, Some(*mode))?;
        }
        for gone in inner.bound.keys().filter(|id| !wanted.contains_key(id)) {
            inner.nameless.set_scope(*gone, None)?;
        }
        inner.bound = wanted;
        if in_root {
            bail!(
                "the agent runs in the root cgroup, and its own is never judged: programs without a file run outside of \
                 scopes; start it as a service"
            );
        }
        Ok(())
    }

    /// The kernel's number of a cgroup. A service that does not run has none; it is bound when it has.
    fn cgroup(&self, path: &str) -> Option<u64> {
        davy_kernel::cgroup_id(&self.cgroup2.join(path.trim_start_matches('/'))).ok()
    }

    /// What was ended since the last call, as the kernel's judgements.
    pub(super) fn ended(&self) -> Vec<Event> {
        let inner = &mut *lock(&self.inner);
        if inner.bound.is_empty() {
            return Vec::new();
        }
        inner.nameless.take_ended().into_iter().map(judged).collect()
    }
}

impl Inner {
    /// Installed since, perhaps.
    fn know_runtimes(&mut self) {
        for path in RUNTIMES {
            let Some(file) = identity(Path::new(path)) else { continue };
            if self.runtimes.insert(file)
                && let Err(error) = self.nameless.allow_under(file)
            {
                tracing::warn!(
                    "{path} will not start containers where programs without a file are ended: {error}"
                );
            }
        }
    }
}

/// Only one that root alone can write is what it is called.
fn identity(path: &Path) -> Option<FileId> {
    let found = std::fs::metadata(path).ok()?;
    let roots = found.is_file() && found.uid() == 0 && found.mode() & 0o022 == 0;
    roots.then(|| FileId { dev: found.dev(), ino: found.ino() })
}

fn judged(ended: Ended) -> Event {
    let judgement = CodeJudgement {
        kind: CodeKind::Nameless,
        outcome: if ended.killed { CodeOutcome::Denied } else { CodeOutcome::Ran },
        reason: CodeReason::Nameless,
        file: Some(ended.file),
        path: None,
        sha256: None,
        repeats: 0,
    };
    let kind = EventKind::CodeJudged(Box::new(judgement));
    Event { time: ended.time, process: Some(ended.process), kind }
}
