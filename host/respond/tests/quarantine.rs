//! Taking real files away and putting them back.

#![allow(clippy::unwrap_used, missing_docs)]

mod stage;

use std::{
    fs::{self, Permissions},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use davy_model::{Action, ActionState, FileId, ProcessKey};
use davy_respond::{QuarantineLimits, Responder, SealedFile};
use proptest::prelude::*;
use stage::*;

fn id(path: &Path) -> FileId {
    let meta = fs::symlink_metadata(path).unwrap();
    FileId { dev: meta.dev(), ino: meta.ino() }
}

fn quarantine(path: &Path) -> Action {
    Action::Quarantine { path: path.to_str().unwrap().into(), file: id(path), process: None }
}

/// A state folder and a folder with one file, on the same disk.
fn scene(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("victim")).unwrap();
    let file = folder.path().join("victim/xmrig");
    fs::write(&file, content).unwrap();
    (folder, file)
}

fn held(responder: &Responder) -> Vec<SealedFile> {
    let (held, faults) = responder.quarantined().unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    held
}

fn content_of(responder: &Responder, number: u64) -> Vec<u8> {
    let mut content = Vec::new();
    responder.content(number).unwrap().1.read_to_end(&mut content).unwrap();
    content
}

/// A minute ago, in seconds since 1970.
fn before_now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs() as i64 - 60
}

fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = xattr::list(path)
        .unwrap()
        .map(|name| (name.to_str().unwrap().to_owned(), xattr::get(path, &name).unwrap().unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_file_comes_back_as_it_was() {
    for base in ["/tmp", "/dev/shm"] {
        let state = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir_in(base).unwrap();
        let responder = responder(state.path());
        let file = folder.path().join("miner");
        let content: Vec<u8> =
            (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        fs::write(&file, &content).unwrap();
        let mut expected = 0;
        for (name, value) in [("user.origin", &b"http://203.0.113.9/x"[..]), ("user.bytes", &[0, 255, 1, 10])]
        {
            match xattr::set(&file, name, value) {
                Ok(()) => expected += 1,
                Err(error) => println!("SKIPPED: {base} has no user attributes: {error}"),
            }
        }
        if is_root() {
            std::os::unix::fs::chown(&file, Some(65534), Some(12)).unwrap();
            // cap_net_raw as setcap(8) writes it (struct vfs_cap_data, version 2).
            let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            if xattr::set(&file, "security.capability", &capability).is_ok() {
                expected += 1;
            }
        }
        let acl = Command::new("setfacl").args(["-m", "u:1234:rwx"]).arg(&file).status();
        if !acl.is_ok_and(|status| status.success()) {
            println!("SKIPPED: setfacl or ACLs on {base} are missing");
        }
        fs::set_permissions(&file, Permissions::from_mode(0o6751)).unwrap();
        let touched = Command::new("touch").args(["-d", "2021-05-06 07:08:09.123456789"]).arg(&file).status();
        assert!(touched.unwrap().success());
        let begin = before_now();
        let before = fs::metadata(&file).unwrap();
        let attributes_before = attributes(&file);
        assert!(attributes_before.len() >= expected);

        let action = quarantine(&file);
        let outcome = act(&responder, &action);
        assert_eq!((outcome.state, outcome.undoable), (ActionState::Done, true), "{}", outcome.note);
        assert!(!file.exists());
        let listed = held(&responder);
        assert_eq!(listed.len(), 1);
        assert!(content_of(&responder, listed[0].number) == content, "the content reads back");
        for entry in fs::read_dir(state.path().join("quarantine")).unwrap().flatten() {
            assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", entry.path());
        }

        let record = line(&action, &outcome);
        let undone = responder.undo(&record);
        assert_eq!(undone.state, ActionState::Undone, "{}", undone.note);
        let after = fs::metadata(&file).unwrap();
        assert!(fs::read(&file).unwrap() == content, "the content is the same");
        let look =
            |meta: &fs::Metadata| (meta.uid(), meta.gid(), meta.mode(), meta.mtime(), meta.mtime_nsec());
        assert_eq!(look(&after), look(&before));
        if after.atime() > begin {
            println!(
                "SKIPPED: somebody else on this host reads new files, so the access time cannot be compared"
            );
        } else {
            assert_eq!((after.atime(), after.atime_nsec()), (before.atime(), before.atime_nsec()));
        }
        assert_eq!(attributes(&file), attributes_before);
        assert!(held(&responder).is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");

        let again = responder.undo(&record);
        assert_eq!(again.state, ActionState::Done, "nothing more is claimed: {}", again.note);
        assert!(!again.undoable);
        assert!(fs::read(&file).unwrap() == content);
    }
}

#[test]
fn a_file_swapped_after_preparing_is_refused() {
    let (folder, file) = scene(b"the miner");
    let responder = responder(&folder.path().join("state"));
    let action = quarantine(&file);
    let prepared = responder.prepare(&action).unwrap();
    let other = folder.path().join("victim/other");
    fs::write(&other, "the payroll").unwrap();
    fs::rename(&other, &file).unwrap();
    let outcome = responder.carry_out(&prepared);
    assert_eq!(outcome.state, ActionState::Refused, "{}", outcome.note);
    assert!(outcome.note.contains("another file"), "{}", outcome.note);
    assert_eq!(fs::read(&file).unwrap(), b"the payroll");
    assert!(held(&responder).is_empty());
}

#[test]
fn links_and_special_files_are_refused() {
    let (folder, file) = scene(b"the miner");
    let responder = responder(&folder.path().join("state"));
    let link = folder.path().join("victim/link");
    symlink(&file, &link).unwrap();
    let through_link =
        Action::Quarantine { path: link.to_str().unwrap().into(), file: id(&file), process: None };
    assert!(responder.prepare(&through_link).unwrap_err().reason.contains("another file"));
    assert!(responder.prepare(&quarantine(&link)).unwrap_err().reason.contains("not an ordinary file"));
    let null = quarantine(Path::new("/dev/null"));
    assert!(responder.prepare(&null).unwrap_err().reason.contains("not an ordinary file"));
    assert!(
        responder.prepare(&quarantine(folder.path())).unwrap_err().reason.contains("not an ordinary file")
    );
    let gone = Action::Quarantine { path: "/nowhere/at all".into(), file: id(&file), process: None };
    assert!(responder.prepare(&gone).unwrap_err().reason.contains("no such file"));
    assert!(file.exists());
}

#[test]
fn the_systems_own_programs_are_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let responder = responder(folder.path());
    for path in ["/bin/sh", "/usr/bin/env", "/usr/bin/perl", "/proc/self/exe", "/etc/passwd"] {
        let Ok(real) = fs::canonicalize(path) else { continue };
        let refusal = responder.prepare(&quarantine(&real)).unwrap_err();
        assert!(refusal.reason.contains("the system's own"), "{path}: {}", refusal.reason);
        assert!(real.exists());
    }
    // By another name it is the same file.
    let alias = folder.path().join("xmrig");
    if fs::hard_link(fs::canonicalize("/bin/sh").unwrap(), &alias).is_ok() {
        assert!(responder.prepare(&quarantine(&alias)).is_err());
    }
    // A copy is not.
    let copy = folder.path().join("sh");
    fs::copy("/bin/sh", &copy).unwrap();
    assert!(responder.prepare(&quarantine(&copy)).is_ok());
}

/// A file system in memory, mounted over a folder of the test's own.
struct Memory(PathBuf);

impl Memory {
    fn mount(folder: &Path) -> Option<Self> {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "davy-test"]).arg(folder).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder.to_owned()))
    }

    fn writable(&self, writable: bool) {
        let options = if writable { "remount,rw" } else { "remount,ro" };
        assert!(Command::new("mount").args(["-o", options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn where_nothing_can_be_written_the_file_stays_and_the_way_out_is_told() {
    let (folder, _) = scene(b"");
    let place = folder.path().join("victim");
    let Some(memory) = Memory::mount(&place) else {
        println!("SKIPPED: mounting a file system is not permitted");
        return;
    };
    let file = place.join("xmrig");
    fs::write(&file, "the miner").unwrap();
    memory.writable(false);
    let responder = responder(&folder.path().join("state"));
    let outcome = act(&responder, &quarantine(&file));
    assert_eq!(outcome.state, ActionState::Failed, "{}", outcome.note);
    assert!(outcome.note.contains("read-only for the agent"), "{}", outcome.note);
    assert!(outcome.note.contains("ReadWritePaths="), "{}", outcome.note);
    assert_eq!(fs::read(&file).unwrap(), b"the miner");
    assert!(held(&responder).is_empty(), "no copy is left of what was not taken");
    memory.writable(true);
    assert_eq!(act(&responder, &quarantine(&file)).state, ActionState::Done);
    assert!(!file.exists());
}

#[test]
fn what_came_to_its_place_is_not_written_over() {
    let (folder, file) = scene(b"the miner");
    let responder = responder(&folder.path().join("state"));
    let action = quarantine(&file);
    let outcome = act(&responder, &action);
    fs::write(&file, "new here").unwrap();
    fs::write(file.with_file_name("xmrig.davy-restored"), "this too").unwrap();
    let undone = responder.undo(&line(&action, &outcome));
    assert_eq!(undone.state, ActionState::Undone, "{}", undone.note);
    assert!(undone.note.contains("xmrig.davy-restored-2"), "{}", undone.note);
    assert_eq!(fs::read(&file).unwrap(), b"new here");
    assert_eq!(fs::read(file.with_file_name("xmrig.davy-restored-2")).unwrap(), b"the miner");
}

#[test]
fn a_link_put_in_the_way_of_undo_is_not_followed() {
    let (folder, file) = scene(b"the miner");
    let responder = responder(&folder.path().join("state"));
    let action = quarantine(&file);
    let outcome = act(&responder, &action);
    fs::remove_dir(folder.path().join("victim")).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, folder.path().join("victim")).unwrap();
    let record = line(&action, &outcome);
    let undone = responder.undo(&record);
    assert_eq!((undone.state, undone.undoable), (ActionState::Done, true), "{}", undone.note);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    // Once the folder is a folder again, the undo works.
    fs::remove_file(folder.path().join("victim")).unwrap();
    fs::create_dir(folder.path().join("victim")).unwrap();
    assert_eq!(responder.undo(&record).state, ActionState::Undone);
    assert_eq!(fs::read(&file).unwrap(), b"the miner");
}

#[test]
fn an_immutable_file_is_taken_and_comes_back_immutable() {
    let (folder, file) = scene(b"the miner");
    let chattr = |flag: &str| Command::new("chattr").arg(flag).arg(&file).status().is_ok_and(|s| s.success());
    if !chattr("+i") {
        println!("SKIPPED: root, chattr or a file system with immutable files is missing");
        return;
    }
    let responder = responder(&folder.path().join("state"));
    let action = quarantine(&file);
    let outcome = act(&responder, &action);
    let undone = responder.undo(&line(&action, &outcome));
    let immutable = fs::remove_file(&file).is_err();
    chattr("-i");
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert_eq!(undone.state, ActionState::Undone, "{}", undone.note);
    assert!(immutable, "the attribute came back");
    assert_eq!(fs::read(&file).unwrap(), b"the miner");
}

#[test]
fn a_full_quarantine_refuses_and_leaves_the_file() {
    let (folder, file) = scene(&[7; 5_000]);
    let small = |total_bytes, files, file_bytes| QuarantineLimits { total_bytes, files, file_bytes };
    for (limits, why) in [
        (small(1 << 20, 9, 4_999), "takes 4999 at most"),
        (small(4_000, 9, 1 << 20), "of 4000 bytes"),
        (small(1 << 20, 0, 1 << 20), "holds 0 files"),
    ] {
        let responder = responder_with(&folder.path().join("state"), |config| config.quarantine = limits);
        let refusal = responder.prepare(&quarantine(&file)).unwrap_err();
        assert!(refusal.reason.contains(why), "{}", refusal.reason);
    }
    assert!(file.exists());
}

#[test]
fn a_changed_seal_is_not_restored() {
    let (folder, file) = scene(&[7; 5_000]);
    let state = folder.path().join("state");
    let responder = responder(&state);
    let action = quarantine(&file);
    let outcome = act(&responder, &action);
    let sealed = state.join("quarantine/000001.sealed");
    let mut bytes = fs::read(&sealed).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&sealed, bytes).unwrap();
    let undone = responder.undo(&line(&action, &outcome));
    assert_eq!((undone.state, undone.undoable), (ActionState::Done, true), "{}", undone.note);
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 0, "nothing half restored");
}

#[test]
fn a_deleted_program_is_kept_by_the_process_that_runs_it() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("miner");
    fs::copy("/bin/sleep", &program).unwrap();
    let play = Play::run(Command::new(&program).arg("50"));
    wait_for("the program to run", || {
        fs::read_to_string(format!("/proc/{}/comm", play.root.pid)).is_ok_and(|comm| comm == "miner\n")
    });
    let file = id(&program);
    fs::remove_file(&program).unwrap();
    let responder = responder(&folder.path().join("state"));
    let action =
        Action::Quarantine { path: program.to_str().unwrap().into(), file, process: Some(play.root) };
    let outcome = act(&responder, &action);
    assert_eq!((outcome.state, outcome.undoable), (ActionState::Done, false), "{}", outcome.note);
    assert!(content_of(&responder, 1) == fs::read("/bin/sleep").unwrap());

    let stranger = ProcessKey { start_ticks: play.root.start_ticks + 1, ..play.root };
    let action = Action::Quarantine { path: program.to_str().unwrap().into(), file, process: Some(stranger) };
    assert!(responder.prepare(&action).is_err());
}

#[test]
fn a_renamed_program_is_found_by_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("miner");
    fs::copy("/bin/sleep", &program).unwrap();
    let play = Play::run(Command::new(&program).arg("50"));
    wait_for("the program to run", || {
        fs::read_to_string(format!("/proc/{}/comm", play.root.pid)).is_ok_and(|comm| comm == "miner\n")
    });
    let action = Action::Quarantine {
        path: program.to_str().unwrap().into(),
        file: id(&program),
        process: Some(play.root),
    };
    let moved = folder.path().join("nginx");
    fs::rename(&program, &moved).unwrap();
    let responder = responder(&folder.path().join("state"));
    let outcome = act(&responder, &action);
    assert_eq!((outcome.state, outcome.undoable), (ActionState::Done, true), "{}", outcome.note);
    assert!(!moved.exists());
    assert_eq!(responder.undo(&line(&action, &outcome)).state, ActionState::Undone);
    assert!(moved.exists());
}

#[test]
fn a_quarantine_cut_short_is_made_good() {
    let (folder, file) = scene(b"the miner");
    let responder = responder(&folder.path().join("state"));
    let action = quarantine(&file);
    let prepared = responder.prepare(&action).unwrap();
    let record = intended(&action, prepared.undo());
    // Died before anything was done.
    let outcome = responder.settle(&record);
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(!file.exists());
    // Died after the file was taken and before the journal knew.
    let outcome = responder.settle(&record);
    assert_eq!((outcome.state, outcome.undoable), (ActionState::Done, true), "{}", outcome.note);
    assert_eq!(held(&responder).len(), 1);
    assert_eq!(responder.undo(&line(&action, &outcome)).state, ActionState::Undone);
    // Died between the seal and the unlink.
    let action = quarantine(&file);
    let prepared = responder.prepare(&action).unwrap();
    let kept = folder.path().join("victim/kept");
    fs::hard_link(&file, &kept).unwrap();
    responder.carry_out(&prepared);
    fs::rename(&kept, &file).unwrap();
    let outcome = responder.settle(&intended(&action, prepared.undo()));
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(!file.exists());
    assert_eq!(held(&responder).len(), 1);
}

#[test]
fn names_that_are_no_text_are_restored() {
    use std::os::unix::ffi::OsStringExt;
    let folder = tempfile::tempdir().unwrap();
    let name = std::ffi::OsString::from_vec(b"mi\xffner \n".to_vec());
    let program = folder.path().join(name);
    fs::copy("/bin/sleep", &program).unwrap();
    let play = Play::run(Command::new(&program).arg("50"));
    wait_for("the program to run", || {
        fs::read_link(format!("/proc/{}/exe", play.root.pid)).is_ok_and(|exe| exe == program)
    });
    let action = Action::Quarantine {
        path: program.to_string_lossy().into(),
        file: id(&program),
        process: Some(play.root),
    };
    let responder = responder(&folder.path().join("state"));
    let outcome = act(&responder, &action);
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(!program.exists());
    assert_eq!(responder.undo(&line(&action, &outcome)).state, ActionState::Undone);
    assert!(program.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_content_comes_back(content in prop::collection::vec(any::<u8>(), 0..200_000), mode in 0_u32..0o10000) {
        let (folder, file) = scene(&content);
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let responder = responder(&folder.path().join("state"));
        let action = quarantine(&file);
        let before = fs::metadata(&file).unwrap().mode();
        let outcome = act(&responder, &action);
        prop_assert_eq!(outcome.state, ActionState::Done);
        prop_assert_eq!(responder.undo(&line(&action, &outcome)).state, ActionState::Undone);
        prop_assert_eq!(fs::metadata(&file).unwrap().mode(), before);
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        prop_assert!(fs::read(&file).unwrap() == content);
    }
}
