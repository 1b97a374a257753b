//! Where the agent's state lies: on the disk, or, where the disk takes nothing, in memory.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use davy_store::Limits;

use crate::Paths;

/// Bytes that a disk must still take for a store to be begun on it: its ledger with the reserves, and the key of the
/// quarantine.
const ROOM: usize = 4 << 20;

/// Bound on a store in memory, and what is left there to others, in bytes.
const IN_MEMORY: u64 = 32 << 20;
const LEFT_IN_MEMORY: u64 = 8 << 20;

/// The bounds of a store in memory, nowhere wider than those it would have on the disk.
pub(crate) fn in_memory(usual: Limits) -> Limits {
    Limits { max_bytes: usual.max_bytes.min(IN_MEMORY), low_water: LEFT_IN_MEMORY, ..usual }
}

/// The state folder in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Where it is.
    pub(crate) folder: PathBuf,
    /// Why it is not where it should be, and nothing outlives a reboot; `None` when it is.
    pub(crate) temporary: Option<String>,
}

impl State {
    /// Takes the state folder. An installed agent whose folder cannot be written goes on with one beside its sockets, in
    /// memory; what a folder that was asked for by `--base-dir` refuses is an error.
    ///
    /// # Errors
    /// When neither can be written.
    pub(crate) fn take(paths: &Paths) -> Result<Self> {
        let Err(refused) = writable(&paths.state) else {
            return Ok(Self { folder: paths.state.clone(), temporary: None });
        };
        let why = format!("{} cannot be written: {}", refused.path.display(), refused.error);
        if paths.base.is_some() {
            return Err(anyhow!(refused.error)).with_context(|| crate::instance::unwritable(&refused.path));
        }
        let folder = paths.run.join("state");
        writable(&folder)
            .map_err(|second| anyhow!("{why}; nor can {}: {}", second.path.display(), second.error))?;
        tracing::error!(
            "{why}. Protection goes on; history and journal lie in memory, in {}, at most {} MiB, until the next reboot or \
             stop, and no file is taken into quarantine. Make it writable and start the agent again",
            folder.display(),
            IN_MEMORY >> 20
        );
        Ok(Self { folder, temporary: Some(why) })
    }
}

/// What could not be written, and why.
struct Refused {
    path: PathBuf,
    error: io::Error,
}

/// Makes the folder where it is missing, and finds out whether a store can be kept in it. An existing store is only opened:
/// on a full disk it lives on its reserves.
fn writable(folder: &Path) -> Result<(), Refused> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |error| Refused { path, error }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(refused(folder))?;
    let ledger = folder.join("store/main.db");
    if ledger.exists() {
        return OpenOptions::new().write(true).open(&ledger).map(drop).map_err(refused(&ledger));
    }
    let trial = folder.join(".trial");
    let written = File::create(&trial).and_then(|mut file| {
        file.write_all(&vec![0; ROOM])?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&trial);
    written.and(removed).map_err(refused(folder))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A folder that nobody can make, root neither: its parent is a file.
    fn paths(below: &Path, base: bool) -> Paths {
        std::fs::write(below.join("file"), "").unwrap();
        Paths {
            config: below.join("etc"),
            state: below.join("file/state"),
            run: below.join("run"),
            base: base.then(|| below.to_owned()),
        }
    }

    #[test]
    fn an_installed_agent_goes_on_beside_its_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path(), false);
        let state = State::take(&paths).unwrap();
        assert_eq!(state.folder, paths.run.join("state"));
        let why = state.temporary.unwrap();
        assert!(why.contains("file/state cannot be written: Not a directory"), "{why}");
        assert_eq!(std::fs::read_dir(&state.folder).unwrap().count(), 0, "the trial is taken away");
    }

    #[test]
    fn a_folder_that_was_asked_for_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = State::take(&paths(folder.path(), true)).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("file/state") && text.contains("--base-dir"), "{text}");
    }

    #[test]
    fn a_folder_that_takes_what_it_must_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths { base: None, ..Paths::new(Some(folder.path())) };
        let state = State::take(&paths).unwrap();
        assert_eq!(state, State { folder: paths.state, temporary: None });
    }
}
