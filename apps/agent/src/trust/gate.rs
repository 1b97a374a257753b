//! Where the kernel decides: what it is told.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use davy_kernel::{Saying, TrustGate, TrustModes, TrustScope, Verdict};
use davy_model::{CodeKind, Mode, Sha256};
use davy_trust::Rights;

use crate::shared::lock;

/// What becomes of a content: nothing is said of it, it may not run, or it may and these things more.
pub(crate) type Said = (Sha256, Option<(bool, Rights)>);

/// What a rehearsal refuses. Memory, BPF programs and tracing are left to the policy: the acts themselves use them.
const REHEARSED: [CodeKind; 4] = [CodeKind::Exec, CodeKind::Library, CodeKind::Script, CodeKind::Nameless];

/// The kinds of code that the policy speaks of, each with its mode.
pub(crate) type Modes = [(CodeKind, Mode); 5];

/// Who is bound to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    /// cgroup v2 paths of the policy's scope.
    pub(crate) cgroups: Vec<String>,
    /// What holds there.
    pub(crate) inside: Modes,
    /// What holds everywhere else.
    pub(crate) outside: Modes,
    /// cgroups in which every kind of code is refused that a rehearsal refuses.
    pub(crate) rehearsed: Vec<String>,
}

/// Where the kernel decides which code may run.
pub(crate) trait Gate: Send {
    /// Replaces what is held of these contents.
    fn say(&self, said: &[Said]) -> Result<()>;
    /// Every content of which something is held.
    fn held(&self) -> Vec<Sha256>;
    /// Has a file read and remembered, where it cannot be read when it is asked for.
    fn read(&self, file: &File) -> Result<()>;
    /// Whether it tells of all code that it judges, and not only of what it refuses.
    fn tells_all(&self) -> bool;
    /// Prepares for a rehearsal in this cgroup, which [`Gate::bind`] begins and ends. `mount` is the root of the mount that code
    /// may be asked for in.
    fn stage(&self, cgroup: &str, mount: Option<&Path>) -> Result<()>;
    /// Replaces who is bound to what.
    fn bind(&self, binding: &Binding) -> Result<()>;
}

/// The gate of security hooks.
pub(crate) struct KernelGate {
    gate: Arc<TrustGate>,
    cgroup2: PathBuf,
    /// For how many seconds what a trusted program wrote runs before its content is known.
    mark_secs: u32,
    bound: Mutex<Vec<TrustScope>>,
}

impl KernelGate {
    /// Around a gate that was started.
    pub(crate) fn new(gate: Arc<TrustGate>, cgroup2: PathBuf, mark_secs: u32) -> Self {
        Self { gate, cgroup2, mark_secs, bound: Mutex::default() }
    }

    fn saying(&self, allowed: bool, rights: Rights) -> Saying {
        if !allowed {
            return Saying { verdict: Verdict::Deny, ..Saying::allow() };
        }
        let rights = davy_kernel::Rights {
            interpreter: rights.interpreter,
            trusted_writer_secs: if rights.writer { self.mark_secs } else { 0 },
            may_write_and_execute: rights.written_code,
            may_load_bpf: false,
            may_trace: false,
            may_be_nameless: rights.nameless,
        };
        Saying { verdict: Verdict::Allow(rights), ..Saying::allow() }
    }
}

impl Gate for KernelGate {
    fn say(&self, said: &[Said]) -> Result<()> {
        let (mut sayings, mut gone) = (Vec::new(), Vec::new());
        for (digest, what) in said {
            match what {
                Some((allowed, rights)) => sayings.push((*digest, self.saying(*allowed, *rights))),
                None => gone.push(*digest),
            }
        }
        self.gate.vouch(&sayings)?;
        self.gate.withdraw(&gone)?;
        Ok(())
    }

    fn held(&self) -> Vec<Sha256> {
        self.gate.vouched()
    }

    fn read(&self, file: &File) -> Result<()> {
        Ok(self.gate.read(file)?)
    }

    fn tells_all(&self) -> bool {
        true
    }

    fn stage(&self, _cgroup: &str, _mount: Option<&Path>) -> Result<()> {
        Ok(())
    }

    fn bind(&self, binding: &Binding) -> Result<()> {
        let with = |modes: &Modes| {
            modes.iter().fold(TrustModes::default(), |all, (kind, mode)| all.with(*kind, *mode))
        };
        let (inside, outside) = (with(&binding.inside), with(&binding.outside));
        let rehearsal =
            REHEARSED.iter().fold(TrustModes::default(), |all, kind| all.with(*kind, Mode::Enforce));
        let mut wanted = vec![(TrustScope::Host, outside)];
        let scopes = binding.cgroups.iter().map(|cgroup| (cgroup, inside));
        for (cgroup, modes) in scopes.chain(binding.rehearsed.iter().map(|cgroup| (cgroup, rehearsal))) {
            // A service that does not run has no cgroup; it is bound when it has.
            if let Ok(id) = davy_kernel::cgroup_id(&self.cgroup2.join(cgroup.trim_start_matches('/'))) {
                wanted.push((TrustScope::Cgroup(id), modes));
            }
        }
        let enforces = outside.enforce() || (inside.enforce() && !binding.cgroups.is_empty());
        // Pins come first, so that what is enforced is enforced when the agent dies at once.
        if enforces {
            self.gate.pin().context("keeping it when the agent ends")?;
        }
        let mut bound = lock(&self.bound);
        for (scope, modes) in &wanted {
            self.gate.set_scope(*scope, *modes)?;
        }
        for scope in bound.iter().filter(|scope| !wanted.iter().any(|(wanted, _)| wanted == *scope)) {
            self.gate.clear_scope(*scope)?;
        }
        *bound = wanted.into_iter().map(|(scope, _)| scope).collect();
        if !enforces {
            self.gate.unpin()?;
        }
        Ok(())
    }
}
