//! Where a drill plays: the private folder, the cgroup, the pool and its network namespace.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::actor::{Actor, FOLDER};
use crate::acts::{NOBODY, resolver_beside};
use crate::outsider::Outsider;
use crate::refuse::outcome;
use crate::scope::{Scope, is_orphan};

/// How long the pool may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many stages this process has set.
static STAGES: AtomicU32 = AtomicU32::new(1);

/// What a stage has at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// A pool in the clear, and a name server beside it.
    Clear,
    /// The same pool in TLS.
    Tls,
}

/// The pool's process, where it listens, and its certificate if it has one.
#[derive(Debug)]
struct Pool {
    actor: Actor,
    address: SocketAddr,
    certificate: String,
}

/// All that one drill needs around its act. What it made goes away with it, last the folder.
#[derive(Debug)]
pub(crate) struct Stage {
    program: PathBuf,
    pool: Option<Pool>,
    /// The pool's own, beside the rehearsed one: it must outlive what is done to the act.
    backstage: Option<Scope>,
    scope: Option<Scope>,
    copy: PathBuf,
    folder: TempDir,
}

impl Stage {
    /// Sets the stage. As root the act gets a cgroup and, with a pool, a network namespace; else neither.
    ///
    /// # Errors
    /// What could not be made.
    pub(crate) fn set(program: &Path, file_name: &str, pool: Option<Wire>) -> anyhow::Result<Self> {
        let root = rustix::process::geteuid().is_root();
        let own = format!("{FOLDER}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&own).tempdir().context("make a private folder")?;
        let copy = copy_program(program, folder.path(), file_name, root)?;
        let (scope, backstage) = if root {
            // A name of its own for each drill: what the agent found in the last one must not touch this one.
            let name = format!("{FOLDER}{}-{}", std::process::id(), STAGES.fetch_add(1, Ordering::Relaxed));
            (Some(Scope::make(&name)?), pool.map(|_| Scope::make(&format!("{name}-pool"))).transpose()?)
        } else {
            (None, None)
        };
        let mut stage = Self { program: program.to_owned(), pool: None, backstage, scope, copy, folder };
        if let Some(wire) = pool {
            stage.pool = Some(stage.open_pool(root, wire)?);
        }
        Ok(stage)
    }

    /// The cgroup v2 path that the act lives in, if it has one.
    pub(crate) fn cgroup(&self) -> Option<&str> {
        self.scope.as_ref().map(Scope::path)
    }

    /// The pool's address, if there is one.
    pub(crate) fn pool(&self) -> Option<SocketAddr> {
        self.pool.as_ref().map(|pool| pool.address)
    }

    /// What to trust the pool by; empty where it speaks in the clear.
    pub(crate) fn certificate(&self) -> &str {
        self.pool.as_ref().map_or("", |pool| &pool.certificate)
    }

    /// The name server beside it, if there is one.
    pub(crate) fn resolver(&self) -> Option<SocketAddr> {
        resolver_beside(self.pool()?)
    }

    /// The act's own program.
    pub(crate) fn copy(&self) -> &Path {
        &self.copy
    }

    /// Starts an act from the copy, under the name it gives itself.
    pub(crate) fn play(&self, argv0: &str, act: &[&str]) -> anyhow::Result<Actor> {
        self.play_from("act", &self.copy, argv0, act)
    }

    /// The same, from the network of an outsider.
    pub(crate) fn play_at(&self, outsider: &Outsider, argv0: &str, act: &[&str]) -> anyhow::Result<Actor> {
        self.enter("act", &outsider.network(), &self.copy, argv0, act)
    }

    /// The program that acts are played by.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Starts an act from a new copy and in another part of the cgroup, for when the first may be in quarantine, and its
    /// part frozen.
    pub(crate) fn play_anew(&self, file_name: &str, act: &[&str]) -> anyhow::Result<Actor> {
        let copy = self.folder.path().join(file_name);
        fs::copy(&self.program, &copy).with_context(|| format!("copy {}", self.program.display()))?;
        self.play_from("probe", &copy, file_name, act)
    }

    /// Tries code from inside the act's cgroup, made in this folder or else in the private one; gives what came of it.
    pub(crate) fn attempt(
        &self,
        code: &str,
        folder: Option<&Path>,
        patience: Duration,
    ) -> anyhow::Result<String> {
        let scope = self.scope.as_ref().context("the act has no cgroup of its own")?;
        let mut command = Command::new(&self.program);
        command.args(["drill-act", "attempt"]).arg(scope.part("attempt")?).arg(code);
        command.arg(folder.unwrap_or(self.folder.path()));
        let actor = Actor::start(command)?;
        outcome(actor.line(patience))
    }

    /// Starts an act that signals the process which listens at this socket, as root and from inside the act's cgroup.
    pub(crate) fn signal(&self, pid: u32, socket: &Path) -> anyhow::Result<Actor> {
        let scope = self.scope.as_ref().context("the act has no cgroup of its own")?;
        let mut command = Command::new(&self.program);
        command.args(["drill-act", "signal"]).arg(scope.part("act")?).arg(pid.to_string()).arg(socket);
        Actor::start(command)
    }

    fn play_from(&self, part: &str, copy: &Path, argv0: &str, act: &[&str]) -> anyhow::Result<Actor> {
        let network = match &self.pool {
            Some(pool) if self.scope.is_some() => format!("/proc/{}/ns/net", pool.actor.pid()),
            _ => "-".to_owned(),
        };
        self.enter(part, &network, copy, argv0, act)
    }

    fn enter(
        &self,
        part: &str,
        network: &str,
        copy: &Path,
        argv0: &str,
        act: &[&str],
    ) -> anyhow::Result<Actor> {
        let cgroup = match &self.scope {
            Some(scope) => scope.part(part)?,
            None => PathBuf::from("-"),
        };
        let mut command = Command::new(&self.program);
        command.args(["drill-act", "enter"]).arg(cgroup).arg(network).arg(copy).arg(argv0).args(act);
        Actor::start(command)
    }

    fn open_pool(&self, root: bool, wire: Wire) -> anyhow::Result<Pool> {
        let mut command = Command::new(&self.program);
        command.args(["drill-act", "stage", if root { "private" } else { "loopback" }]);
        command.arg(if wire == Wire::Tls { "tls" } else { "clear" });
        let actor = Actor::start(command)?;
        let (_, told) = actor.wait_for("listening", PATIENCE)?;
        if let Some(backstage) = &self.backstage {
            let procs = backstage.directory().join("cgroup.procs");
            fs::write(procs, actor.pid().to_string()).context("put the pool into its cgroup")?;
        }
        let (address, certificate) = told.split_once(' ').unwrap_or((&told, ""));
        let address = address.parse().context("read the pool's address")?;
        Ok(Pool { actor, address, certificate: certificate.to_owned() })
    }
}

/// Removes what drills left that were ended before they could clean up.
pub(crate) fn sweep() {
    Scope::sweep(FOLDER);
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        // Anyone may make such a name in a shared folder; only our own is ours to remove.
        let ours = entry.metadata().is_ok_and(|m| m.is_dir() && m.uid() == own);
        if ours && is_orphan(&entry.file_name().to_string_lossy(), FOLDER) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Copies the program into a folder of its own inside, which the act, as nobody, may change.
fn copy_program(program: &Path, folder: &Path, file_name: &str, root: bool) -> anyhow::Result<PathBuf> {
    // Others may pass through but not look.
    fs::set_permissions(folder, Permissions::from_mode(0o711)).context("open the private folder")?;
    let inner = folder.join("act");
    fs::create_dir(&inner).context("make the act's folder")?;
    let copy = inner.join(file_name);
    fs::copy(program, &copy).with_context(|| format!("copy {}", program.display()))?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).context("make the copy executable")?;
    if root {
        // Only now, when nothing more is written into it: nobody could lead a later write elsewhere.
        chown(&inner, Some(NOBODY), Some(NOBODY)).context("hand the act its folder")?;
    }
    Ok(copy)
}
