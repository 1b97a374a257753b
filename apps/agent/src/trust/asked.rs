//! The permission tier: where the kernel takes no programs that judge code, it asks before code runs, and this answers.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use anyhow::{Context, Result, bail};
use davy_detect::Interpreters;
use davy_files::permission::{Answer, Ask, AskKind, GateConfig, Marked, PermissionGate, Steadiness};
use davy_model::{
    CodeJudgement, CodeKind, CodeOutcome, CodeReason, Event, EventKind, Mode, Rank, Ruling, Sha256,
};
use davy_trust::Question;
use rustix::fs::{AtFlags, Mode as FileMode, OFlags, StatxAttributes, StatxFlags};

use super::desk::TrustDesk;
use super::gate::{Binding, Gate, Said};
use crate::shared::{Intake, lock};
use crate::{clock, standing};

/// What keeps the gate: this very program, whatever became of its file's name since.
pub(crate) fn gate_keeper() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["worker", "gate"]);
    command
}

/// The gate of permission events.
pub(super) struct AskedGate {
    judge: Arc<Judge>,
    stages: Mutex<Vec<Stage>>,
}

/// Where a rehearsal is asked about, and nothing else is. Fields in the order in which they must go.
struct Stage {
    cgroup: String,
    gate: PermissionGate,
    _mount: OwnedFd,
}

impl AskedGate {
    /// Asks about nothing yet. `own` is the agent's own cgroup, in which nothing is refused.
    pub(super) fn new(intake: Intake, own: String) -> Self {
        let judge = Judge { desk: OnceLock::new(), intake, own, bound: Mutex::default() };
        Self { judge: Arc::new(judge), stages: Mutex::default() }
    }

    /// Who answers. Until it is given a desk, everything is allowed.
    pub(super) fn judge(&self) -> Arc<Judge> {
        Arc::clone(&self.judge)
    }

    fn open(&self, marks: Vec<Marked>) -> Result<PermissionGate> {
        let judge = Arc::clone(&self.judge);
        let interpreters = Interpreters::builtin();
        let config = GateConfig {
            opens: true,
            script_of: Box::new(move |program, arguments| interpreters.script(program, arguments)),
            ..GateConfig::new(gate_keeper, move |ask| judge.answer(ask))
        };
        Ok(PermissionGate::start(config, marks)?)
    }
}

impl Gate for AskedGate {
    fn say(&self, _said: &[Said]) -> Result<()> {
        // The judge asks the desk each time; only what holds for anyone must be asked for anew.
        lock(&self.stages).iter().for_each(|stage| stage.gate.forget());
        Ok(())
    }

    fn held(&self) -> Vec<Sha256> {
        Vec::new()
    }

    fn stage(&self, cgroup: &str, mount: Option<&Path>) -> Result<()> {
        let Some(mount) = mount else {
            bail!(
                "the kernel does not judge code here but asks about it: name a mount of the rehearsal's own"
            )
        };
        let mount = own_mount(mount).with_context(|| format!("use {} for a rehearsal", mount.display()))?;
        let folder = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        let gate = self.open(vec![Marked::Mount(folder)])?;
        let mut stages = lock(&self.stages);
        stages.retain(|stage| stage.cgroup != cgroup);
        stages.push(Stage { cgroup: cgroup.to_owned(), gate, _mount: mount });
        Ok(())
    }

    fn read(&self, _file: &File) -> Result<()> {
        // Whoever asks hands over the open file.
        Ok(())
    }

    fn tells_all(&self) -> bool {
        false
    }

    fn bind(&self, binding: &Binding) -> Result<()> {
        *lock(&self.judge.bound) = Some(binding.clone());
        lock(&self.stages).retain(|stage| binding.rehearsed.contains(&stage.cgroup));
        Ok(())
    }
}

/// The root of a mount that nobody in this mount namespace goes through, or a mark on it would hold up others.
fn own_mount(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, FileMode::empty())?;
    let about = rustix::fs::statx(&folder, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let told = StatxFlags::from_bits_retain(about.stx_mask).contains(StatxFlags::MNT_ID);
    if !told || !about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        bail!("it is not the root of a mount");
    }
    let id = about.stx_mnt_id.to_string();
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    if table.lines().any(|line| line.split(' ').next() == Some(&id)) {
        bail!("it is mounted where others go through it");
    }
    Ok(folder)
}

/// Answers what is asked, from what the desk knows.
pub(super) struct Judge {
    desk: OnceLock<Weak<TrustDesk>>,
    intake: Intake,
    own: String,
    /// Where code is refused; nowhere until it is said.
    bound: Mutex<Option<Binding>>,
}

impl Judge {
    /// From here on this desk decides.
    pub(super) fn listen_to(&self, desk: &Arc<TrustDesk>) {
        // There is one desk, and it is given once.
        let _ = self.desk.set(Arc::downgrade(desk));
    }

    fn refuses(&self, cgroup: &str, kind: CodeKind) -> bool {
        lock(&self.bound).as_ref().is_some_and(|binding| binding.refuses(cgroup, kind))
    }

    fn answer(&self, ask: &Ask) -> Answer {
        let kind = match ask.kind {
            AskKind::Program => CodeKind::Exec,
            AskKind::Library => CodeKind::Library,
            AskKind::Script => CodeKind::Script,
        };
        // Nobody is refused whom nobody knows.
        let Some(cgroup) = davy_proc::cgroup(ask.pid) else { return Answer::Allow };
        if is_own(&cgroup, &self.own) || !self.refuses(&cgroup, kind) {
            return Answer::Allow;
        }
        let Some(desk) = self.desk.get().and_then(Weak::upgrade) else { return Answer::Allow };
        let digest = ask.digest().ok().map(Sha256);
        let nameless = ask.content.metadata().is_ok_and(|found| found.nlink() == 0);
        // Its path is another's to choose, by a mount of his own: no folder vouches for it here.
        let question = Question { digest, path: "", nameless, failsafe: None };
        let ruling = desk.ruling(&question, clock::now());
        let written = ask.steadiness == Steadiness::Written;
        if ruling.allowed && !written {
            return Answer::AllowAnyone;
        }
        let judgement = CodeJudgement {
            kind: if nameless { CodeKind::Nameless } else { kind },
            outcome: CodeOutcome::Denied,
            reason: reason(&ruling, digest, written),
            file: Some(ask.file),
            path: Some(ask.path.clone()),
            sha256: digest,
            repeats: 0,
        };
        let kind = EventKind::CodeJudged(Box::new(judgement));
        self.intake.event(Event { time: clock::now(), process: davy_proc::key(ask.pid), kind });
        Answer::Deny
    }
}

fn reason(ruling: &Ruling, digest: Option<Sha256>, written: bool) -> CodeReason {
    match ruling.rank {
        Rank::Blocked => CodeReason::Blocked,
        _ if written => CodeReason::OpenForWriting,
        Rank::Nameless => CodeReason::Nameless,
        _ if digest.is_none() => CodeReason::Unreadable,
        _ => CodeReason::Unknown,
    }
}

impl Binding {
    fn refuses(&self, cgroup: &str, kind: CodeKind) -> bool {
        let inside = |scopes: &[String]| scopes.iter().any(|scope| standing::within(cgroup, scope));
        let modes = if inside(&self.cgroups) { &self.inside } else { &self.outside };
        inside(&self.rehearsed) || modes.contains(&(kind, Mode::Enforce))
    }
}

/// Whether it is the agent's cgroup or below. An agent in the root of all cgroups has no other below it for its own.
fn is_own(cgroup: &str, own: &str) -> bool {
    cgroup == own || (own != "/" && standing::within(cgroup, own))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
            ]
        };
        let bound = |cgroups: &[&str], inside, outside, rehearsed: &[&str]| Binding {
            cgroups: cgroups.iter().map(|c| (*c).to_owned()).collect(),
            inside: modes(inside),
            outside: modes(outside),
            rehearsed: rehearsed.iter().map(|c| (*c).to_owned()).collect(),
        };
        let scoped = bound(&["/web"], Mode::Enforce, Mode::Observe, &["/drill"]);
        assert!(scoped.refuses("/web/a", CodeKind::Exec) && !scoped.refuses("/webb", CodeKind::Exec));
        assert!(!scoped.refuses("/web", CodeKind::Script) && !scoped.refuses("/web", CodeKind::Library));
        assert!(scoped.refuses("/drill/attempt", CodeKind::Script));
        assert!(!scoped.refuses("/", CodeKind::Exec));
        assert!(!bound(&[], Mode::Observe, Mode::Observe, &[]).refuses("/web", CodeKind::Exec));
        assert!(bound(&[], Mode::Enforce, Mode::Enforce, &[]).refuses("/web", CodeKind::Exec));
    }

    #[test]
    fn the_agents_own_is_spared_and_the_root_is_not_all_its_own() {
        assert!(is_own("/davy/worker", "/davy") && !is_own("/davy2", "/davy"));
        assert!(is_own("/", "/") && !is_own("/web", "/"));
    }

    #[test]
    fn only_a_mount_that_nobody_goes_through_is_marked_for_a_rehearsal() {
        let said = |path: &str| own_mount(Path::new(path)).unwrap_err().to_string();
        assert!(said("/").contains("others"), "{}", said("/"));
        assert!(said("/proc/self").contains("not the root"), "{}", said("/proc/self"));
        if let Ok(detached) = davy_files::permission::detached_mount("64k") {
            own_mount(Path::new(&format!("/proc/self/fd/{}", detached.as_raw_fd()))).unwrap();
        }
    }
}
