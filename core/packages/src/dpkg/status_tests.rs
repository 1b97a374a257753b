use super::*;

const STATUS: &[u8] = b"
Package: adduser
Status: install ok installed
Maintainer: Andr\xe9 <a@example.org>
Architecture: all
Multi-Arch: foreign
Version: 3.134
Conffiles:
 /etc/adduser.conf cc3493ecd2d09837ffdcc3e25fdfff18
 /etc/with space.conf 11a06baf8245fd8d690b99024d228c1f obsolete
 /etc/new newconffile
 /etc/gone newconffile remove-on-upgrade
Description: add and remove users
 It says Package: nothing
 .
 more

Package: libc6
Status: hold ok half-configured
Architecture: amd64
Multi-Arch: same
Version: 2.36-9+deb12u14


Package: broken
Status: install ok exploded

no colon here

Package: ../../etc/passwd
Status: install ok installed

Package: last
Status: deinstall ok config-files
Architecture: i386
Version: 1:2-3
Conffiles:
 relative/path cc3493ecd2d09837ffdcc3e25fdfff18
 /etc/x nonsense";

fn find<'a>(read: &'a Read<Vec<Installed>>, name: &str) -> &'a Installed {
    read.entries.iter().find(|i| i.package.name == name).expect("the package")
}

#[test]
fn packages_are_read_with_state_and_conffiles() {
    let read = read_status("status", STATUS);
    let adduser = find(&read, "adduser");
    assert_eq!(adduser.package.to_string(), "adduser 3.134 all");
    assert_eq!(adduser.state, State::Installed);
    assert!(!adduser.per_architecture);
    assert_eq!(adduser.info_names(), ["adduser", "adduser:all"]);
    let conffiles: Vec<_> = adduser
        .conffiles
        .iter()
        .map(|c| (String::from_utf8_lossy(&c.path).into_owned(), c.md5.map(hex::encode), c.obsolete))
        .collect();
    assert_eq!(
        conffiles,
        [
            ("/etc/adduser.conf".to_owned(), Some("cc3493ecd2d09837ffdcc3e25fdfff18".to_owned()), false),
            ("/etc/with space.conf".to_owned(), Some("11a06baf8245fd8d690b99024d228c1f".to_owned()), true),
            ("/etc/new".to_owned(), None, false),
        ]
    );
    let libc = find(&read, "libc6");
    assert_eq!(libc.state, State::HalfConfigured);
    assert_eq!(libc.info_names(), ["libc6:amd64", "libc6"]);
    assert_eq!(find(&read, "last").package.version, "1:2-3");
}

#[test]
fn a_damaged_paragraph_is_named_and_costs_no_other() {
    let read = read_status("var/lib/dpkg/status", STATUS);
    assert_eq!(read.entries.len(), 3);
    let faults: Vec<String> = read.faults.first().iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 5, "{faults:#?}");
    for (fault, place) in faults.iter().zip([25, 28, 30, 33, 33]) {
        assert!(fault.starts_with(&format!("var/lib/dpkg/status:{place}: ")), "{fault}");
    }
}

#[test]
fn the_journal_replaces_what_status_said() {
    let mut status = read_status("status", STATUS).entries;
    let update =
        b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\nVersion: 9\n";
    let other =
        b"Package: libc6\nStatus: install ok installed\nArchitecture: i386\nMulti-Arch: same\nVersion: 8\n";
    apply_updates(&mut status, read_status("updates/0001", update).entries);
    apply_updates(&mut status, read_status("updates/0002", other).entries);
    let versions: Vec<_> = status.iter().map(|i| i.package.to_string()).collect();
    assert_eq!(versions, ["adduser 3.134 all", "libc6 9 amd64", "last 1:2-3 i386", "libc6 8 i386"]);
}
