//! The unprivileged workers. Each is this very program, started with a socket as its standard input and output; it confines
//! itself, and then answers question after question until whoever asks hangs up. [`WorkerProcess`] is the asking side.

mod asking;
mod inspect;
mod intake;
mod scan;

use std::io;

use anyhow::{Context, Result};
use davy_confine::{Allowance, confine};

pub use asking::WorkerProcess;

/// Address space of the `inspect` worker in bytes: what its bounds allow, several times over.
const INSPECT_MEMORY: u64 = 512 << 20;

/// What the `scan` worker may map beside the program itself, in bytes. With a release build's program of less than 40 MB no
/// input can make it have more than 250 MB resident. Some of it is set aside by the rules' interpreter and never used.
const SCAN_MEMORY: u64 = 205_000_000;

/// Works as the agent's `inspect` worker over standard input and output until the other end is closed.
///
/// # Errors
/// When it cannot be confined, or the agent says what it does not understand.
pub fn inspect() -> Result<()> {
    // Nothing is read before the process is confined, not even the agent's first words.
    let confinement = confine(Allowance { memory: INSPECT_MEMORY, receives_files: false })?;
    inspect::serve(&mut io::stdin().lock(), &mut io::stdout().lock(), confinement)
}

/// Works as a `scan` worker over standard input and output until the other end is closed.
///
/// # Errors
/// When it cannot be confined, or is told what it does not understand.
pub fn scan() -> Result<()> {
    let memory = own_size().context("reading how large the program is")? + SCAN_MEMORY;
    let confinement = confine(Allowance { memory, receives_files: true })?;
    scan::serve(&mut intake::Intake::new(io::stdin()), &mut io::stdout().lock(), confinement)
}

/// Keeps the agent's permission gate until the agent is gone. It stays root, which permission events need, and reads no
/// file's bytes.
///
/// # Errors
/// When the kernel has no permission events for it.
pub fn keep_gate() -> Result<()> {
    Ok(davy_files::permission::keep()?)
}

/// The address space that this process has already: before anything was read, that is its program.
fn own_size() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}
