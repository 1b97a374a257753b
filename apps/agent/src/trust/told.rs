//! What the gate is told: which contents may run, and who is bound to what.

use std::sync::atomic::Ordering;

use davy_model::{CodeKind, Mode, Sha256, Source, Timestamp};
use davy_policy::TrustSource;
use davy_trust::{Question, Rights};

use super::desk::{HeldBack, Inner};
use super::gate::{Binding, FallenBack, Said};
use crate::services;

impl Inner {
    /// Tells the kernel what became of these contents.
    ///
    /// # Errors
    /// That it was not told, and why; noted as a fault as well.
    pub(super) fn tell(&mut self, digests: &[Sha256], now: Timestamp) -> Result<(), String> {
        let sayings: Vec<_> = digests.iter().map(|digest| (*digest, self.saying(digest, now))).collect();
        self.say(&sayings)
    }

    fn say(&mut self, sayings: &[Said]) -> Result<(), String> {
        let Some(gate) = &self.gate else { return Ok(()) };
        gate.say(sayings).map_err(|error| {
            let fault = format!("the kernel was not told which code may run: {error}");
            tracing::error!("{fault}");
            self.fault(fault.clone());
            fault
        })
    }

    /// What the kernel should hold of this content: nothing, or whether it may run and what more it may.
    fn saying(&self, digest: &Sha256, now: Timestamp) -> Option<(bool, Rights)> {
        let question = Question { digest: Some(*digest), path: "", nameless: false, failsafe: None };
        let ruling = self.ruling(&question, now);
        if !ruling.allowed {
            return (ruling.rank == davy_model::Rank::Blocked).then(|| (false, Rights::default()));
        }
        // Only a package's own program has a role: its path is where the package put it, not where someone copied it.
        let packaged = ruling.vouchers.iter().find_map(|v| match &v.source {
            Source::Package { path, .. } => Some(path.as_str()),
            _ => None,
        });
        let listed = |source: &Source| matches!(source, Source::AllowList { .. } | Source::Approval { .. });
        let mut rights = packaged.map(|path| self.programs.rights(path)).unwrap_or_default();
        if let Some(path) = packaged {
            (rights.services, rights.releases) = services::by_path(&self.profiles, path);
        }
        if !self.config.asks(TrustSource::Writers) {
            rights.writer = false;
        }
        rights.nameless = ruling.vouchers.iter().any(|v| listed(&v.source));
        Some((true, rights))
    }

    /// Tells the kernel everything anew, and where it is to act.
    pub(super) fn tell_all(&mut self, now: Timestamp) {
        if self.gate.is_none() {
            return;
        }
        let mut digests: Vec<Sha256> = self.book.entries().map(|entry| entry.digest).collect();
        digests.extend(self.config.block_list(now));
        if let Some(packages) = &self.packages {
            digests.extend(packages.vouched_digests().map(|digest| Sha256(*digest)));
        }
        digests.sort_unstable();
        digests.dedup();
        let known = |digest: &Sha256| digests.binary_search(digest).is_ok();
        let mut held = self.gate.as_ref().map(|gate| gate.held()).unwrap_or_default();
        // What an agent before this one left in the kernel holds until this one knows better.
        held.retain(|digest| self.knows_packages() && !known(digest));
        let gone = held.iter().map(|digest| (*digest, None));
        let sayings: Vec<_> =
            digests.iter().map(|digest| (*digest, self.saying(digest, now))).chain(gone).collect();
        // A fault, where it is shown.
        let _ = self.say(&sayings);
        self.bind(now);
    }

    pub(super) fn knows_packages(&self) -> bool {
        self.packages.is_some() || !self.config.asks(TrustSource::Packages)
    }

    /// Whether the kernel knows enough to refuse anything: before packages are learned it would refuse everything.
    pub(super) fn is_ready(&self) -> bool {
        self.adopted || (self.knows_packages() && self.scripts_read)
    }

    /// Tells the kernel where it is to act.
    pub(super) fn bind(&mut self, now: Timestamp) {
        self.rehearsals.retain(|(_, until)| *until > now);
        let config = &self.config;
        // Observing in the kernel has a price that somebody must have agreed to.
        let observed = if config.kernel { Mode::Observe } else { Mode::Off };
        // What holds in the scope, and what does elsewhere.
        let modes_of = |mode: Mode, refuses: bool| {
            let inside = match mode {
                Mode::Enforce if refuses => Mode::Enforce,
                Mode::Enforce | Mode::Observe => observed,
                Mode::Off => Mode::Off,
            };
            (inside, if self.scopes.is_empty() || inside == Mode::Off { inside } else { observed })
        };
        // Which programs compile in memory is known of packages alone.
        let written_memory = self.fileless.written_memory && self.packages.is_some();
        let binds = self.forbidden.iter().any(|classes| !classes.is_empty());
        let modes = |mode: Mode, fileless: Mode, service: Mode| {
            let wanted = |wanted: bool, mode: Mode| if wanted { mode } else { Mode::Off };
            [
                (CodeKind::Exec, mode),
                (CodeKind::Library, mode),
                // Two protections are about it; the stronger holds.
                (CodeKind::Nameless, mode.max(fileless)),
                (CodeKind::Script, wanted(config.scripts, mode)),
                (CodeKind::Module, wanted(config.modules, mode)),
                (CodeKind::Memory, wanted(written_memory, fileless)),
                (CodeKind::Service, service),
            ]
        };
        // What holds in the scope and elsewhere, where these protections are held back.
        let under = |held_back: HeldBack| {
            let (inside, outside) = modes_of(config.mode, self.is_ready() && !held_back.trust);
            // No package vouches for code without a file, so that nothing has to be learned for it.
            let (fileless, fileless_outside) = modes_of(self.fileless.mode, !held_back.fileless);
            let refuses = binds && self.knows_packages() && !held_back.services;
            let service = if refuses { Mode::Enforce } else { Mode::Off };
            let elsewhere = if self.scopes.is_empty() { service } else { Mode::Off };
            (modes(inside, fileless, service), modes(outside, fileless_outside, elsewhere))
        };
        let (inside, outside) = under(self.held_back);
        let fallen_back = self
            .held_back_in
            .iter()
            .map(|(cgroup, held_back)| {
                let (inside, outside) = under(*held_back);
                FallenBack { cgroup: cgroup.clone(), inside, outside }
            })
            .collect();
        let tells_all = self.gate.as_ref().is_some_and(|gate| gate.tells_all());
        let judges = tells_all && !outside.contains(&(CodeKind::Exec, Mode::Off));
        let binding = Binding {
            cgroups: self.scopes.clone(),
            inside,
            outside,
            fallen_back,
            rehearsed: self.rehearsals.iter().map(|(cgroup, _)| cgroup.clone()).collect(),
            forbidden: self.forbidden.clone(),
        };
        self.kernel_judges.store(judges, Ordering::Relaxed);
        if let Some(gate) = &self.gate
            && let Err(error) = gate.bind(&binding)
        {
            tracing::error!("trust is not enforced everywhere it should be: {error}");
            self.fault(format!("not enforced everywhere it should be: {error}"));
        }
    }
}
