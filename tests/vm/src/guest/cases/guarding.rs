use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use davy_kernel::{RefusedAct, SelfGuard};
use davy_model::FileId;

use super::{Cell, Started};
use crate::watch::Watch;

/// What an agent guards, made small: this process and a worker in one cgroup, a folder with a file, and an outsider
/// who is root all the same.
struct Scene {
    watch: Watch,
    worker: Started,
    folder: String,
    inside: Cell,
    outside: Cell,
}

impl Scene {
    fn set() -> Result<Self> {
        let (inside, outside) = (Cell::make("agent")?, Cell::make("outsider")?);
        inside.enter()?;
        let worker = Started(Command::new("/bin/sleep").arg("60").spawn()?);
        let folder = format!("/tmp/guarded-{}", std::process::id());
        fs::create_dir(&folder)?;
        fs::write(format!("{folder}/policy"), "before")?;
        let watch = Watch::start()?;
        let files = [folder.clone(), format!("{folder}/policy")];
        let files: Result<Vec<FileId>> = files.iter().map(|path| identity(path)).collect();
        watch
            .sensors
            .guard_self(&SelfGuard {
                processes: vec![std::process::id(), worker.pid()],
                cgroup: inside.0.clone(),
                files: files?,
            })
            .context("switching the guard on")?;
        Ok(Self { watch, worker, folder, inside, outside })
    }

    fn refused(&self, wanted: RefusedAct) -> Result<()> {
        // The record comes through a ring buffer that is read in batches.
        let mut all = Vec::new();
        for _ in 0..50 {
            all.extend(self.watch.sensors.refusals());
            if all.iter().any(|refused| refused.act == wanted) {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        anyhow::bail!("no {wanted:?} among the reported refusals {all:?}")
    }
}

fn identity(path: &str) -> Result<FileId> {
    let found = fs::metadata(path)?;
    Ok(FileId { dev: found.dev(), ino: found.ino() })
}

fn denied(output: &Output, act: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() != Some(99), "the outsider could not be set up: {said}");
    ensure!(!output.status.success(), "{act} was allowed");
    ensure!(
        said.contains("not permitted") || said.contains("denied"),
        "{act} failed for another reason: {said}"
    );
    Ok(())
}

fn allowed(output: &Output, act: &str) -> Result<()> {
    ensure!(output.status.success(), "{act} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// kill -9 by root from outside is refused and reported; from inside it works.
pub(super) fn guarded_process_is_not_killed() -> Result<()> {
    let mut scene = Scene::set()?;
    let pid = scene.worker.pid();
    denied(&scene.outside.shell(&format!("kill -9 {pid}"))?, "killing from outside")?;
    denied(
        &scene.outside.shell(&format!("kill -9 {}", std::process::id()))?,
        "killing the agent from outside",
    )?;
    ensure!(scene.worker.0.try_wait()?.is_none(), "the worker is dead all the same");
    scene.refused(RefusedAct::Signal(9))?;
    // An unguarded process of the outsider is nobody's business.
    allowed(&scene.outside.shell("sleep 30 & kill -9 $!")?, "killing one's own child")?;
    allowed(&scene.inside.shell(&format!("kill -9 {pid}"))?, "killing from inside")?;
    ensure!(!scene.worker.0.wait()?.success(), "the worker was to be killed");
    Ok(())
}

/// Another's memory is not opened from outside; from inside it is.
pub(super) fn guarded_process_is_not_traced() -> Result<()> {
    let scene = Scene::set()?;
    let open = format!("exec 3<>/proc/{}/mem", scene.worker.pid());
    denied(&scene.outside.shell(&open)?, "opening the memory from outside")?;
    scene.refused(RefusedAct::Trace)?;
    allowed(&scene.inside.shell(&open)?, "opening the memory from inside")
}

/// A guarded file is not written, renamed or removed from outside, and nothing is put beside it.
pub(super) fn guarded_files_are_not_changed() -> Result<()> {
    let scene = Scene::set()?;
    let folder = &scene.folder;
    for act in ["echo after >policy", "rm -f policy", "mv policy other", "touch beside", "chmod 777 policy"] {
        denied(&scene.outside.shell(&format!("cd {folder} && {act}"))?, act)?;
    }
    let text = fs::read_to_string(format!("{folder}/policy"))?;
    ensure!(text == "before", "the file says {text:?}");
    scene.refused(RefusedAct::FileChange)?;
    allowed(&scene.outside.shell(&format!("cat {folder}/policy"))?, "reading from outside")?;
    allowed(
        &scene.inside.shell(&format!("cd {folder} && echo after >policy && rm policy"))?,
        "changing from inside",
    )
}

/// Nothing is left in the kernel when the sensors go.
pub(super) fn guard_ends_with_the_sensors() -> Result<()> {
    let mut scene = Scene::set()?;
    let pid = scene.worker.pid();
    denied(&scene.outside.shell(&format!("kill -9 {pid}"))?, "killing while guarded")?;
    drop(scene.watch);
    allowed(&scene.outside.shell(&format!("kill -9 {pid}"))?, "killing when no longer guarded")?;
    scene.worker.0.wait()?;
    Ok(())
}
