//! Programs of the system that failsafes know, and how to tell them from pretenders.

use std::{fs, path::Path};

use crate::process::{effective_uid, file_id, image};

/// Who a process is, when it is one of the system's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The init system and what it cannot live without.
    System(&'static str),
    /// A package manager at work: interrupting it leaves packages half installed.
    PackageManager(&'static str),
    /// Lets people in.
    Door,
}

const SYSTEM: [(&str, &str); 10] = [
    ("/usr/lib/systemd/systemd", "systemd"),
    ("/usr/lib/systemd/systemd-journald", "systemd-journald"),
    ("/usr/lib/systemd/systemd-udevd", "systemd-udevd"),
    ("/usr/bin/udevadm", "systemd-udevd"),
    ("/usr/lib/systemd/systemd-logind", "systemd-logind"),
    ("/usr/lib/systemd/systemd-executor", "systemd"),
    ("/usr/bin/dbus-daemon", "the system bus"),
    ("/usr/bin/dbus-broker", "the system bus"),
    ("/usr/bin/dbus-broker-launch", "the system bus"),
    ("/usr/sbin/init", "init"),
];

const PACKAGE_MANAGERS: [&str; 14] = [
    "/usr/bin/dpkg",
    "/usr/bin/apt",
    "/usr/bin/apt-get",
    "/usr/bin/aptitude",
    "/usr/bin/unattended-upgrade",
    "/usr/bin/rpm",
    "/usr/bin/dnf",
    "/usr/bin/dnf5",
    "/usr/bin/yum",
    "/usr/bin/zypper",
    "/usr/bin/pacman",
    "/usr/sbin/apk",
    "/sbin/apk",
    "/usr/bin/snap",
];

const DOORS: [&str; 8] = [
    "/usr/sbin/sshd",
    "/usr/lib/openssh/sshd-session",
    "/usr/lib/openssh/sshd-auth",
    "/usr/libexec/openssh/sshd-session",
    "/usr/libexec/openssh/sshd-auth",
    "/usr/bin/login",
    "/usr/sbin/agetty",
    "/usr/sbin/dropbear",
];

impl Role {
    /// The role of a process, by the file it runs and the user it runs as. A name alone gives none, and neither
    /// does the right file run by an ordinary user, who could load anything into it.
    pub(crate) fn of(pid: u32, parent: u32) -> Option<Self> {
        let program = program_of(pid)?;
        if let Some(&(_, name)) = SYSTEM.iter().find(|(path, _)| *path == program) {
            let uid = effective_uid(pid)?;
            let trusted = uid == 0 || (name == "the system bus" && bus_uids().contains(&uid));
            return trusted.then_some(Self::System(name));
        }
        if let Some(&name) = PACKAGE_MANAGERS.iter().find(|path| **path == program) {
            return (effective_uid(pid)? == 0).then_some(Self::PackageManager(name));
        }
        // A session's own half of sshd runs as its user, below the half that runs as root.
        let is_door = |program: &str| DOORS.contains(&program);
        let root_above = || {
            effective_uid(parent) == Some(0) && program_of(parent).is_some_and(|program| is_door(&program))
        };
        (is_door(&program) && (effective_uid(pid)? == 0 || root_above())).then_some(Self::Door)
    }
}

/// The path of the program a process runs, when it is what lies at that path in Davy's own view of the file
/// system. A program that was replaced by an upgrade while it ran counts where it lives in Davy's own mount
/// namespace: there nobody but root could have put another file at a system path.
fn program_of(pid: u32) -> Option<String> {
    let (file, path) = image(pid)?;
    let path = path.to_str()?;
    match path.strip_suffix(" (deleted)") {
        Some(path) => same_mount_namespace(pid).then(|| path.to_owned()),
        None => (file_id(Path::new(path)) == Some(file)).then(|| path.to_owned()),
    }
}

fn same_mount_namespace(pid: u32) -> bool {
    let theirs = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    theirs.is_some() && theirs == fs::read_link("/proc/self/ns/mnt").ok()
}

fn bus_uids() -> Vec<u32> {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let uid = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        matches!(name, "messagebus" | "dbus").then(|| fields.nth(1)?.parse().ok())?
    };
    accounts.lines().filter_map(uid).collect()
}
