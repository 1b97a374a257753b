//! Whether the gate works on this host, tried where nobody else can come.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use super::ask::Answer;
use super::config::{GateConfig, Marked};
use super::gate::PermissionGate;

/// A file system in memory that is mounted in no namespace: it is reached through this descriptor alone
/// (`/proc/PID/fd/N`), and gone with it. A mark on it touches nobody else.
///
/// # Errors
/// Without CAP_SYS_ADMIN, and before Linux 5.2.
pub fn detached_mount(size: &str) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "size", size)?;
    fsconfig_set_string(&context, "mode", "0700")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Refuses a program of its own through a gate on a mount of its own: it must begin before and after, and not between.
///
/// # Errors
/// What did not go so, in words.
pub fn prove(keeper: impl Fn() -> Command + Send + Sync + 'static) -> Result<(), String> {
    let mount = detached_mount("64k").map_err(|error| format!("a mount of its own: {error}"))?;
    let folder = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    let program = folder.join("tried");
    File::create(&program)
        .and_then(|_| fs::set_permissions(&program, Permissions::from_mode(0o700)))
        .map_err(|error| format!("a program of its own: {error}"))?;
    let said = |when: &str, refused| match refused {
        true => Err(format!("a program that nobody refuses cannot begin {when} the gate")),
        false => Ok(()),
    };
    said("before", is_refused(&program))?;
    let config = GateConfig { threads: 1, ..GateConfig::new(keeper, |_| Answer::Deny) };
    let gate = PermissionGate::start(config, vec![Marked::Mount(folder)]).map_err(|e| e.to_string())?;
    let refused = is_refused(&program);
    let counts = gate.stop();
    if !refused || counts.asked == 0 {
        return Err("a program began although it was refused".to_owned());
    }
    said("after", is_refused(&program))
}

/// Whether the kernel does not let the program begin. It is empty, so that it cannot do anything if it does.
fn is_refused(program: &Path) -> bool {
    let mut command = Command::new(program);
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    started.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
}
