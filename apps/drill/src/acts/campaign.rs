//! A line of a shell as intruders' scripts have it: others' miners are ended by name, and no history is kept.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context;

/// The signal 0 ends nobody, and the history that is forgotten is this shell's own. Then it waits until whoever started it is gone.
const LINE: &str = "pkill -0 -x xmrig; unset HISTFILE; read line";

/// Has a shell do it, and waits to be found.
pub(super) fn run(until: Instant) -> anyhow::Result<()> {
    let mut shell = Command::new("/bin/sh");
    // What it reads from ends with this process.
    shell.args(["-c", LINE]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut shell = shell.spawn().context("start a shell")?;
    println!("steady {}", shell.id());
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
    drop(shell.stdin.take());
    shell.wait().context("wait for the shell")?;
    Ok(())
}
