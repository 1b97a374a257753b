use std::io::{self, Read};

use super::{Account, member};
use crate::Engine;
use crate::engine::Visit;

/// Members of a tar archive are not compressed: only their number and their bytes are bounded.
pub(super) fn open(engine: &mut Engine<'_>, from: impl Read, visit: &mut Visit) -> io::Result<()> {
    let account = Account::new(u64::MAX);
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            member(engine, &name, &account, &mut entry, visit)?;
        }
    }
    Ok(())
}
