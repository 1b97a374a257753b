//! What lies in the store's folder.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{Error, day::Day};

/// The ledger's file.
pub(crate) const LEDGER: &str = "main.db";

fn names(folder: &Path) -> Result<impl Iterator<Item = (String, fs::DirEntry)> + use<>, Error> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
    Ok(entries.flatten().filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry))))
}

fn is_ours(name: &str) -> bool {
    name.starts_with(LEDGER) || name.starts_with("events-") || name == "ballast"
}

/// Bytes of all the store's files.
pub(crate) fn bytes(folder: &Path) -> Result<u64, Error> {
    let ours = names(folder)?.filter(|(name, _)| is_ours(name));
    Ok(ours.filter_map(|(_, entry)| entry.metadata().ok()).map(|meta| meta.len()).sum())
}

/// Bytes of the store's files without the logs beside them, which come and go with each checkpoint.
pub(crate) fn settled_bytes(folder: &Path) -> Result<u64, Error> {
    let settled = names(folder)?
        .filter(|(name, _)| is_ours(name) && !name.ends_with("-wal") && !name.ends_with("-shm"));
    Ok(settled.filter_map(|(_, entry)| entry.metadata().ok()).map(|meta| meta.len()).sum())
}

/// The day files, oldest day first.
pub(crate) fn days(folder: &Path) -> Result<Vec<(Day, PathBuf)>, Error> {
    let mut days: Vec<_> =
        names(folder)?.filter_map(|(name, entry)| Some((Day::of_file_name(&name)?, entry.path()))).collect();
    days.sort();
    Ok(days)
}

/// The broken file that was set aside longest ago.
pub(crate) fn oldest_set_aside(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let aside = names(folder)?.filter(|(name, _)| {
        is_ours(name)
            && name.split_once(".db.corrupt-").is_some_and(|(_, n)| n.bytes().all(|b| b.is_ascii_digit()))
    });
    let changed = |entry: &fs::DirEntry| {
        entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    Ok(aside.min_by_key(|(_, entry)| changed(entry)).map(|(_, entry)| entry.path()))
}
