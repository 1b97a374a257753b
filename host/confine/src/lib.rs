//! Gives up what a process may do, for workers that read what strangers wrote.
//!
//! [`confine`] is called once, by a process with one thread, before it reads its first hostile byte. What is given up cannot
//! be had back. After it, bytes come in and answers go out over the file descriptors that are open already; nothing else
//! can be opened, connected, executed, traced or signalled, and memory has a bound.

mod files;
mod system_calls;
mod user;

use davy_model::Confinement;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Why a process may not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It runs as root and cannot become somebody else.
    #[error("cannot become user {uid}: {source}; a worker never reads hostile bytes as root")]
    User {
        /// Whom it should have become.
        uid: u32,
        /// Why not.
        source: rustix::io::Errno,
    },
    /// A bound cannot be set.
    #[error("cannot bound {what}: {source}")]
    Bound {
        /// Of what.
        what: &'static str,
        /// Why not.
        source: rustix::io::Errno,
    },
}

/// What a worker keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Address space in bytes.
    pub memory: u64,
    /// Whether it may be handed open files over its socket (SCM_RIGHTS), one or two at a time, and read them at any place.
    pub receives_files: bool,
}

/// Descriptors that a worker may have open which is handed files: its three, and room for a few that come.
const WITH_FILES: u64 = 8;

/// Confines this process to what `allowance` says. What the kernel does not know (Landlock before Linux 5.13, a kernel built
/// without seccomp) is named in the result and left out.
///
/// # Errors
/// When it runs as root and stays root, or a bound cannot be set: then it must not go on.
pub fn confine(allowance: Allowance) -> Result<Confinement, Error> {
    let Allowance { memory, receives_files } = allowance;
    let mut missing = Vec::new();
    user::close_inherited();
    let unprivileged = user::become_nobody()?;
    bound("core files", Resource::Core, 0)?;
    bound("written files", Resource::Fsize, 0)?;
    bound("memory", Resource::As, memory)?;
    // A worker is not to be traced by others of its user, nor to leave its memory in a core file.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let files_closed = files::close().map_err(|why| missing.push(why)).is_ok();
    // After Landlock, which needs a descriptor for a moment.
    bound("open files", Resource::Nofile, if receives_files { WITH_FILES } else { 0 })?;
    let calls_filtered = system_calls::filter(receives_files).map_err(|why| missing.push(why)).is_ok();
    Ok(Confinement { unprivileged, files_closed, calls_filtered, memory, missing })
}

fn bound(what: &'static str, resource: Resource, most: u64) -> Result<(), Error> {
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(resource, limit).map_err(|source| Error::Bound { what, source })
}
