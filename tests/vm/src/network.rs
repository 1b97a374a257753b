//! A server that talks to others, for Davy to judge whom it may talk to: a web server, a database, logins, jobs by the clock
//! and updates; and everybody else, in a network namespace beside it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::archive::run;
use crate::everyday::{REPOSITORY, lay_repository_into};

/// Every step, in the order they run. Each goes on where the one before it ended.
pub const STEPS: &[&str] = &[
    "server_and_everybody_else_are_there",
    "day_of_talk_is_watched",
    "what_was_talked_is_accepted",
    "same_day_enforced_has_nothing_refused",
    "intruder_in_the_web_server_reaches_nobody",
];

/// Where the scripts lie in the machine.
pub const FOLDER: &str = "/srv/network";

/// Davy's package in the machine.
pub const PACKAGE: &str = "/opt/davy.deb";

/// Kernel modules that the scripts load.
pub const MODULES: &[&str] = &["veth"];

/// Everybody else, by unit: what each runs in the other network namespace.
const OUTSIDE: [(&str, &str); 9] = [
    ("names", "/usr/bin/python3 /srv/network/names.py"),
    ("mirror", "/usr/bin/python3 -m http.server --bind 198.51.100.80 --directory /srv 80"),
    ("application", "/usr/bin/python3 -m http.server --bind 10.0.3.10 --directory /srv/network/app 8080"),
    ("shelves", "/usr/bin/python3 -m http.server --bind 10.0.3.20 --directory /srv/network/app 8080"),
    ("clock", "/usr/sbin/chronyd -d -x -f /srv/network/clock.conf"),
    ("backup", "/usr/sbin/sshd -D -f /srv/network/sshd_config"),
    ("strangers", "/usr/bin/python3 /srv/network/strangers.py"),
    ("day@", "/srv/network/day %i"),
    ("intruder@", "/srv/network/intruder"),
];

/// Units of everybody else that go on.
pub fn outside() -> impl Iterator<Item = String> {
    OUTSIDE.iter().filter(|(name, _)| !name.ends_with('@')).map(|(name, _)| format!("outside-{name}.service"))
}

/// Lays the scripts, the units and the packages of the mirror into a root folder.
///
/// # Errors
/// When a file cannot be written, or dpkg-deb fails.
pub fn lay_into(folder: &Path) -> Result<()> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("network");
    let to = folder.join(FOLDER.trim_start_matches('/'));
    fs::create_dir_all(to.parent().context("a folder without a parent")?)?;
    run(Command::new("cp").arg("-r").arg(from).arg(&to))?;
    lay_repository_into(folder)?;
    let sources = folder.join("etc/apt");
    fs::create_dir_all(&sources)?;
    let mirror = Path::new(REPOSITORY).file_name().context("a mirror without a name")?.display();
    fs::write(
        sources.join("sources.list"),
        format!("deb [trusted=yes] http://deb.example.org/{mirror} ./\n"),
    )?;
    let units = folder.join("etc/systemd/system");
    fs::create_dir_all(&units)?;
    for (name, command) in OUTSIDE {
        // Visitors go to both sides themselves.
        let visitor = name.ends_with('@');
        let kind = if visitor {
            "Type=oneshot\nTimeoutStartSec=infinity\nStandardOutput=truncate:/run/%p.said\nStandardError=inherit\n"
        } else {
            "NetworkNamespacePath=/run/netns/outside\n"
        };
        let unit = format!("[Service]\nSlice=outside.slice\n{kind}ExecStart={command}\n");
        fs::write(units.join(format!("outside-{name}.service")), unit)?;
    }
    let fetch = format!(
        "[Service]\nType=oneshot\nTimeoutStartSec=infinity\nEnvironmentFile=/run/round\nExecStart={FOLDER}/fetch $ROUND\n"
    );
    Ok(fs::write(units.join("fetch.service"), fetch)?)
}
