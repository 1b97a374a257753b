//! The agent's unprivileged workers. Each is this very program, started by the agent with a socket as its standard input and
//! output; it confines itself, and then answers question after question until the agent hangs up.

mod inspect;

use std::io;

use anyhow::Result;

/// Address space of the `inspect` worker in bytes: what its bounds allow, several times over.
const INSPECT_MEMORY: u64 = 512 << 20;

/// Works as the agent's `inspect` worker over standard input and output until the other end is closed.
///
/// # Errors
/// When it cannot be confined, or the agent says what it does not understand.
pub fn inspect() -> Result<()> {
    // Nothing is read before the process is confined, not even the agent's first words.
    let confinement = davy_confine::confine(INSPECT_MEMORY)?;
    inspect::serve(&mut io::stdin().lock(), &mut io::stdout().lock(), confinement)
}
