//! The unprivileged workers. Each is this very program, started with a socket as its standard input and output; it confines
//! itself, and then answers question after question until whoever asks hangs up. [`WorkerProcess`] is the asking side.

mod asking;
mod inspect;
mod intake;
mod scan;

use std::io;

use anyhow::Result;
use davy_confine::{Allowance, confine};

pub use asking::WorkerProcess;

/// Address space of the `inspect` worker in bytes: what its bounds allow, several times over.
const INSPECT_MEMORY: u64 = 512 << 20;

/// Address space of the `scan` worker in bytes. A third of it is set aside by the rules' interpreter and never used; what
/// is used stays below 250 MB.
const SCAN_MEMORY: u64 = 384 << 20;

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
    let confinement = confine(Allowance { memory: SCAN_MEMORY, receives_files: true })?;
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
