//! Runs the program it is from a file that has no name.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use rustix::fs::{MemfdFlags, Mode, OFlags};

/// Becomes its own copy in memory (memfd_create(2)), and computes.
pub(super) fn memfd() -> anyhow::Result<()> {
    let memory = rustix::fs::memfd_create("davy-drill", MemfdFlags::CLOEXEC).context("make a memfd")?;
    let mut own = File::open("/proc/self/exe").context("open its own program")?;
    let mut copy = File::from(memory);
    io::copy(&mut own, &mut copy).context("copy itself into memory")?;
    become_file(&copy.into())
}

/// Takes the name of its own program away, and becomes it again. The program is the drill's own copy.
pub(super) fn deleted() -> anyhow::Result<()> {
    let path = super::own_copy()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = rustix::fs::open(&path, flags, Mode::empty()).context("open its own program")?;
    fs::remove_file(&path).context("take its own program's name away")?;
    become_file(&open)
}

/// Executes the open file, which closes with it: a program needs no descriptor to itself.
fn become_file(file: &OwnedFd) -> anyhow::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Err(Command::new(&path).args(["drill-act", "compute", "1"]).exec())
        .context("execute a file without a name")
}
