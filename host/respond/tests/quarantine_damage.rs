//! A vault whose files were cut short or changed under it, by a disk or by somebody.

#![allow(clippy::unwrap_used, missing_docs)]

mod stage;

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use davy_model::{Action, ActionRecord, ActionState, FileId};
use davy_respond::{Responder, ResponderConfig};
use proptest::prelude::*;
use stage::{act, line, responder};

struct Vault {
    folder: tempfile::TempDir,
    records: Vec<ActionRecord>,
}

/// A vault with these contents as files 1 and 2.
fn vault(contents: [&[u8]; 2]) -> Vault {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("victim")).unwrap();
    let responder = responder(&folder.path().join("state"));
    let mut records = Vec::new();
    for (name, content) in ["one", "two"].into_iter().zip(contents) {
        let path = folder.path().join("victim").join(name);
        fs::write(&path, content).unwrap();
        let meta = fs::metadata(&path).unwrap();
        let file = FileId { dev: meta.dev(), ino: meta.ino() };
        let action = Action::Quarantine { path: path.to_str().unwrap().into(), file, process: None };
        let outcome = act(&responder, &action);
        assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
        records.push(line(&action, &outcome));
    }
    Vault { folder, records }
}

impl Vault {
    fn part(&self, name: &str) -> PathBuf {
        self.folder.path().join("state/quarantine").join(name)
    }

    fn cut(&self, name: &str, at: prop::sample::Index) {
        let bytes = fs::read(self.part(name)).unwrap();
        fs::write(self.part(name), &bytes[..at.index(bytes.len())]).unwrap();
    }

    fn open(&self) -> Responder {
        responder(&self.folder.path().join("state"))
    }

    fn restored(&self) -> usize {
        fs::read_dir(self.folder.path().join("victim")).unwrap().count()
    }
}

fn read(responder: &Responder, number: u64) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let (_, mut held) = responder.content(number).ok()?;
    held.read_to_end(&mut content).ok().map(|_| content)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn content_cut_at_any_byte_is_never_given_back(at in any::<prop::sample::Index>(), content in prop::collection::vec(any::<u8>(), 1..100_000)) {
        let vault = vault([&content, b"another"]);
        vault.cut("000001.sealed", at);
        let responder = vault.open();
        prop_assert_eq!(read(&responder, 1), None);
        prop_assert_eq!(read(&responder, 2), Some(b"another".to_vec()));
        let undone = responder.undo(&vault.records[0]);
        prop_assert_eq!((undone.state, undone.undoable), (ActionState::Done, true), "{}", undone.note);
        prop_assert_eq!(vault.restored(), 0, "nothing half restored");
        // The same file taken again is sealed anew, and not by reference to what does not open.
        prop_assert_eq!(responder.quarantined().unwrap().0.len(), 2);
    }

    #[test]
    fn a_record_cut_at_any_byte_costs_no_content(at in any::<prop::sample::Index>(), whole in any::<bool>()) {
        let vault = vault([b"the miner", b"another"]);
        let record = fs::read(vault.part("000001.json")).unwrap();
        vault.cut("000001.json", at);
        let responder = vault.open();
        let (held, faults) = responder.quarantined().unwrap();
        prop_assert_eq!((held.len(), faults.len()), (1, 1));
        prop_assert!(faults[0].contains("000001.json"), "{faults:?}");
        prop_assert_eq!(responder.undo(&vault.records[0]).state, ActionState::Done);
        if whole {
            // Not even when the other file goes.
            responder.delete(2).unwrap();
        }
        fs::write(vault.part("000001.json"), record).unwrap();
        prop_assert_eq!(responder.undo(&vault.records[0]).state, ActionState::Undone);
        prop_assert_eq!(vault.restored(), 1);
    }

    #[test]
    fn whatever_lies_in_the_folder_is_survived(
        name in "[0-9]{0,7}\\.?(json|sealed|restoring|new|json\\.new|last|)",
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let vault = vault([b"the miner", b"another"]);
        let taken = fs::read_dir(vault.part("")).unwrap().flatten().any(|e| e.file_name().to_str() == Some(&name));
        if !taken && !name.is_empty() && name != "." {
            fs::write(vault.part(&name), &bytes).unwrap();
        }
        let responder = vault.open();
        let (held, _) = responder.quarantined().unwrap();
        prop_assert_eq!(held.len(), 2);
        prop_assert_eq!(responder.undo(&vault.records[1]).state, ActionState::Undone);
        prop_assert_eq!(responder.undo(&vault.records[0]).state, ActionState::Undone);
    }
}

#[test]
fn a_number_never_means_two_files() {
    let vault = vault([b"the miner", b"another"]);
    let take = |name: &str| {
        let path = vault.folder.path().join("victim").join(name);
        fs::write(&path, name).unwrap();
        let meta = fs::metadata(&path).unwrap();
        let file = FileId { dev: meta.dev(), ino: meta.ino() };
        let action = Action::Quarantine { path: path.to_str().unwrap().into(), file, process: None };
        act(&vault.open(), &action).note
    };
    vault.open().delete(2).unwrap();
    let note = take("three");
    assert!(note.contains("as number 3"), "{note}");
    vault.open().delete(3).unwrap();
    // Even when what remembers the highest number is lost: the line of the journal is of another file then.
    fs::remove_file(vault.part("last")).unwrap();
    let note = take("four");
    assert!(note.contains("as number 2"), "{note}");
    let undone = vault.open().undo(&vault.records[1]);
    assert_eq!((undone.state, undone.undoable), (ActionState::Done, false), "{}", undone.note);
    assert_eq!(read(&vault.open(), 2).as_deref(), Some(&b"four"[..]));
}

#[test]
fn one_content_is_kept_once_and_goes_with_its_last_file() {
    let content: Vec<u8> =
        (0..250_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let vault = vault([&content, &content]);
    assert!(vault.part("000001.sealed").exists() && !vault.part("000002.sealed").exists());
    let responder = vault.open();
    let (held, _) = responder.quarantined().unwrap();
    assert_eq!((held[0].shares, held[1].shares), (None, Some(1)));
    // What was taken first goes first.
    assert_eq!(responder.undo(&vault.records[0]).state, ActionState::Undone);
    let again = vault.open();
    assert_eq!(read(&again, 2), Some(content));
    assert_eq!(again.undo(&vault.records[1]).state, ActionState::Undone);
    assert!(!vault.part("000001.sealed").exists());
    assert_eq!(vault.restored(), 2);
}

#[test]
fn a_copy_that_a_restore_left_unfinished_is_removed_at_the_next_start() {
    let vault = vault([b"the miner", b"another"]);
    let left = vault.folder.path().join("victim/.davy-restoring-1");
    fs::write(&left, "the mi").unwrap();
    fs::write(vault.folder.path().join("victim/.davy-restoring-2"), "somebody's own").unwrap();
    fs::write(vault.part("000001.restoring"), "").unwrap();
    vault.open();
    assert!(!left.exists());
    assert_eq!(vault.restored(), 1, "only what the vault says was begun");
    assert!(!vault.part("000001.restoring").exists());
}

/// The miner of a rule of the test's own: the bytes before show that the scanner sees it, the bytes after that it does not.
#[test]
fn what_is_sealed_is_nothing_to_other_scanners_and_runs_nowhere() {
    let miner =
        b"#!/bin/sh\nexec /tmp/.x/xmrig -o stratum+tcp://pool.example:3333 --donate-level 0\n".repeat(40);
    // Written for tests of scanners by their makers; harmless, and known to all of them.
    let eicar = [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat();
    let folder = tempfile::tempdir().unwrap();
    let bare = folder.path().join("bare");
    fs::create_dir(&bare).unwrap();
    fs::write(bare.join("miner"), &miner).unwrap();
    fs::write(bare.join("eicar"), &eicar).unwrap();
    let vault = vault([&miner, eicar.as_bytes()]);

    let rules = folder.path().join("rules.yar");
    let rule =
        "rule found { strings: $a = \"stratum+tcp://\" $b = \"EICAR-STANDARD\" condition: any of them }";
    fs::write(&rules, rule).unwrap();
    let yara = |place: &Path| Command::new("yara").arg("-r").arg(&rules).arg(place).output().ok();
    match (yara(&bare), yara(&vault.part(""))) {
        (Some(seen), Some(sealed)) => {
            assert_eq!(String::from_utf8_lossy(&seen.stdout).lines().count(), 2, "{seen:?}");
            assert_eq!(String::from_utf8_lossy(&sealed.stdout), "", "{sealed:?}");
        }
        _ => println!("SKIPPED: yara is missing"),
    }
    for entry in fs::read_dir(vault.part("")).unwrap().flatten() {
        let bytes = fs::read(entry.path()).unwrap();
        assert!(!bytes.windows(8).any(|window| miner.windows(8).take(80).any(|part| part == window)));
        assert!(!bytes.starts_with(b"\x7fELF") && !bytes.starts_with(b"#!"));
        assert_eq!(entry.metadata().unwrap().mode() & 0o7777, 0o600, "{:?}", entry.path());
        assert!(Command::new(entry.path()).status().is_err(), "{:?} runs", entry.path());
    }
}

#[test]
fn a_key_cut_short_is_an_error_and_costs_nothing() {
    let vault = vault([b"the miner", b"another"]);
    let key = fs::read(vault.part("key")).unwrap();
    fs::write(vault.part("key"), &key[..9]).unwrap();
    let config = ResponderConfig::new(vault.folder.path().join("state"), None);
    assert!(Responder::new(config, None).is_err());
    fs::write(vault.part("key"), key).unwrap();
    assert_eq!(read(&vault.open(), 1).as_deref(), Some(&b"the miner"[..]));
}
