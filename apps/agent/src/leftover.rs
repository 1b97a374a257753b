//! What an agent that is gone left in force, taken away by order when no agent runs that could do it.

use anyhow::{Context, Result, anyhow};

use crate::instance::Instance;
use crate::remains::pins;
use crate::{Paths, bans, ports};

/// Takes away what an agent of these folders left in force when it ended, as `davy stop` does with a running one. Says what there
/// was, in words; what was confirmed holds again when an agent starts.
///
/// # Errors
/// When an agent runs, or the kernel refuses.
pub fn take_away_leftovers(paths: &Paths) -> Result<Vec<String>> {
    let _alone = Instance::claim(paths)?;
    let mut gone = Vec::new();
    if ports::take_away(paths).map_err(|why| anyhow!("ports are still closed: {why}"))? {
        gone.push("closed ports".to_owned());
    }
    if bans::take_away(paths).map_err(|why| anyhow!("whoever is banned still is: {why}"))? {
        gone.push("bans".to_owned());
    }
    let pins = pins(paths);
    if pins.exists() {
        std::fs::remove_dir_all(&pins).with_context(|| format!("cannot remove {}", pins.display()))?;
        gone.push("programs that were pinned in the kernel".to_owned());
    }
    Ok(gone)
}
