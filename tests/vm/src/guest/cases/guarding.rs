use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use davy_kernel::{BlockScope, Blocker, RefusedAct, SelfGuard, SensorConfig, cgroup_id};
use davy_model::{Destination, FileId};
use libbpf_rs::{Link, MapCore, MapHandle};

use super::blocking::{blocker, reaches};
use super::{Cell, SELF, Started};
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
    /// With the guard on.
    fn set() -> Result<Self> {
        let scene = Self::unguarded(SensorConfig::new(0))?;
        scene.guard()?;
        Ok(scene)
    }

    fn unguarded(config: SensorConfig) -> Result<Self> {
        let (inside, outside) = (Cell::make("agent")?, Cell::make("outsider")?);
        inside.enter()?;
        let worker = Started(Command::new("/bin/sleep").arg("60").spawn()?);
        let folder = format!("/tmp/guarded-{}", std::process::id());
        fs::create_dir_all(format!("{folder}/store"))?;
        fs::write(format!("{folder}/policy"), "before")?;
        let watch = Watch::with(config)?;
        Ok(Self { watch, worker, folder, inside, outside })
    }

    fn guard(&self) -> Result<()> {
        let folder = &self.folder;
        self.watch
            .sensors
            .guard_self(&SelfGuard {
                processes: vec![std::process::id(), self.worker.pid()],
                cgroup: self.inside.0.clone(),
                files: vec![identity(folder)?, identity(&format!("{folder}/policy"))?],
                folders: vec![identity(&format!("{folder}/store"))?],
            })
            .context("switching the guard on")
    }

    /// What came of an act of the outsider's, in the guarded folder.
    fn attempt(&self, act: &str) -> Result<Output> {
        self.outside.shell(&format!("cd {} && {act}", self.folder))
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
    for act in [
        "echo after >policy",
        "truncate -s 0 policy",
        "rm -f policy",
        "mv policy other",
        "ln policy /tmp/other",
        "touch beside",
        "ln -s /etc beside",
        "mkdir beside",
    ] {
        denied(&scene.attempt(act)?, act)?;
    }
    // What came into the folder after the guard is guarded with it.
    allowed(&scene.inside.shell(&format!("echo before >{folder}/store/later"))?, "writing from inside")?;
    denied(&scene.attempt("echo after >store/later")?, "writing what came later")?;
    allowed(&scene.attempt("cat store/later")?, "reading what came later")?;
    let text = fs::read_to_string(format!("{folder}/policy"))?;
    ensure!(text == "before", "the file says {text:?}");
    scene.refused(RefusedAct::FileChange)?;
    allowed(&scene.outside.shell(&format!("cat {folder}/policy"))?, "reading from outside")?;
    allowed(
        &scene.inside.shell(&format!("cd {folder} && echo after >policy && rm policy"))?,
        "changing from inside",
    )
}

/// Owner, mode, times, extended attributes, access lists and flags are not changed from outside: of a guarded file, nor of
/// what lies in a guarded folder.
pub(super) fn guarded_attributes_are_not_changed() -> Result<()> {
    let scene = Scene::unguarded(SensorConfig::new(0))?;
    fs::write(format!("{}/store/later", scene.folder), "")?;
    let mut acts = vec!["chmod 700 .".to_owned(), "chown 1 store".to_owned()];
    for file in ["policy", "store/later"] {
        acts.extend([
            format!("chmod 777 {file}"),
            format!("chown 1 {file}"),
            format!("touch -d @1000 {file}"),
            format!("{SELF} act set-attribute {file} trusted.davy new"),
            format!("{SELF} act remove-attribute {file} trusted.davy"),
            format!("{SELF} act set-access-list {file}"),
            format!("{SELF} act make-immutable {file}"),
            format!("{SELF} act make-mutable {file}"),
        ]);
    }
    // Every one of them is something that this outsider can do, to this file system.
    for act in &acts {
        allowed(&scene.attempt(act)?, act)?;
    }
    scene.inside.shell(&format!(
        "for f in policy store/later; do {SELF} act set-attribute {}/$f trusted.davy old; done",
        scene.folder
    ))?;
    scene.guard()?;
    for act in &acts {
        denied(&scene.attempt(act)?, act)?;
    }
    scene.refused(RefusedAct::FileChange)?;
    // Someone else's files are their own business, and the agent's are its own.
    let elsewhere = acts.iter().map(|act| act.replace("store/later", "policy"));
    let elsewhere = elsewhere.collect::<Vec<_>>().join(" && ");
    let elsewhere =
        format!("mkdir -p /tmp/elsewhere/store && cd /tmp/elsewhere && echo >policy && {elsewhere}");
    allowed(&scene.outside.shell(&elsewhere)?, "the same to files of one's own")?;
    let within = format!("cd {} && {}", scene.folder, acts.join(" && "));
    allowed(&scene.inside.shell(&within)?, "the same from inside")
}

/// A destination that an agent closed to one cgroup, and pinned.
struct Closed {
    bad: Cell,
    pool: TcpListener,
    blocker: Blocker,
}

/// Where a [`Closed`] is pinned.
const PINS: &str = "/sys/fs/bpf/guarded";

impl Closed {
    fn config() -> SensorConfig {
        let mut config = SensorConfig::new(0);
        config.pin = Some(PINS.into());
        config
    }

    fn close(watch: &Watch, bad: Cell) -> Result<Self> {
        let pool = TcpListener::bind("127.0.0.1:0")?;
        let address = pool.local_addr()?;
        let destination = Destination { address: address.ip(), port: address.port() };
        let closed = Self { bad, pool, blocker: blocker(watch)? };
        closed.blocker.block(destination, BlockScope::Cgroup(cgroup_id(&closed.bad.0)?), None)?;
        closed.holds()?;
        Ok(closed)
    }

    fn holds(&self) -> Result<()> {
        reaches(&self.bad, self.pool.local_addr()?, false)
    }

    fn is_open(&self) -> Result<()> {
        reaches(&self.bad, self.pool.local_addr()?, true)
    }

    /// Ways to open it, by pins and by ids, which the agent reads here. The last one does.
    fn attacks() -> Result<Vec<String>> {
        let table = MapHandle::from_pinned_path(format!("{PINS}/blocked"))?.info()?.info.id;
        let link = Link::open(format!("{PINS}/{LINK}"))?.info()?.id;
        Ok(vec![
            format!("{SELF} act empty {PINS}/blocked"),
            format!("{SELF} act empty-by-id {table}"),
            format!("{SELF} act take-link {link}"),
            format!("for pin in {PINS}/link_*; do {SELF} act detach $pin || exit; done"),
        ])
    }
}

/// One of the pinned links.
const LINK: &str = "link_block_connect_v4";

/// What enforces is not detached, emptied or unpinned from outside: by its pin, or by its id.
pub(super) fn guarded_pins_are_not_taken() -> Result<()> {
    // Without the guard, root opens what is closed.
    let scene = Scene::unguarded(Closed::config())?;
    let closed = Closed::close(&scene.watch, Cell::make("bad")?)?;
    for act in Closed::attacks()? {
        allowed(&scene.attempt(&act)?, &act)?;
    }
    closed.is_open()?;
    drop(scene.watch);
    closed.blocker.release()?;

    // With it, on what a later agent pins when it is guarded already.
    let scene = Scene { watch: Watch::with(Closed::config())?, ..scene };
    scene.guard()?;
    let closed = Closed::close(&scene.watch, closed.bad)?;
    let mut acts = Closed::attacks()?;
    acts.extend([
        format!("rm {PINS}/{LINK}"),
        format!("chmod 600 {PINS}/{LINK}"),
        format!("ln {PINS}/{LINK} /sys/fs/bpf/other"),
        format!("mv {PINS} {PINS}-away"),
    ]);
    for act in &acts {
        denied(&scene.attempt(act)?, act)?;
    }
    closed.holds().context("after all attempts")?;
    scene.refused(RefusedAct::BpfAccess)?;
    // Overriding a mode is refused for pins alone.
    let file = "/tmp/nobody-may";
    let read = format!("echo >{file} && chmod 0 {file} && chown 1 {file} && cat {file}");
    allowed(&scene.outside.shell(&read)?, "reading a file that has no mode")?;

    // The next agent takes over what this one leaves, pins without a mode and all.
    drop(scene.watch);
    let next = Watch::with(Closed::config())?;
    ensure!(blocker(&next)?.list()?.len() == 1, "the next agent lists {:?}", blocker(&next)?.list()?);
    closed.holds()?;
    let detach = format!("{SELF} act detach {PINS}/{LINK}");
    allowed(&scene.outside.shell(&detach)?, "detaching what nobody guards")?;
    blocker(&next)?.release()?;
    closed.is_open()
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
