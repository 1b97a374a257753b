use std::io;

use sevenz_rust2::{ArchiveReader, Error, Password};

use super::{Account, member};
use crate::Engine;
use crate::engine::Visit;
use crate::source::{Cursor, Source};

pub(super) fn open(engine: &mut Engine<'_>, source: &dyn Source, visit: &mut Visit) -> io::Result<()> {
    let reader = io::BufReader::new(Cursor::new(source));
    let mut archive = ArchiveReader::new(reader, Password::empty()).map_err(io::Error::other)?;
    // A worker has one thread and may start no other.
    archive.set_thread_count(1);
    let account = Account::new(source.len());
    archive
        .for_each_entries(|entry, from| {
            if entry.is_directory() {
                return Ok(true);
            }
            member(engine, entry.name(), &account, from, visit).map(|()| true).map_err(Error::from)
        })
        .map_err(io::Error::other)
}
