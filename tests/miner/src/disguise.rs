use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::arguments::Arguments;

/// Names the memfd that carries the real arguments, so that the argument vector of a disguised miner says nothing.
const LEFT: &str = "OPTIONS_FD";

/// May carry arguments in place of the argument vector, each after a line's end, for a miner that is quiet from the start.
const QUIET: &str = "OPTIONS";

/// The arguments that this process left itself before it changed its clothes, or was given quietly; `None` when the
/// argument vector is all there is.
pub(crate) fn arguments_left() -> Result<Option<Vec<OsString>>> {
    let Some(number) = env::var_os(LEFT) else {
        let quiet = env::var_os(QUIET);
        return Ok(quiet.map(|text| {
            text.as_bytes().split(|b| *b == b'\n').map(|word| OsString::from_vec(word.to_vec())).collect()
        }));
    };
    let mut text = Vec::new();
    File::open(Path::new("/proc/self/fd").join(number)).and_then(|mut f| f.read_to_end(&mut text))?;
    Ok(Some(text.split(|b| *b == 0).map(|word| OsString::from_vec(word.to_vec())).collect()))
}

/// Becomes what the arguments ask for: executes itself anew where a disguise needs that, and comes back in the new
/// process to finish it.
pub(crate) fn put_on(arguments: Arguments) -> Result<Arguments> {
    let wanted =
        arguments.rename.is_some() || arguments.memfd || arguments.delete_self || arguments.user.is_some();
    if wanted && env::var_os(LEFT).is_none() {
        return Err(execute_anew(&arguments)?);
    }
    if wanted && arguments.delete_self {
        let own = fs::read_link("/proc/self/exe")?;
        fs::remove_file(&own).with_context(|| format!("delete {}", own.display()))?;
        own.parent().map(fs::remove_dir).transpose()?;
    }
    if let Some(name) = &arguments.rename {
        let name = std::ffi::CString::new(name.as_str())?;
        rustix::thread::set_name(&name).context("change the short name")?;
    }
    Ok(arguments)
}

/// Returns only when the execution failed, with the reason.
fn execute_anew(arguments: &Arguments) -> Result<anyhow::Error> {
    let program = if arguments.memfd {
        into_memfd()?
    } else if arguments.delete_self {
        into_short_lived_file(arguments.rename.as_deref(), arguments.user)?
    } else {
        env::current_exe()?
    };
    let words = arguments_left()?.unwrap_or_else(|| env::args_os().collect());
    let options = anonymous("options", &words.join(OsStr::from_bytes(&[0])))?;
    let mut command = Command::new(&program);
    command.env_clear().env(LEFT, options.as_raw_fd().to_string());
    command.arg0(arguments.rename.as_deref().unwrap_or("davy-test-miner"));
    if let Some(user) = arguments.user {
        command.uid(user).gid(user);
    }
    let reason = command.exec();
    Ok(anyhow::Error::new(reason).context(format!("execute {}", program.display())))
}

/// A memfd that stays open across execve(2), as its program and its options must.
fn anonymous(name: &str, content: &OsStr) -> Result<OwnedFd> {
    let mut file = File::from(memfd_create(name, MemfdFlags::empty())?);
    file.write_all(content.as_bytes())?;
    file.rewind()?;
    // The disguised process may be another user's, who has to open it through /proc.
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    Ok(file.into())
}

fn into_memfd() -> Result<PathBuf> {
    let mut memory = File::from(memfd_create("", MemfdFlags::empty())?);
    io::copy(&mut File::open("/proc/self/exe")?, &mut memory).context("copy itself into a memfd")?;
    let held: OwnedFd = memory.into();
    let path = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    // Execution needs the descriptor open; it ends with the process.
    std::mem::forget(held);
    Ok(path)
}

fn into_short_lived_file(name: Option<&str>, user: Option<u32>) -> Result<PathBuf> {
    let folder = tempfile::Builder::new().prefix("run").tempdir()?.keep();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    let copy = folder.join(name.map_or("miner".into(), |n| n.replace('/', "_")));
    fs::copy(env::current_exe()?, &copy).context("copy itself")?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    if let Some(user) = user {
        std::os::unix::fs::chown(&folder, Some(user), None)?;
    }
    Ok(copy)
}
