//! Arranges to run again and to be let in again, in a home that is nobody's.
//!
//! Start-up files and keys lie in homes, and a home may be anywhere, so Davy watches for them everywhere. This one is the
//! act's own folder: no account has it, so nothing ever reads what is written there, and it goes away with the drill.

use std::fs;
use std::time::Instant;

use anyhow::Context;

use super::steady;

/// What is written, below the home. Even where it were read, it would run nothing and let nobody in.
const ARRANGED: [(&str, &str); 3] = [
    (
        ".config/systemd/user/davy-drill.service",
        "# written by davy drill\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
    ),
    (".ssh/authorized_keys", "# written by davy drill; there is no key in here\n"),
    (".bashrc", "# written by davy drill\n"),
];

/// Writes all of it, and waits to be found.
pub(super) fn run(until: Instant) -> anyhow::Result<()> {
    let copy = super::own_copy()?;
    let home = copy.parent().context("its own program lies in no folder")?;
    for (name, text) in ARRANGED {
        let path = home.join(name);
        let what = || format!("write {}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(home)).with_context(what)?;
        fs::write(&path, text).with_context(what)?;
    }
    steady();
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
    Ok(())
}
