//! Things arranged to run again later, or to let someone in.

use davy_model::{FileAct, FileChange, ImageKind, PersistencePlace, Signal, Timestamp};

use crate::flow_watch::Noted;
use crate::known_names::KnownNames;
use crate::ledger::{Particulars, evidence};
use crate::process_table::Process;
use crate::weights::PERSISTENCE;

/// Programs whose work it is to write such places.
const WRITERS: [&str; 40] = [
    "dpkg",
    "apt",
    "apt-get",
    "dpkg-deb",
    "rpm",
    "dnf",
    "dnf5",
    "yum",
    "zypper",
    "apk",
    "pacman",
    "snapd",
    "snap",
    "flatpak",
    "systemd",
    "systemctl",
    "deb-systemd-helper",
    "deb-systemd-invoke",
    "update-rc.d",
    "ldconfig",
    "depmod",
    "dkms",
    "update-initramfs",
    "useradd",
    "usermod",
    "groupadd",
    "userdel",
    "passwd",
    "chpasswd",
    "chage",
    "vipw",
    "adduser",
    "cloud-init",
    "puppet",
    "chef-client",
    "salt-minion",
    "ansible",
    "visudo",
    "pam-auth-update",
    "unattended-upgr",
];

/// The place for people, and its technique.
fn describe(place: PersistencePlace) -> (&'static str, &'static str) {
    match place {
        PersistencePlace::Cron => ("a cron table", "T1053.003"),
        PersistencePlace::SystemdUnit => ("a systemd unit", "T1543.002"),
        PersistencePlace::InitScript => ("a start-up script", "T1037.004"),
        PersistencePlace::AuthorizedKeys => ("a list of login keys", "T1098.004"),
        PersistencePlace::LoaderPreload => ("what is loaded into every program", "T1574.006"),
        PersistencePlace::ShellProfile => ("a shell's start-up file", "T1546.004"),
        PersistencePlace::Sudoers => ("the rules of sudo", "T1548.003"),
        PersistencePlace::Pam => ("the login stack", "T1556.003"),
        PersistencePlace::KernelModule => ("kernel modules or their list", "T1547.006"),
        PersistencePlace::Accounts => ("the accounts", "T1136.001"),
    }
}

/// What the change of a persistence place says; `None` when a program did so whose work it is.
pub(crate) fn look(
    time: Timestamp,
    change: &FileChange,
    writer: Option<&Process>,
    names: &KnownNames,
) -> Option<Noted> {
    let place = change.place?;
    if matches!(change.act, FileAct::Deleted | FileAct::AttributesChanged) {
        return None;
    }
    let writer = writer?;
    let trusted = names.is_system(&writer.program.image.path) && writer.program.image.kind == ImageKind::File;
    if trusted && (WRITERS.contains(&writer.file_name()) || WRITERS.contains(&writer.comm.as_str())) {
        return None;
    }
    let (what, technique) = describe(place);
    // Every program on the host loads what stands there, and hardly anyone writes it by hand.
    let weight = if place == PersistencePlace::LoaderPreload { PERSISTENCE * 2.0 } else { PERSISTENCE };
    let text = format!("wrote {}, {what}", change.path);
    let found = evidence(time, Signal::Persistence, weight, text).of(writer.key).technique(technique);
    let topic = match place {
        PersistencePlace::Cron => "persistence/cron",
        PersistencePlace::SystemdUnit => "persistence/systemd",
        PersistencePlace::AuthorizedKeys => "persistence/keys",
        PersistencePlace::LoaderPreload => "persistence/preload",
        _ => "persistence",
    };
    Some((topic, found))
}
