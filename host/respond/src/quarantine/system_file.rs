//! Files the system cannot do without. An attacker's script runs in the system's own interpreter, and taking that
//! away would harm the host more than the attacker did.

use std::{fs, path::Path};

use davy_model::FileId;

use crate::process::file_id;

const FILES: [&str; 36] = [
    "/bin/sh",
    "/bin/bash",
    "/bin/dash",
    "/bin/busybox",
    "/bin/cat",
    "/bin/ls",
    "/bin/login",
    "/bin/mount",
    "/sbin/init",
    "/sbin/agetty",
    "/usr/bin/bash",
    "/usr/bin/zsh",
    "/usr/bin/env",
    "/usr/bin/perl",
    "/usr/bin/python3",
    "/usr/bin/awk",
    "/usr/bin/sudo",
    "/usr/bin/su",
    "/usr/bin/apt",
    "/usr/bin/apt-get",
    "/usr/bin/dpkg",
    "/usr/bin/rpm",
    "/usr/bin/systemctl",
    "/usr/bin/dbus-daemon",
    "/usr/bin/curl",
    "/usr/bin/wget",
    "/usr/bin/setsid",
    "/usr/bin/nohup",
    "/usr/bin/timeout",
    "/usr/bin/java",
    "/usr/sbin/sshd",
    "/usr/sbin/cron",
    "/usr/sbin/crond",
    "/usr/lib/systemd/systemd",
    "/etc/ld.so.cache",
    "/etc/passwd",
];

/// Folders in which names that begin so are the system's own.
const FAMILIES: [(&str, &[&str]); 8] = [
    ("/usr/bin", &["python", "perl5", "php", "ruby", "node", "lua", "gawk", "mawk"]),
    ("/usr/lib/systemd", &["systemd"]),
    ("/lib", &["ld-", "libc.", "libc-", "libpthread", "libdl", "libm."]),
    ("/lib64", &["ld-", "libc.", "libc-", "libpthread", "libdl", "libm."]),
    ("/lib/x86_64-linux-gnu", &["ld-", "libc.", "libc-", "libpthread", "libdl", "libm."]),
    ("/lib/aarch64-linux-gnu", &["ld-", "libc.", "libc-", "libpthread", "libdl", "libm."]),
    ("/usr/lib/openssh", &["sshd"]),
    ("/lib/security", &["pam_"]),
];

/// The system's path of this file, when it is one of the system's own.
pub(crate) fn owner_of(file: FileId) -> Option<String> {
    let own = file_id(Path::new("/proc/self/exe")) == Some(file);
    if own {
        return Some("Davy's own program".into());
    }
    let listed = FILES.iter().find(|path| file_id(Path::new(path)) == Some(file));
    if let Some(path) = listed {
        return Some((*path).to_owned());
    }
    FAMILIES.iter().find_map(|(folder, beginnings)| {
        let entries = fs::read_dir(folder).ok()?;
        entries.flatten().find_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            let listed = beginnings.iter().any(|beginning| name.starts_with(beginning));
            (listed && file_id(&entry.path()) == Some(file)).then(|| format!("{folder}/{name}"))
        })
    })
}
