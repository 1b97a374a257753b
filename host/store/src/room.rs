//! Room on the disk: how much there is, and what is kept back for the journal.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Bytes kept back. A journal line is about a kilobyte, so this is room for a thousand actions.
const BALLAST: u64 = 1 << 20;

/// Knows how much room the store's disk has, and keeps a ballast file there that is let go when the journal
/// needs its room. (The ledger keeps a second reserve inside its own file, which no other program can take.)
#[derive(Clone, Debug)]
pub(crate) struct Room {
    folder: PathBuf,
    ballast: PathBuf,
    low_water: u64,
}

impl Room {
    pub(crate) fn new(folder: &Path, low_water: u64) -> Self {
        Self { folder: folder.into(), ballast: folder.join("ballast"), low_water }
    }

    /// Bytes that unprivileged programs could still write; unknown counts as plenty, since the write itself
    /// will tell.
    pub(crate) fn free(&self) -> u64 {
        statvfs(&self.folder).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Whether anything but the journal may be written.
    pub(crate) fn plenty(&self) -> bool {
        self.free() >= self.low_water
    }

    /// Lets the ballast go. `false` when there was none.
    pub(crate) fn release(&self) -> bool {
        fs::remove_file(&self.ballast).is_ok()
    }

    /// Takes ballast in again when there is room for it.
    pub(crate) fn ballast(&self) {
        if fs::metadata(&self.ballast).is_ok_and(|meta| meta.len() == BALLAST) {
            return;
        }
        if self.free() < self.low_water.saturating_add(BALLAST) {
            return;
        }
        let taken = File::create(&self.ballast)
            .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, BALLAST)?));
        if taken.is_err() {
            self.release();
        }
    }
}
