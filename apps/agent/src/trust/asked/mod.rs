//! The permission and the signal tier: where the kernel takes no programs that judge code, it asks before code runs, and this
//! answers; and what has no file is ended before its first instruction.

mod ender;
mod judge;
mod marks;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use davy_detect::Interpreters;
use davy_files::permission::{GateConfig, GateCounts, Marked, PermissionGate};
use davy_kernel::Nameless;
use davy_model::{CodeKind, Sha256};
use rustix::fs::{AtFlags, Mode as FileMode, OFlags, StatxAttributes, StatxFlags};

use super::gate::{Binding, Gate, Said};
use crate::shared::{Intake, lock};
use ender::Ender;
pub(super) use judge::Judge;
use marks::{Marks, Whose};

/// What keeps the gate: this very program, whatever became of its file's name since.
pub(crate) fn gate_keeper() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["worker", "gate"]);
    command
}

/// What the kernel asks about in the permission tier: what is executed, and what is opened.
const ASKED: [CodeKind; 4] = [CodeKind::Exec, CodeKind::Library, CodeKind::Script, CodeKind::Nameless];
const OPENED: [CodeKind; 2] = [CodeKind::Library, CodeKind::Script];

/// The gate of permission events and of signals.
pub(super) struct AskedGate {
    judge: Arc<Judge>,
    /// Whether the kernel asks.
    asks: bool,
    /// Where cgroups lie.
    cgroup2: Option<PathBuf>,
    stages: Mutex<Vec<Stage>>,
    marks: Mutex<Option<Marks>>,
    /// What the gates did that stand no longer.
    past: Mutex<GateCounts>,
    ender: Option<Ender>,
}

/// Where a rehearsal is asked about, and nothing else is. Fields in the order in which they must go.
struct Stage {
    cgroup: String,
    gate: PermissionGate,
    _mount: OwnedFd,
}

impl AskedGate {
    /// Asks about nothing and ends nothing yet. `own` is the agent's own cgroup, in which nothing is refused; `asks`
    /// whether the kernel has permission events.
    pub(super) fn new(
        intake: Intake,
        own: String,
        cgroup2: Option<PathBuf>,
        asks: bool,
        nameless: Option<Nameless>,
    ) -> Self {
        let ender = nameless.zip(cgroup2.clone()).map(|(nameless, cgroup2)| Ender::new(nameless, cgroup2));
        Self {
            judge: Arc::new(Judge::new(intake, own)),
            asks,
            cgroup2,
            stages: Mutex::default(),
            marks: Mutex::default(),
            past: Mutex::default(),
            ender,
        }
    }

    /// Who answers. Until it is given a desk, everything is allowed.
    pub(super) fn judge(&self) -> Arc<Judge> {
        Arc::clone(&self.judge)
    }

    fn open(&self, opens: bool, marks: Vec<Marked>) -> Result<PermissionGate> {
        let (judge, concerned) = (Arc::clone(&self.judge), Arc::clone(&self.judge));
        let interpreters = Interpreters::builtin();
        let config = GateConfig {
            opens,
            concerns: Box::new(move |pid| concerned.concerns(pid)),
            script_of: Box::new(move |program, arguments| interpreters.script(program, arguments)),
            ..GateConfig::new(gate_keeper, move |ask| judge.answer(ask))
        };
        Ok(PermissionGate::start(config, marks)?)
    }

    /// Asks about nothing any more, and keeps what was counted.
    fn end(&self, marks: &mut Option<Marks>) {
        if let Some(over) = marks.take() {
            let counts = over.stop();
            let mut past = lock(&self.past);
            *past = *past + counts;
        }
    }

    /// Has the mounts asked about that the scopes' processes see, while something is refused there.
    fn ask(&self, binding: &Binding) -> Result<()> {
        let mut marks = lock(&self.marks);
        if !self.asks || !binding.enforces(&ASKED) {
            self.end(&mut marks);
            return Ok(());
        }
        let everywhere = ASKED.iter().any(|kind| binding.everywhere(*kind) == davy_model::Mode::Enforce);
        let whose = match &self.cgroup2 {
            Some(cgroup2) if !everywhere => Whose::In(
                binding.cgroups.iter().map(|cgroup| cgroup2.join(cgroup.trim_start_matches('/'))).collect(),
            ),
            _ => Whose::Everybody,
        };
        let opens = binding.enforces(&OPENED);
        if marks.as_ref().is_none_or(|marks| !marks.is_for(&whose, opens)) {
            self.end(&mut marks);
            *marks = Some(Marks::new(self.open(opens, Vec::new())?, whose));
        }
        marks.iter_mut().for_each(Marks::look);
        Ok(())
    }
}

impl Gate for AskedGate {
    fn say(&self, _said: &[Said]) -> Result<()> {
        // The judge asks the desk each time; only what holds for anyone must be asked for anew.
        lock(&self.stages).iter().for_each(|stage| stage.gate.forget());
        lock(&self.marks).iter().for_each(Marks::forget);
        Ok(())
    }

    fn held(&self) -> Vec<Sha256> {
        Vec::new()
    }

    fn read(&self, _file: &File) -> Result<()> {
        // Whoever asks hands over the open file.
        Ok(())
    }

    fn wants_scripts_ahead(&self) -> bool {
        false
    }

    fn can_refuse(&self, kind: CodeKind) -> bool {
        match kind {
            CodeKind::Nameless => self.asks || self.ender.is_some(),
            kind => self.asks && ASKED.contains(&kind),
        }
    }

    fn tells_all(&self) -> bool {
        false
    }

    fn stage(&self, cgroup: &str, mount: Option<&Path>) -> Result<()> {
        let Some(mount) = mount else {
            if self.ender.is_some() && !self.asks {
                return Ok(());
            }
            bail!(
                "the kernel does not judge code here but asks about it: name a mount of the rehearsal's own"
            )
        };
        if !self.asks {
            bail!("the kernel asks nobody before code runs");
        }
        let mount = own_mount(mount).with_context(|| format!("use {} for a rehearsal", mount.display()))?;
        let folder = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        let gate = self.open(true, vec![Marked::Mount(folder)])?;
        let mut stages = lock(&self.stages);
        stages.retain(|stage| stage.cgroup != cgroup);
        stages.push(Stage { cgroup: cgroup.to_owned(), gate, _mount: mount });
        Ok(())
    }

    fn bind(&self, binding: &Binding) -> Result<()> {
        self.judge.bind(binding);
        lock(&self.stages).retain(|stage| binding.rehearsed.contains(&stage.cgroup));
        let ended = self.ender.as_ref().map_or(Ok(()), |ender| ender.bind(binding));
        self.ask(binding).and(ended)
    }

    fn unjudged(&self) -> Vec<(&'static str, u64)> {
        let standing = lock(&self.marks).as_ref().map(Marks::counts).unwrap_or_default();
        let counts = *lock(&self.past) + standing;
        vec![
            ("decisions on code, the judge was too slow", counts.late),
            ("decisions on code, all judges were held up", counts.absent),
            ("decisions on code, too much was asked at once", counts.crowded),
            ("decisions on code, the kernel's queue was full", counts.overflows),
            ("decisions on code, the gate's keeper was started again", counts.restarts),
            ("decisions on code, the judge failed", counts.panics),
        ]
    }

    fn look(&self) {
        lock(&self.marks).iter_mut().for_each(Marks::look);
        let ended = self.ender.as_ref().map(Ender::ended).unwrap_or_default();
        ended.into_iter().for_each(|event| self.judge.intake.event(event));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
