use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::Paths;

/// The lock that keeps a second agent off the same folders. Dropped with the process, even by kill -9.
#[derive(Debug)]
pub(crate) struct Instance {
    lock: File,
}

impl Instance {
    /// Makes the agent's folders, but for its state's, and takes its lock.
    ///
    /// # Errors
    /// When a folder cannot be made, or another agent holds the lock; the message names its pid.
    pub(crate) fn claim(paths: &Paths) -> Result<Self> {
        make(&paths.run)?;
        // An installed agent on a disk that takes nothing watches by the policy that is built in.
        if let (Err(error), Some(_)) = (make(&paths.config), &paths.base) {
            return Err(error);
        }
        let path = paths.run.join("agent.lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            // The pid is for the message only; without it the message is still right.
            let _ = lock.read_to_string(&mut pid);
            bail!(
                "another agent (pid {}) already uses {}; stop it with `davy stop`, or start this one with --base-dir DIR",
                pid.trim(),
                paths.run.display()
            );
        }
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { lock })
    }
}

fn make(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.with_context(|| unwritable(folder))
}

/// What cannot be done, and what to do instead.
pub(crate) fn unwritable(path: &Path) -> String {
    format!(
        "cannot write {}; where this user may not write or the disk is read-only or full, keep everything elsewhere with \
         --base-dir DIR, such as a folder under /run",
        path.display()
    )
}

impl Drop for Instance {
    fn drop(&mut self) {
        // The kernel lets go of the lock with the file; an emptied file tells readers that nobody holds it.
        let _ = self.lock.set_len(0);
    }
}
