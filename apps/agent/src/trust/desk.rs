//! What is known of code, and the questions that it answers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use davy_model::{ClassSet, CodeKind, Mode, Pending, PendingId, Ruling, Sha256, Source, Timestamp, Voucher};
use davy_pkgdb::{TrustDb, Verdict};
use davy_policy::{Fileless, Policy, TrustSource};
use davy_trust::host::{Listed, Memory};
use davy_trust::services::Profiles;
use davy_trust::{Book, Config, Pendings, Programs, Question, Sighting, Taken, judge, oddities};
use davy_wire::{TrustSummary, TrustedBy};

use super::gate::Gate;
use super::learning::Learning;
use crate::services;
use crate::shared::lock;
use crate::standing;

/// The most scripts that are read ahead; what the kernel remembers of files is four times as much.
const MAX_SCRIPTS: usize = 16_384;

/// The most cgroups that are rehearsed in at once.
const MAX_REHEARSALS: usize = 64;

/// What is known of code. Shared by the thread that keeps it and the sockets that ask.
pub(crate) struct TrustDesk {
    pub(super) inner: Mutex<Inner>,
    /// One writes at a time, and whoever asks what may run does not wait for the disk.
    pub(super) writing: Mutex<()>,
    /// Signed manifests lie here.
    pub(super) manifests: PathBuf,
    /// What must survive a restart lies here.
    pub(super) file: PathBuf,
}

/// Which protections refuse nothing for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldBack {
    pub(super) trust: bool,
    pub(super) fileless: bool,
    pub(super) services: bool,
}

pub(super) struct Inner {
    pub(super) book: Book,
    pub(super) packages: Option<Arc<TrustDb>>,
    pub(super) config: Config,
    /// What manifests list by fs-verity digest.
    pub(super) verity: HashMap<String, Voucher>,
    pub(super) fileless: Fileless,
    pub(super) programs: Programs,
    pub(super) profiles: Profiles,
    /// What the kernel refuses of each profile, and whether it refuses any now.
    pub(super) forbidden: Vec<ClassSet>,
    pub(super) pendings: Pendings,
    pub(super) learning: Learning,
    pub(super) faults: Vec<String>,
    pub(super) gate: Option<Box<dyn Gate>>,
    pub(super) scopes: Vec<String>,
    /// cgroups in which code is judged and refused whatever the mode, and until when.
    pub(super) rehearsals: Vec<(String, Timestamp)>,
    /// Whether an agent before this one left in the kernel what may run.
    pub(super) adopted: bool,
    /// Whether scripts that were known at the start have been read, where that must come before they are run.
    pub(super) scripts_read: bool,
    /// What refuses nothing now, because Davy is disarmed or it fell back.
    pub(super) held_back: HeldBack,
    /// The same of single services, logins and containers.
    pub(super) held_back_in: Vec<(String, HeldBack)>,
    /// Whether the kernel judges everywhere, so that what ran need not be looked at afterwards.
    pub(super) kernel_judges: Arc<AtomicBool>,
    pub(super) dirty: bool,
}

impl TrustDesk {
    /// With what was remembered and what the policy says; nothing is known of packages yet.
    pub(crate) fn new(
        file: PathBuf,
        manifests: PathBuf,
        gate: Option<Box<dyn Gate>>,
        now: Timestamp,
    ) -> Self {
        let (programs, mut faults) = match Programs::built_in() {
            Ok(programs) => (programs, Vec::new()),
            Err(fault) => (Programs::default(), vec![fault.to_string()]),
        };
        let memory = Memory::load(&file).unwrap_or_else(|error| {
            faults.push(format!("what was approved is lost, approve it again: {error}"));
            Memory::default()
        });
        let mut book = Book::default();
        for (digest, voucher) in memory.vouchers.into_iter().filter(|(_, voucher)| voucher.holds(now)) {
            // Kept and shown by the book.
            let _ = book.vouch(digest, voucher);
        }
        let _ = book.forget_oldest_written();
        let adopted = gate.as_ref().is_some_and(|gate| !gate.held().is_empty());
        let scripts_read = !gate.as_ref().is_some_and(|gate| gate.wants_scripts_ahead());
        let inner = Inner {
            book,
            packages: None,
            config: Config::default(),
            verity: HashMap::new(),
            fileless: Fileless::default(),
            programs,
            // The desk of services tells when they cannot be read.
            profiles: Profiles::built_in().unwrap_or_default(),
            forbidden: Vec::new(),
            pendings: memory.pendings,
            learning: Learning::default(),
            faults,
            gate,
            scopes: Vec::new(),
            rehearsals: Vec::new(),
            adopted,
            scripts_read,
            held_back: HeldBack::default(),
            held_back_in: Vec::new(),
            kernel_judges: Arc::default(),
            dirty: false,
        };
        Self { inner: Mutex::new(inner), writing: Mutex::default(), manifests, file }
    }

    /// Takes over a policy: its lists, its keys, and where it acts.
    pub(crate) fn configure(&self, policy: &Policy, now: Timestamp) {
        let mut inner = lock(&self.inner);
        inner.faults.clear();
        let config = match Config::new(policy) {
            Ok(config) => config,
            Err(fault) => {
                // A key that is none takes nothing else with it: the rest of the policy holds.
                inner.faults.push(fault.to_string());
                let mut without = policy.clone();
                without.trust.keys.clear();
                Config::new(&without).unwrap_or_default()
            }
        };
        let listed = if config.asks(TrustSource::Manifests) {
            davy_trust::host::manifests(&self.manifests, &config)
        } else {
            Listed::default()
        };
        inner.faults.extend(listed.faults);
        inner.verity = listed.verity;
        let idle = |kind| inner.gate.as_ref().is_none_or(|gate| !gate.can_refuse(kind));
        let wanted = [
            ("trust", CodeKind::Exec, config.mode == Mode::Enforce),
            ("fileless", CodeKind::Nameless, policy.fileless.mode == Mode::Enforce),
            (
                "fileless",
                CodeKind::Memory,
                policy.fileless.mode == Mode::Enforce && policy.fileless.written_memory,
            ),
        ];
        let idle: Vec<_> = wanted.into_iter().filter(|(_, kind, wanted)| *wanted && idle(*kind)).collect();
        for (section, kind, _) in idle {
            let what = if kind == CodeKind::Memory { "written memory" } else { "nothing" };
            let why = if kind == CodeKind::Memory { "is not refused" } else { "is refused" };
            inner
                .faults
                .push(format!("the policy says enforce, and {what} {why}: see {section} in `davy status`"));
        }
        let allowed: Vec<_> = config.allow_list().collect();
        inner.book.replace("allow_list", allowed);
        // What is known by its fs-verity digest is measured again when it runs.
        inner.book.replace("manifests", listed.contents);
        // What lies in a folder is looked at again when it runs.
        inner.book.replace("directory", []);
        inner.config = config;
        inner.fileless = policy.fileless;
        inner.scopes = policy.scope.cgroups.clone();
        inner.forbidden = services::refused_by_kernel(&inner.profiles, policy, now);
        inner.settle(now);
        inner.tell_all(now);
    }

    /// Takes over what was learned of packages.
    pub(super) fn packages(&self, packages: TrustDb, now: Timestamp) -> Arc<TrustDb> {
        let packages = Arc::new(packages);
        let mut inner = lock(&self.inner);
        inner.packages = Some(Arc::clone(&packages));
        inner.settle(now);
        inner.tell_all(now);
        packages
    }

    /// Says how far learning is.
    pub(super) fn learning(&self, learning: Learning) {
        lock(&self.inner).learning = learning;
    }

    /// What is decided about this content now.
    pub(crate) fn ruling(&self, question: &Question<'_>, now: Timestamp) -> Ruling {
        lock(&self.inner).ruling(question, now)
    }

    /// Whether the kernel judges everywhere, now and later.
    pub(super) fn kernel_judges(&self) -> Arc<AtomicBool> {
        Arc::clone(&lock(&self.inner).kernel_judges)
    }

    /// What the policy wants done with code that is not allowed.
    pub(crate) fn mode(&self) -> Mode {
        lock(&self.inner).config.mode
    }

    /// The number under which this content waits for the administrator.
    pub(super) fn number_of(&self, digest: &Sha256) -> Option<PendingId> {
        lock(&self.inner).pendings.of(digest).map(|pending| pending.id)
    }

    /// The protection that code of this kind is refused by.
    pub(super) fn refuses_by(&self, kind: CodeKind) -> &'static str {
        match kind {
            CodeKind::Service => services::PROTECTION,
            CodeKind::Nameless | CodeKind::Memory if lock(&self.inner).fileless.mode == Mode::Enforce => {
                "fileless"
            }
            _ => "trust",
        }
    }

    /// Takes down that code ran which nobody vouches for, or was refused. Says whether it is new.
    pub(super) fn see(&self, sighting: Sighting) -> bool {
        let mut inner = lock(&self.inner);
        inner.dirty = true;
        inner.pendings.see(sighting)
    }

    /// What is odd about code at this path.
    pub(super) fn odd(&self, path: &str, user: Option<&str>, nameless: bool) -> Vec<davy_model::Oddity> {
        let packages = lock(&self.inner).packages.clone();
        let altered = packages.is_some_and(|packages| packages.by_path(path.as_ref()).is_some());
        oddities(path, user, altered, nameless)
    }

    /// Has the kernel read a file and remember it.
    pub(super) fn read(&self, file: &std::fs::File) {
        if let Some(gate) = &lock(&self.inner).gate
            && let Err(error) = gate.read(file)
        {
            tracing::debug!("a file could not be read ahead: {error}");
        }
    }

    /// Files that an interpreter may be given and that somebody vouches for, where the kernel must have read them before.
    pub(super) fn scripts(&self) -> Vec<PathBuf> {
        let inner = lock(&self.inner);
        if !inner.gate.as_ref().is_some_and(|gate| gate.wants_scripts_ahead()) {
            return Vec::new();
        }
        let known =
            inner.book.entries().flat_map(|entry| entry.vouchers.iter()).filter_map(|v| match &v.source {
                Source::Approval { path, .. }
                | Source::Learned { path, .. }
                | Source::Written { path, .. } => Some(PathBuf::from(path)),
                _ => None,
            });
        let packages = inner.packages.iter().flat_map(|packages| packages.iter());
        let packaged = packages.filter(|learned| learned.verdict == Verdict::Matches && learned.is_script());
        known.chain(packaged.map(|learned| Path::new("/").join(learned.path))).take(MAX_SCRIPTS).collect()
    }

    /// All of them were read.
    pub(super) fn scripts_were_read(&self, now: Timestamp) {
        let mut inner = lock(&self.inner);
        if !std::mem::replace(&mut inner.scripts_read, true) {
            inner.bind(now);
        }
    }

    /// What a manifest says of the file that has this fs-verity digest.
    pub(super) fn listed_by_verity(&self, digest: &str) -> Option<Voucher> {
        lock(&self.inner).verity.get(digest).cloned()
    }

    /// Whether any manifest lists fs-verity digests.
    pub(super) fn lists_verity(&self) -> bool {
        !lock(&self.inner).verity.is_empty()
    }

    /// A source that knows the file by something else than its content (a folder that is allowed as a whole, an fs-verity
    /// digest) vouches for this content, which the kernel, knowing digests alone, is told from now on. Says whether there was
    /// room for its word.
    pub(super) fn vouch(&self, digest: Sha256, voucher: Voucher, now: Timestamp) -> bool {
        let mut inner = lock(&self.inner);
        let vouched = inner.vouch(digest, voucher, now);
        if vouched.is_ok() {
            inner.pendings.settle(&digest);
        }
        vouched.is_ok()
    }

    /// A trusted program wrote this content.
    pub(super) fn written(&self, digest: Sha256, by: &str, path: &str, now: Timestamp) {
        let mut inner = lock(&self.inner);
        if !inner.config.asks(TrustSource::Writers) {
            return;
        }
        let source = Source::Written { by: by.to_owned(), time: now, path: path.to_owned() };
        let until = Some(now.plus_secs(inner.config.writers_for as f64));
        // Nobody waits for an answer: what is not taken or not told is counted, and a fault.
        let _ = inner.vouch(digest, Voucher { source, until }, now);
    }

    /// Everything that waits, the oddest first.
    pub(crate) fn pending(&self, limit: usize) -> Vec<Pending> {
        lock(&self.inner).pendings.all().into_iter().take(limit).cloned().collect()
    }

    /// Judges and refuses code in a cgroup until then, whatever the mode; one that is over ends it. `mount` is where code is
    /// asked for, where the kernel does not judge it itself.
    pub(crate) fn rehearse(
        &self,
        cgroup: &str,
        mount: Option<&Path>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), String> {
        let mut inner = lock(&self.inner);
        let Some(gate) = &inner.gate else {
            return Err("the kernel neither judges code here nor asks about it, so that none can be refused"
                .to_owned());
        };
        if !inner.is_ready() {
            return Err(format!("not yet: {}", inner.learning.words()));
        }
        if until > now {
            gate.stage(cgroup, mount).map_err(|error| format!("{error:#}"))?;
        }
        inner.rehearsals.retain(|(scope, _)| scope != cgroup);
        if until > now && inner.rehearsals.len() < MAX_REHEARSALS {
            inner.rehearsals.push((cgroup.to_owned(), until));
        }
        inner.bind(now);
        Ok(())
    }

    /// Refuses nothing, or what the policy says again: everywhere, and in single cgroups.
    pub(super) fn hold_back(&self, everywhere: HeldBack, places: Vec<(String, HeldBack)>, now: Timestamp) {
        let mut inner = lock(&self.inner);
        if (inner.held_back, &inner.held_back_in) != (everywhere, &places) {
            (inner.held_back, inner.held_back_in) = (everywhere, places);
            inner.bind(now);
        }
    }

    /// Finds what came into a scope and what was refused since the last look.
    pub(super) fn look(&self) {
        if let Some(gate) = &lock(&self.inner).gate {
            gate.look();
        }
    }

    /// Code that was let through without being judged, and why.
    pub(crate) fn unjudged(&self) -> Vec<(&'static str, u64)> {
        lock(&self.inner).gate.as_ref().map(|gate| gate.unjudged()).unwrap_or_default()
    }

    /// Whether the policy acts where a process of this cgroup runs, so that it is worth a look.
    pub(super) fn is_scoped(&self, cgroup: &str) -> bool {
        let inner = lock(&self.inner);
        inner.scopes.iter().any(|scope| standing::within(cgroup, scope))
    }

    /// Drops what is over, writes down what changed, and finds services that were started again.
    pub(super) fn tend(&self, now: Timestamp) {
        let mut inner = lock(&self.inner);
        if !inner.scopes.is_empty() || !inner.rehearsals.is_empty() || !inner.held_back_in.is_empty() {
            inner.bind(now);
        }
        let lost = inner.book.expire(now);
        if !lost.is_empty() {
            inner.dirty = true;
            // A fault, where it is shown.
            let _ = inner.tell(&lost, now);
        }
        drop(inner);
        self.saved();
    }

    /// For `davy status` and `davy trust`.
    pub(crate) fn summary(&self, now: Timestamp) -> TrustSummary {
        let inner = lock(&self.inner);
        let mut by: Vec<TrustedBy> = Vec::new();
        if let Some(packages) = &inner.packages {
            let contents = packages.vouched_digests().count() as u64;
            by.push(TrustedBy { source: "packages".to_owned(), contents });
        }
        for source in ["allow_list", "approval", "manifests", "learned", "writers"] {
            let speaks = |entry: &davy_trust::Entry<'_>| {
                entry.vouchers.iter().any(|v| v.source.name() == source && v.holds(now))
            };
            let contents = inner.book.entries().filter(speaks).count() as u64;
            if contents > 0 {
                by.push(TrustedBy { source: source.to_owned(), contents });
            }
        }
        let mut faults = inner.faults.clone();
        faults.extend(inner.learning.fault.clone());
        faults.extend(inner.crowded());
        TrustSummary {
            mode: inner.config.mode,
            by,
            learning: inner.learning.words(),
            pending: inner.pendings.len() as u64,
            refused: inner.pendings.all().iter().map(|p| p.refused).sum(),
            faults,
        }
    }
}

impl Inner {
    /// Who vouches for this content.
    fn vouchers(&self, digest: &Sha256, now: Timestamp) -> Vec<Voucher> {
        let mut vouchers: Vec<Voucher> = self.book.vouchers(digest, now).cloned().collect();
        let packages = self.packages.as_ref().filter(|_| self.config.asks(TrustSource::Packages));
        if let Some(learned) = packages.and_then(|packages| packages.vouched(&digest.0)) {
            vouchers.push(Voucher::lasting(Source::Package {
                package: learned.package.name.clone(),
                version: learned.package.version.clone(),
                path: learned.path.display().to_string(),
            }));
        }
        vouchers
    }

    pub(super) fn ruling(&self, question: &Question<'_>, now: Timestamp) -> Ruling {
        let vouchers = question.digest.map(|digest| self.vouchers(&digest, now)).unwrap_or_default();
        judge(question, vouchers, &self.config, now)
    }

    /// Takes a word for a content and tells the gate.
    ///
    /// # Errors
    /// Why the content does not run all the same, to be shown: there is no room for it, or the gate was not told.
    pub(super) fn vouch(&mut self, digest: Sha256, voucher: Voucher, now: Timestamp) -> Result<(), String> {
        if self.book.vouch(digest, voucher) == Taken::Full {
            return Err(format!(
                "{} contents are vouched for beside those of packages, and there is room for no more; \
                 `davy trust status` says by whom",
                self.book.len()
            ));
        }
        self.dirty = true;
        let mut changed = self.book.forget_oldest_written();
        changed.push(digest);
        self.tell(&changed, now)
    }

    /// Forgets what waits and is vouched for now.
    fn settle(&mut self, now: Timestamp) {
        let settled: Vec<Sha256> = self
            .pendings
            .all()
            .iter()
            .map(|pending| pending.sha256)
            .filter(|digest| {
                let question = Question { digest: Some(*digest), path: "", nameless: false, failsafe: None };
                self.ruling(&question, now).allowed
            })
            .collect();
        settled.iter().for_each(|digest| drop(self.pendings.settle(digest)));
        self.dirty |= !settled.is_empty();
    }

    /// Notes what went wrong, once.
    pub(super) fn fault(&mut self, fault: String) {
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
