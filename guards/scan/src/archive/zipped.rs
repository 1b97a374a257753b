use std::io;

use zip::ZipArchive;

use super::{Account, member};
use crate::Engine;
use crate::engine::Visit;
use crate::source::{Cursor, Source};

pub(super) fn open(engine: &mut Engine<'_>, source: &dyn Source, visit: &mut Visit) -> io::Result<()> {
    let mut archive = ZipArchive::new(io::BufReader::new(Cursor::new(source)))?;
    let account = Account::new(source.len());
    let mut locked = 0_u32;
    for place in 0..archive.len() {
        match archive.by_index_raw(place) {
            Ok(entry) if entry.encrypted() => {
                locked += 1;
                continue;
            }
            Ok(entry) if entry.is_file() => {}
            _ => continue,
        }
        match archive.by_index(place) {
            Ok(mut entry) => {
                let name = entry.name().to_owned();
                member(engine, &name, &account, &mut entry, visit)?;
            }
            Err(error) => visit.gap(&format!("a member cannot be unpacked: {error}")),
        }
    }
    if locked > 0 {
        visit.gap(&format!("{locked} of its members are locked with a password"));
    }
    Ok(())
}
