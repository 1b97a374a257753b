//! Where the kernel decides: what it is told.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use davy_kernel::{Saying, TrustGate, TrustModes, TrustScope, Verdict};
use davy_model::{ClassSet, CodeKind, Mode, Sha256};
use davy_trust::Rights;

use crate::shared::lock;
use crate::standing;

/// What becomes of a content: nothing is said of it, it may not run, or it may and these things more.
pub(crate) type Said = (Sha256, Option<(bool, Rights)>);

/// What a rehearsal refuses. Memory, BPF programs and tracing are left to the policy: the acts themselves use them.
const REHEARSED: [CodeKind; 4] = [CodeKind::Exec, CodeKind::Library, CodeKind::Script, CodeKind::Nameless];

/// The kinds of code that the policy speaks of, each with its mode.
pub(crate) type Modes = [(CodeKind, Mode); 7];

/// A service, login or container in which a protection fell back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FallenBack {
    /// Its cgroup v2 path.
    pub(crate) cgroup: String,
    /// What holds in it where the policy's scope is.
    pub(crate) inside: Modes,
    /// What holds in it elsewhere.
    pub(crate) outside: Modes,
}

/// Who is bound to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    /// cgroup v2 paths of the policy's scope.
    pub(crate) cgroups: Vec<String>,
    /// What holds there.
    pub(crate) inside: Modes,
    /// What holds everywhere else.
    pub(crate) outside: Modes,
    /// Where less holds than the policy says.
    pub(crate) fallen_back: Vec<FallenBack>,
    /// cgroups in which every kind of code is refused that a rehearsal refuses.
    pub(crate) rehearsed: Vec<String>,
    /// What profiles of services have no use for, in their order.
    pub(crate) forbidden: Vec<ClassSet>,
}

impl Binding {
    /// What holds for this kind of code in the policy's scope, if it has one.
    pub(crate) fn in_scope(&self, kind: CodeKind) -> Mode {
        if self.cgroups.is_empty() { Mode::Off } else { of(&self.inside, kind) }
    }

    /// What holds for this kind of code wherever no scope is.
    pub(crate) fn everywhere(&self, kind: CodeKind) -> Mode {
        of(&self.outside, kind)
    }

    /// Whether any of these kinds is refused anywhere, rehearsals apart.
    pub(crate) fn enforces(&self, kinds: &[CodeKind]) -> bool {
        kinds.iter().any(|k| self.in_scope(*k) == Mode::Enforce || self.everywhere(*k) == Mode::Enforce)
    }

    /// Whether code of this kind is refused in a cgroup, a rehearsal's too.
    pub(crate) fn refuses(&self, cgroup: &str, kind: CodeKind) -> bool {
        (REHEARSED.contains(&kind) && is_in(cgroup, &self.rehearsed))
            || of(self.modes_in(cgroup), kind) == Mode::Enforce
    }

    /// Whether any code is refused in a cgroup.
    pub(crate) fn refuses_any(&self, cgroup: &str) -> bool {
        is_in(cgroup, &self.rehearsed) || self.modes_in(cgroup).iter().any(|(_, mode)| *mode == Mode::Enforce)
    }

    /// What holds in a cgroup, rehearsals apart.
    fn modes_in(&self, cgroup: &str) -> &Modes {
        let around = self.fallen_back.iter().filter(|fallen| standing::within(cgroup, &fallen.cgroup));
        // The nearest was told what holds around it.
        let (inside, outside) = around
            .max_by_key(|fallen| fallen.cgroup.len())
            .map_or((&self.inside, &self.outside), |fallen| (&fallen.inside, &fallen.outside));
        if is_in(cgroup, &self.cgroups) { inside } else { outside }
    }
}

fn is_in(cgroup: &str, scopes: &[String]) -> bool {
    scopes.iter().any(|scope| standing::within(cgroup, scope))
}

fn of(modes: &Modes, kind: CodeKind) -> Mode {
    modes.iter().find(|(of, _)| *of == kind).map_or(Mode::Off, |(_, mode)| *mode)
}

/// Where the kernel decides which code may run.
pub(crate) trait Gate: Send {
    /// Replaces what is held of these contents.
    fn say(&self, said: &[Said]) -> Result<()>;
    /// Every content of which something is held.
    fn held(&self) -> Vec<Sha256>;
    /// Whether scripts must have been read before an interpreter opens them.
    fn wants_scripts_ahead(&self) -> bool;
    /// Has a file read and remembered, where it cannot be read when it is asked for.
    fn read(&self, file: &File) -> Result<()>;
    /// Whether it can refuse code of this kind.
    fn can_refuse(&self, kind: CodeKind) -> bool;
    /// Whether it tells of all code that it judges, and not only of what it refuses.
    fn tells_all(&self) -> bool;
    /// Prepares for a rehearsal in this cgroup, which [`Gate::bind`] begins and ends. `mount` is the root of the mount that code
    /// may be asked for in.
    fn stage(&self, cgroup: &str, mount: Option<&Path>) -> Result<()>;
    /// Replaces who is bound to what.
    fn bind(&self, binding: &Binding) -> Result<()>;
    /// Looks for what came into a scope since the last time, and for what was refused there.
    fn look(&self) {}
    /// What it let through without judging it, and why, since it stands.
    fn unjudged(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
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
            writes_as_root: rights.as_root,
            writes_for_writers: rights.for_writers,
            may_write_and_execute: rights.written_code,
            may_load_bpf: false,
            may_trace: false,
            may_be_nameless: rights.nameless,
            services: rights.services.bits(),
            releases: rights.releases.bits(),
            classes: rights.classes.bits(),
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

    fn wants_scripts_ahead(&self) -> bool {
        !self.gate.reads_scripts()
    }

    fn read(&self, file: &File) -> Result<()> {
        Ok(self.gate.read(file)?)
    }

    fn can_refuse(&self, _kind: CodeKind) -> bool {
        true
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
        let fallen_back = binding.fallen_back.iter().map(|fallen| &fallen.cgroup);
        let scopes = binding.cgroups.iter().chain(fallen_back);
        let scopes = scopes.map(|cgroup| (cgroup, with(binding.modes_in(cgroup))));
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
        let forbidden: Vec<u8> = binding.forbidden.iter().map(|classes| classes.bits()).collect();
        self.gate.forbid(&forbidden)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_refused_in_scopes_that_enforce_and_in_rehearsals() {
        let modes = |exec| {
            [
                (CodeKind::Exec, exec),
                (CodeKind::Library, Mode::Observe),
                (CodeKind::Nameless, Mode::Off),
                (CodeKind::Script, Mode::Off),
                (CodeKind::Module, Mode::Off),
                (CodeKind::Memory, Mode::Off),
                (CodeKind::Service, Mode::Off),
            ]
        };
        let bound = |cgroups: &[&str], inside, outside, rehearsed: &[&str]| Binding {
            cgroups: cgroups.iter().map(|c| (*c).to_owned()).collect(),
            inside: modes(inside),
            outside: modes(outside),
            fallen_back: Vec::new(),
            rehearsed: rehearsed.iter().map(|c| (*c).to_owned()).collect(),
            forbidden: Vec::new(),
        };
        let scoped = bound(&["/web"], Mode::Enforce, Mode::Observe, &["/drill"]);
        assert!(scoped.refuses("/web/a", CodeKind::Exec) && !scoped.refuses("/webb", CodeKind::Exec));
        assert!(!scoped.refuses("/web", CodeKind::Script) && !scoped.refuses("/web", CodeKind::Library));
        assert!(scoped.refuses("/drill/attempt", CodeKind::Script));
        assert!(!scoped.refuses("/drill/attempt", CodeKind::Module) && !scoped.refuses("/", CodeKind::Exec));
        assert!(scoped.refuses_any("/web") && scoped.refuses_any("/drill") && !scoped.refuses_any("/"));
        assert!(scoped.enforces(&[CodeKind::Exec]) && !scoped.enforces(&[CodeKind::Script]));
        assert!(!bound(&[], Mode::Observe, Mode::Observe, &[]).refuses_any("/web"));
        assert!(bound(&[], Mode::Enforce, Mode::Enforce, &[]).refuses("/web", CodeKind::Exec));
        // Where a protection fell back it does so whether the scope is around the place, or within it.
        let fallen = |cgroup: &str| FallenBack {
            cgroup: cgroup.to_owned(),
            inside: modes(Mode::Observe),
            outside: modes(Mode::Off),
        };
        let host = Binding {
            fallen_back: vec![fallen("/web/a")],
            ..bound(&[], Mode::Enforce, Mode::Enforce, &["/web/a/drill"])
        };
        assert!(!host.refuses("/web/a/b", CodeKind::Exec) && host.refuses("/web/ab", CodeKind::Exec));
        assert!(host.refuses("/web/a/drill", CodeKind::Exec));
        let around = Binding {
            fallen_back: vec![fallen("/web/a")],
            ..bound(&["/web"], Mode::Enforce, Mode::Observe, &[])
        };
        assert_eq!(of(around.modes_in("/web/a"), CodeKind::Exec), Mode::Observe);
        assert_eq!(of(around.modes_in("/web/b"), CodeKind::Exec), Mode::Enforce);
        let within = Binding {
            fallen_back: vec![fallen("/web")],
            ..bound(&["/web/a"], Mode::Enforce, Mode::Observe, &[])
        };
        assert_eq!(of(within.modes_in("/web/a"), CodeKind::Exec), Mode::Observe);
        assert_eq!(of(within.modes_in("/web"), CodeKind::Exec), Mode::Off);
        // A scope that nobody is in must not turn the host's own on.
        assert!(!bound(&[], Mode::Enforce, Mode::Observe, &[]).enforces(&[CodeKind::Exec]));
    }
}
