use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Where cgroup v2 is mounted, also on a host that has v1 beside it.
#[must_use]
pub fn cgroup2() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    })
}

/// Where v1's pids controller is mounted.
fn v1_pids() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind, options) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup" && options.split(',').any(|option| option == "pids")).then(|| PathBuf::from(place))
    })
}

/// A cgroup that a test made, and that goes away with everything in it.
#[derive(Debug)]
pub struct Scope {
    dir: PathBuf,
    name: String,
    /// A cgroup of the same name in v1's hierarchy of pids, where that has the controller.
    pids: Option<PathBuf>,
}

impl Scope {
    /// Makes the cgroup `/davy-e2e-NAME-PID`.
    ///
    /// # Errors
    /// When there is no cgroup v2 mount, or it cannot be written.
    pub fn make(name: &str) -> Result<Self> {
        let name = format!("/davy-e2e-{name}-{}", std::process::id());
        let dir = cgroup2().context("no cgroup v2 mount")?.join(&name[1..]);
        std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir, name, pids: None })
    }

    /// Bounds how many processes may be inside at once, for those that are spawned from now on; false when neither v2 nor v1
    /// has the pids controller here.
    ///
    /// # Errors
    /// When the controller is there and does not take it.
    pub fn hold_at_most(&mut self, processes: u32) -> Result<bool> {
        let own = self.dir.join("pids.max");
        let limit = if own.exists() {
            own
        } else if let Some(mount) = v1_pids() {
            let beside = mount.join(&self.name[1..]);
            std::fs::create_dir(&beside).with_context(|| format!("cannot make {}", beside.display()))?;
            self.pids.insert(beside).join("pids.max")
        } else {
            return Ok(false);
        };
        std::fs::write(&limit, processes.to_string())
            .with_context(|| format!("cannot write {}", limit.display()))?;
        Ok(true)
    }

    /// Its path below the mount, as policies name it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a command that is inside from its first instruction on, with the streams of this process.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.enclose(command).spawn().context("the shell did not start")
    }

    /// The same as a command whose streams are still to be said: a shell moves itself in and then executes it.
    #[must_use]
    pub fn enclose(&self, command: &Command) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell
            .arg("-c")
            .arg("echo $$ > \"$0\" && echo $$ > \"$1\" && shift && exec \"$@\"")
            .arg(self.dir.join("cgroup.procs"))
            .arg(self.pids.as_ref().unwrap_or(&self.dir).join("cgroup.procs"))
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        shell
    }

    /// The pids inside, of all levels.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|l| l.parse().ok()).collect()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = std::fs::write(self.dir.join("cgroup.freeze"), "0");
        let _ = std::fs::write(self.dir.join("cgroup.kill"), "1");
        let end = Instant::now() + Duration::from_secs(5);
        for dir in std::iter::once(&self.dir).chain(&self.pids) {
            while std::fs::remove_dir(dir).is_err() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
