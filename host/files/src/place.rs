//! Which path is a place that runs things later by itself, or lets someone in later.

use davy_model::PersistencePlace::{self, *};

/// Folders whose content, at any depth, belongs to a place.
const FOLDERS: &[(&str, PersistencePlace)] = &[
    ("/etc/cron.d/", Cron),
    ("/etc/cron.hourly/", Cron),
    ("/etc/cron.daily/", Cron),
    ("/etc/cron.weekly/", Cron),
    ("/etc/cron.monthly/", Cron),
    ("/etc/cron.yearly/", Cron),
    ("/var/spool/cron/", Cron),
    ("/var/spool/at/", Cron),
    ("/etc/systemd/system/", SystemdUnit),
    ("/etc/systemd/user/", SystemdUnit),
    ("/etc/systemd/system-generators/", SystemdUnit),
    ("/etc/systemd/user-generators/", SystemdUnit),
    ("/usr/lib/systemd/", SystemdUnit),
    ("/lib/systemd/", SystemdUnit),
    ("/usr/local/lib/systemd/", SystemdUnit),
    ("/run/systemd/system/", SystemdUnit),
    ("/run/systemd/system-generators/", SystemdUnit),
    ("/etc/init.d/", InitScript),
    ("/etc/rc.d/", InitScript),
    ("/etc/init/", InitScript),
    ("/etc/local.d/", InitScript),
    ("/etc/sv/", InitScript),
    ("/etc/service/", InitScript),
    ("/etc/runit/", InitScript),
    ("/etc/update-motd.d/", InitScript),
    ("/etc/network/if-up.d/", InitScript),
    ("/etc/network/if-pre-up.d/", InitScript),
    ("/etc/NetworkManager/dispatcher.d/", InitScript),
    ("/etc/udev/rules.d/", InitScript),
    ("/etc/ssh/authorized_keys/", AuthorizedKeys),
    ("/etc/ssh/authorized_keys.d/", AuthorizedKeys),
    ("/etc/ld.so.conf.d/", LoaderPreload),
    ("/etc/profile.d/", ShellProfile),
    ("/etc/zsh/", ShellProfile),
    ("/etc/fish/", ShellProfile),
    ("/etc/environment.d/", ShellProfile),
    ("/etc/sudoers.d/", Sudoers),
    ("/usr/local/etc/sudoers.d/", Sudoers),
    ("/etc/pam.d/", Pam),
    ("/etc/security/", Pam),
    ("/etc/modules-load.d/", KernelModule),
    ("/etc/modprobe.d/", KernelModule),
    ("/usr/lib/modules-load.d/", KernelModule),
    ("/usr/lib/modprobe.d/", KernelModule),
    ("/lib/modules/", KernelModule),
    ("/usr/lib/modules/", KernelModule),
];

/// Single files.
const FILES: &[(&str, PersistencePlace)] = &[
    ("/etc/crontab", Cron),
    ("/etc/anacrontab", Cron),
    ("/etc/inittab", InitScript),
    ("/etc/rc.local", InitScript),
    ("/etc/ld.so.preload", LoaderPreload),
    ("/etc/ld.so.conf", LoaderPreload),
    ("/etc/profile", ShellProfile),
    ("/etc/environment", ShellProfile),
    ("/etc/bash.bashrc", ShellProfile),
    ("/etc/bash.bash_logout", ShellProfile),
    ("/etc/bashrc", ShellProfile),
    ("/etc/zshrc", ShellProfile),
    ("/etc/zshenv", ShellProfile),
    ("/etc/zprofile", ShellProfile),
    ("/etc/csh.cshrc", ShellProfile),
    ("/etc/csh.login", ShellProfile),
    ("/etc/ssh/sshrc", ShellProfile),
    ("/etc/sudoers", Sudoers),
    ("/usr/local/etc/sudoers", Sudoers),
    ("/etc/doas.conf", Sudoers),
    ("/etc/pam.conf", Pam),
    ("/etc/modules", KernelModule),
    ("/etc/passwd", Accounts),
    ("/etc/shadow", Accounts),
    ("/etc/group", Accounts),
    ("/etc/gshadow", Accounts),
];

/// Start-up files that lie in a home, wherever homes are.
const HOME_FILES: &[&str] = &[
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".bash_aliases",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".zlogin",
    ".zlogout",
    ".kshrc",
    ".mkshrc",
    ".cshrc",
    ".tcshrc",
    ".login",
    ".xprofile",
    ".xinitrc",
    ".xsession",
    ".xsessionrc",
];

/// Paths below a home, by their end.
const HOME_ENDS: &[(&str, PersistencePlace)] = &[
    ("/.ssh/authorized_keys", AuthorizedKeys),
    ("/.ssh/authorized_keys2", AuthorizedKeys),
    ("/.ssh/rc", ShellProfile),
    ("/.ssh/environment", ShellProfile),
    ("/.config/fish/config.fish", ShellProfile),
];

/// Folders below a home.
const HOME_FOLDERS: &[(&str, PersistencePlace)] = &[
    ("/.config/systemd/user/", SystemdUnit),
    ("/.local/share/systemd/user/", SystemdUnit),
    ("/.config/fish/conf.d/", ShellProfile),
    ("/.config/environment.d/", ShellProfile),
];

/// Where container engines keep their root file systems, and what stands before the path inside.
const ENGINES: &[&str] = &[
    "/var/lib/docker/",
    "/var/lib/containers/",
    "/var/lib/containerd/",
    "/run/containerd/",
    "/var/lib/lxc/",
];
const ROOTS: &[&str] = &["/merged/", "/rootfs/", "/diff/", "/fs/"];

/// Names that packages and editors use for a moment, before they rename the file to its own.
const PASSING: &[&str] = &[".dpkg-new", ".dpkg-tmp", ".swp", ".swx", "~"];

/// The persistence place a path lies in, if any. The path is absolute and as the kernel gives it, without `..`; paths
/// inside of a container's root file system count as the same path would on the host.
#[must_use]
pub fn place_of(path: &str) -> Option<PersistencePlace> {
    let path = inside_container(path);
    if PASSING.iter().any(|end| path.ends_with(end)) {
        return None;
    }
    let by_file = || FILES.iter().find(|(file, _)| *file == path).map(|(_, place)| *place);
    let by_folder = || FOLDERS.iter().find(|(folder, _)| path.starts_with(folder)).map(|(_, place)| *place);
    by_file()
        .or_else(by_folder)
        .or_else(|| run_level(path))
        .or_else(|| pam_module(path))
        .or_else(|| in_home(path))
}

/// The part of a path that a container sees, when it lies in one's root.
fn inside_container(path: &str) -> &str {
    if !ENGINES.iter().any(|engine| path.starts_with(engine)) {
        return path;
    }
    let root = ROOTS.iter().filter_map(|root| path.find(root).map(|at| at + root.len() - 1)).min();
    root.map_or(path, |at| &path[at..])
}

/// `/etc/rc0.d/` to `/etc/rc6.d/` and `/etc/rcS.d/`.
fn run_level(path: &str) -> Option<PersistencePlace> {
    let rest = path.strip_prefix("/etc/rc")?;
    let level = rest.bytes().next()?;
    (matches!(level, b'0'..=b'6' | b'S') && rest[1..].starts_with(".d/")).then_some(InitScript)
}

/// PAM's modules: shared objects in a `security` folder of the system's libraries.
fn pam_module(path: &str) -> Option<PersistencePlace> {
    let in_libraries = ["/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/"].iter().any(|l| path.starts_with(l));
    let (folder, name) = path.rsplit_once('/')?;
    (in_libraries && folder.ends_with("/security") && name.ends_with(".so")).then_some(Pam)
}

fn in_home(path: &str) -> Option<PersistencePlace> {
    let (_, name) = path.rsplit_once('/')?;
    if HOME_FILES.contains(&name) {
        return Some(ShellProfile);
    }
    let by_end = HOME_ENDS.iter().find(|(end, _)| path.ends_with(end)).map(|(_, place)| *place);
    by_end.or_else(|| HOME_FOLDERS.iter().find(|(folder, _)| path.contains(folder)).map(|(_, place)| *place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_are_known() {
        let table = [
            ("/etc/crontab", Cron),
            ("/etc/cron.d/x", Cron),
            ("/var/spool/cron/crontabs/root", Cron),
            ("/var/spool/cron/root", Cron),
            ("/etc/systemd/system/x.service", SystemdUnit),
            ("/etc/systemd/system/multi-user.target.wants/x.service", SystemdUnit),
            ("/home/a/.config/systemd/user/x.timer", SystemdUnit),
            ("/etc/init.d/x", InitScript),
            ("/etc/rc3.d/S99x", InitScript),
            ("/etc/rc.local", InitScript),
            ("/root/.ssh/authorized_keys", AuthorizedKeys),
            ("/home/a/.ssh/authorized_keys2", AuthorizedKeys),
            ("/srv/www/.ssh/authorized_keys", AuthorizedKeys),
            ("/etc/ld.so.preload", LoaderPreload),
            ("/etc/ld.so.conf.d/x.conf", LoaderPreload),
            ("/root/.bashrc", ShellProfile),
            ("/etc/profile.d/x.sh", ShellProfile),
            ("/etc/sudoers.d/x", Sudoers),
            ("/etc/pam.d/sshd", Pam),
            ("/usr/lib/x86_64-linux-gnu/security/pam_x.so", Pam),
            ("/lib/modules/6.1.0/extra/x.ko", KernelModule),
            ("/etc/modules", KernelModule),
            ("/etc/shadow", Accounts),
            ("/var/lib/docker/overlay2/0123/merged/etc/cron.d/x", Cron),
            ("/run/containerd/io.containerd.runtime.v2.task/k8s.io/0123/rootfs/etc/passwd", Accounts),
            ("/var/lib/docker/overlay2/0123/diff/root/.ssh/authorized_keys", AuthorizedKeys),
        ];
        for (path, place) in table {
            assert_eq!(place_of(path), Some(place), "{path}");
        }
    }

    #[test]
    fn other_paths_are_none() {
        for path in [
            "",
            "/",
            "x",
            "/etc/cron.deny",
            "/etc/ld.so.cache",
            "/etc/rcx.d/a",
            "/etc/rc",
            "/etc/passwd-",
            "/etc/sudoers.d/x.swp",
            "/etc/cron.d/x.dpkg-new",
            "/run/systemd/transient/a.scope",
            "/tmp/etc/passwd",
            "/home/a/security/pam_x.so",
            "/var/lib/docker/overlay2/0123/merged/tmp/x",
            "/etc/rcé.d/a",
        ] {
            assert_eq!(place_of(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "(/(etc|rc|var/lib/docker|merged|diff|\\PC{0,6})){0,8}/?") {
            let _ = place_of(&path);
        }
    }
}
