//! An agent that dies between any two steps of taking a file, giving it back or forgetting it, and a host that loses its power
//! there: the content is never lost, and never lies in two places where it could be run.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, missing_docs)]

mod disk;
mod stage;
mod tracer;

use std::{
    fs::{self, Permissions},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use davy_model::{Action, ActionRecord, ActionState, FileId};
use davy_respond::{Responder, ResponderConfig};
use disk::Disk;
use stage::{act, intended, line};
use tracer::{End, Go, Step, step_through, trace};

const CONTENT: &[u8] = b"\x7fELF and 70 kB of a miner that nobody else has";
const TASK: &str = "DAVY_RESPOND_TASK";
const SCENE: &str = "DAVY_RESPOND_SCENE";

fn content() -> Vec<u8> {
    let noise = (0..17_500_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes());
    CONTENT.iter().copied().chain(noise).collect()
}

/// What the child does, and the test looks at.
struct Scene {
    folder: PathBuf,
}

impl Scene {
    /// A state folder and a folder with two files of one content.
    fn make(folder: &Path) -> Self {
        let scene = Self { folder: folder.to_owned() };
        fs::create_dir(folder.join("victim")).unwrap();
        for name in ["xmrig", "copy"] {
            let file = folder.join("victim").join(name);
            fs::write(&file, content()).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o751)).unwrap();
            let _ = xattr::set(&file, "user.origin", b"http://203.0.113.9/x");
            let touched =
                Command::new("touch").args(["-d", "2021-05-06 07:08:09.123456789"]).arg(&file).status();
            assert!(touched.unwrap().success());
        }
        scene
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join("victim").join(name)
    }

    fn responder(&self) -> Responder {
        Responder::new(ResponderConfig::new(self.folder.join("state"), None), None).unwrap()
    }

    fn action(&self, name: &str) -> Action {
        let path = self.file(name);
        let meta = fs::symlink_metadata(&path).unwrap();
        let file = FileId { dev: meta.dev(), ino: meta.ino() };
        Action::Quarantine { path: path.to_str().unwrap().into(), file, process: None }
    }

    fn take(&self, name: &str) -> ActionRecord {
        let action = self.action(name);
        let outcome = act(&self.responder(), &action);
        assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
        line(&action, &outcome)
    }

    /// What is written into the journal before a file is taken.
    fn intend(&self, name: &str) -> ActionRecord {
        let action = self.action(name);
        let prepared = self.responder().prepare(&action).unwrap();
        intended(&action, prepared.undo())
    }

    fn save(&self, record: &ActionRecord) {
        fs::write(self.folder.join("journal"), serde_json::to_vec(record).unwrap()).unwrap();
    }

    fn saved(&self) -> ActionRecord {
        serde_json::from_slice(&fs::read(self.folder.join("journal")).unwrap()).unwrap()
    }

    /// Whether it lies there as it was: bytes, mode, time and attributes.
    fn stands(&self, name: &str) -> bool {
        let file = self.file(name);
        let Ok(meta) = fs::symlink_metadata(&file) else { return false };
        (meta.mode() & 0o7777, meta.mtime_nsec()) == (0o751, 123_456_789)
            && fs::read(&file).unwrap() == content()
            && xattr::get(&file, "user.origin").is_ok_and(|v| v.as_deref() == Some(b"http://203.0.113.9/x"))
    }

    /// Whether the vault holds it whole.
    fn held(&self, number: u64) -> bool {
        let mut read = Vec::new();
        self.responder()
            .content(number)
            .is_ok_and(|(_, mut held)| held.read_to_end(&mut read).is_ok() && read == content())
    }

    /// Files below the scene that hold the content in the open.
    fn in_the_open(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                match entry.file_type().unwrap() {
                    kind if kind.is_dir() => walk(&path, found),
                    kind if kind.is_file() && holds(&fs::read(&path).unwrap()) => found.push(path),
                    _ => {}
                }
            }
        }
        // A part of it that nothing else holds.
        fn holds(bytes: &[u8]) -> bool {
            let mark = &CONTENT[8..];
            bytes.windows(mark.len()).any(|window| window == mark)
        }
        let mut found = Vec::new();
        walk(&self.folder, &mut found);
        found
    }

    /// Files of the vault that are of no file in it.
    fn litter(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.join("state/quarantine")).unwrap().flatten();
        let names = names.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| !["key", "last"].contains(&name.as_str())).collect()
    }

    fn child(&self, task: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "the_child", "--nocapture", "--test-threads=1"]);
        command.env(TASK, task).env(SCENE, &self.folder);
        command
    }
}

/// Not a test: what the children of the tests run.
#[test]
fn the_child() {
    let (Ok(task), Ok(folder)) = (std::env::var(TASK), std::env::var(SCENE)) else { return };
    let scene = Scene { folder: folder.into() };
    let responder = scene.responder();
    match task.as_str() {
        "begin" => {}
        "take" => {
            let record = scene.saved();
            let prepared = responder.prepare(&record.action).unwrap();
            assert_eq!(prepared.undo(), record.undo);
            assert_eq!(responder.carry_out(&prepared).state, ActionState::Done);
        }
        "restore" => assert_eq!(responder.undo(&scene.saved()).state, ActionState::Undone),
        "delete" => drop(responder.delete(1).unwrap()),
        other => panic!("{other}"),
    }
}

/// One operation: what comes before it, what always holds after any part of it, and what makes it good.
struct Play {
    task: &'static str,
    before: fn(&Scene),
    holds: fn(&Scene),
    recover: fn(&Scene),
}

const PLAYS: [Play; 6] = [
    Play {
        task: "begin",
        before: |_| {},
        holds: |scene| assert!(scene.stands("xmrig")),
        recover: |scene| {
            let record = scene.take("xmrig");
            undone(scene, &record);
        },
    },
    Play {
        task: "take",
        before: |scene| scene.save(&scene.intend("xmrig")),
        holds: one_place,
        recover: settled,
    },
    Play {
        task: "take",
        before: |scene| {
            scene.take("copy");
            scene.save(&scene.intend("xmrig"));
        },
        holds: |scene| {
            let open = scene.stands("xmrig");
            assert!(open || scene.held(2), "neither in its place nor in the vault");
            assert!(scene.held(1), "what was there before stays");
            assert_eq!(scene.in_the_open().len(), usize::from(open));
        },
        recover: settled,
    },
    Play {
        task: "restore",
        before: |scene| {
            fs::remove_file(scene.file("copy")).unwrap();
            scene.save(&scene.take("xmrig"));
        },
        holds: one_place,
        recover: |scene| {
            let again = scene.responder().undo(&scene.saved());
            let told = again.state == ActionState::Undone || again.note.contains("no file 1 in quarantine");
            assert!(told, "{}", again.note);
            assert!(scene.stands("xmrig"));
            assert_eq!(fs::read_dir(scene.folder.join("victim")).unwrap().count(), 1);
            assert_eq!(scene.litter(), [""; 0]);
        },
    },
    Play {
        task: "delete",
        before: |scene| drop(scene.take("xmrig")),
        holds: whole_or_gone,
        recover: |scene| {
            let _ = scene.responder().delete(1);
            assert_eq!(scene.litter(), [""; 0]);
        },
    },
    Play {
        task: "delete",
        before: |scene| {
            scene.take("xmrig");
            scene.take("copy");
        },
        holds: |scene| {
            whole_or_gone(scene);
            assert!(scene.held(2), "the other has the same content, and keeps it");
        },
        recover: |scene| {
            let _ = scene.responder().delete(1);
            assert!(scene.held(2));
            scene.responder().delete(2).unwrap();
            assert_eq!(scene.litter(), [""; 0]);
        },
    },
];

/// In its place or in the vault, whole; in the open in one place at the most.
fn one_place(scene: &Scene) {
    let responder = scene.responder();
    drop(responder);
    assert!(scene.stands("xmrig") || scene.held(1), "neither in its place nor in the vault");
    let copies = scene.in_the_open();
    let others = usize::from(scene.file("copy").exists());
    assert!(copies.len() <= 1 + others, "{copies:?}");
    assert!(copies.iter().all(|path| path.starts_with(scene.folder.join("victim"))), "{copies:?}");
}

/// What is listed can be read.
fn whole_or_gone(scene: &Scene) {
    let (held, faults) = scene.responder().quarantined().unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    for file in held {
        assert!(scene.held(file.number), "{} is listed and cannot be read", file.number);
    }
}

/// The next agent finishes what was intended, and it can be undone.
fn settled(scene: &Scene) {
    let record = scene.saved();
    let outcome = scene.responder().settle(&record);
    assert_eq!((outcome.state, outcome.undoable), (ActionState::Done, true), "{}", outcome.note);
    assert!(!scene.file("xmrig").exists());
    undone(scene, &line(&record.action, &outcome));
}

fn undone(scene: &Scene, record: &ActionRecord) {
    let undone = scene.responder().undo(record);
    assert_eq!(undone.state, ActionState::Undone, "{}", undone.note);
    assert!(scene.stands("xmrig"), "all of it is back");
    let (held, _) = scene.responder().quarantined().unwrap();
    assert!(held.iter().all(|file| file.path.ends_with("copy")), "{held:?}");
    if held.is_empty() {
        assert_eq!(scene.litter(), [""; 0]);
    }
}

fn prepared(folder: &Path, play: &Play) -> Scene {
    let scene = Scene::make(folder);
    (play.before)(&scene);
    scene
}

#[test]
fn an_agent_that_dies_between_any_two_steps_loses_nothing() {
    if !tracer::available() {
        return;
    }
    for play in &PLAYS {
        let mut steps: Vec<Step> = Vec::new();
        loop {
            let folder = tempfile::tempdir().unwrap();
            let scene = prepared(folder.path(), play);
            let survived = steps.len();
            let mut seen = Vec::new();
            let end = step_through(&mut scene.child(play.task), |step| {
                seen.push(step);
                if seen.len() > survived { Go::Kill } else { Go::On }
            })
            .unwrap();
            println!("{}: after {survived} steps ({:?}): {end:?}", play.task, steps.last());
            (play.holds)(&scene);
            (play.recover)(&scene);
            if end != End::Killed {
                assert_eq!(end, End::Exited(0), "{} failed", play.task);
                break;
            }
            steps = seen;
        }
        assert!(steps.contains(&"fsync"), "{steps:?}");
        assert!(steps.len() > 2, "{steps:?}");
    }
}

#[test]
fn a_host_that_loses_its_power_between_any_two_steps_loses_nothing() {
    if !tracer::available() {
        return;
    }
    for play in &PLAYS {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = Disk::make(folder.path()) else { return };
        let scene = prepared(disk.point(), play);
        disk.settle();
        let mut steps = 0;
        let look = || {
            disk.after_power_loss(|| {
                (play.holds)(&scene);
                // The disk has another number here than the journal knows it by, as it may have after a start. What was
                // not yet sealed is then refused, and stays.
                if play.task != "take" || !scene.in_the_open().contains(&scene.file("xmrig")) {
                    (play.recover)(&scene);
                } else {
                    let record = scene.saved();
                    let outcome = scene.responder().settle(&record);
                    let taken = outcome.state == ActionState::Done;
                    assert_eq!(scene.stands("xmrig"), !taken, "{}", outcome.note);
                    if taken {
                        undone(&scene, &line(&record.action, &outcome));
                    }
                }
            });
        };
        let end = step_through(&mut scene.child(play.task), |step| {
            println!("{}: the power goes before step {steps} ({step})", play.task);
            look();
            steps += 1;
            Go::On
        });
        assert_eq!(end, Ok(End::Exited(0)), "{} failed", play.task);
        look();
        assert!(steps > 2, "{steps}");
    }
}

/// The file system of the test above makes names last in the order in which they were changed. Not every one does.
#[test]
fn each_change_of_a_name_is_made_to_last_before_the_next() {
    if !tracer::available() {
        return;
    }
    for play in &PLAYS {
        let folder = tempfile::tempdir().unwrap();
        let scene = prepared(folder.path(), play);
        let (end, steps) = trace(&mut scene.child(play.task)).unwrap();
        assert_eq!(end, End::Exited(0));
        let mut changed = None;
        for (step, succeeded) in &steps {
            match *step {
                "fsync" => changed = None,
                "rename" | "renameat" | "renameat2" | "linkat" | "unlink" | "unlinkat" if *succeeded => {
                    assert_eq!(changed, None, "{}: {step} follows it unsynced: {steps:?}", play.task);
                    changed = Some(*step);
                }
                _ => {}
            }
        }
        assert_eq!(changed, None, "{}: {steps:?}", play.task);
        assert!(steps.contains(&("fsync", true)), "{steps:?}");
    }
}

#[test]
fn the_disk_of_these_tests_loses_what_was_not_made_to_last() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::make(folder.path()) else { return };
    let (lost, kept) = (disk.point().join("lost"), disk.point().join("kept"));
    fs::write(&kept, "kept").unwrap();
    disk.settle();
    fs::write(&lost, "lost").unwrap();
    assert_eq!(
        disk.after_power_loss(|| (lost.exists(), fs::read(&kept).unwrap())),
        (false, b"kept".to_vec())
    );
    fs::write(folder.path().join("disk/new"), "half").unwrap();
    fs::rename(disk.point().join("new"), &kept).unwrap();
    fs::File::open(disk.point()).unwrap().sync_all().unwrap();
    let seen = disk.after_power_loss(|| fs::read(&kept).unwrap());
    assert_ne!(seen, b"kept", "the name was made to last");
    assert_ne!(seen, b"half", "the content was not");
}
