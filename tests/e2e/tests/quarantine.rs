//! Files in the quarantine of a live agent, through the command line: listed, given back, copied, deleted.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use davy_model::{Action, ActionRecord, ActionState, FileId};
use davy_test_e2e::{Agent, root_or_skip};
use davy_wire::{Command as Order, Query, Reply, RequestBody};
use serde_json::Value;

fn davy(agent: &Agent, arguments: &[&str]) -> Output {
    let mut command = Command::new(davy_test_e2e::davy());
    command.arg("--base-dir").arg(agent.base()).arg("quarantine").args(arguments);
    command.output().unwrap()
}

fn list(agent: &Agent) -> Vec<Value> {
    let output = davy(agent, &["list", "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn take(agent: &Agent, path: &Path) {
    let meta = fs::metadata(path).unwrap();
    let order = Order::Quarantine {
        path: path.to_str().unwrap().into(),
        file: FileId { dev: meta.dev(), ino: meta.ino() },
        reason: "a test".into(),
    };
    agent.ask(RequestBody::Command(order)).unwrap();
    assert!(!path.exists());
}

fn journal(agent: &Agent) -> Vec<ActionRecord> {
    let replies = agent.ask(RequestBody::Query(Query::Actions { limit: 20 })).unwrap();
    let records = replies.into_iter().filter_map(|reply| match reply {
        Reply::Action(record) if matches!(record.action, Action::Quarantine { .. }) => Some(record),
        _ => None,
    });
    records.collect()
}

#[test]
fn a_file_is_listed_copied_given_back_and_deleted_for_good() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start("").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("xmrig"), folder.path().join("copy of it"));
    let miner: Vec<u8> = (0..400_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for path in [&first, &second] {
        fs::write(path, &miner).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o4711)).unwrap();
        take(&agent, path);
    }
    let held = list(&agent);
    let numbers: Vec<_> = held.iter().map(|file| file["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!((&held[0]["shares"], &held[1]["shares"]), (&Value::Null, &Value::from(1)), "kept once");
    assert_eq!(held[0]["path"], first.to_str().unwrap());
    assert_eq!(held[0]["action"], journal(&agent)[0].id.0);

    let out = folder.path().join("sample");
    let exported = davy(&agent, &["export", "2", "--plain", "--out", out.to_str().unwrap()]);
    assert!(exported.status.success(), "{exported:?}");
    assert!(fs::read(&out).unwrap() == miner);

    // The content may be anybody's secret: those who may only read events do not get it.
    let asked = agent.ask(RequestBody::Query(Query::QuarantineContent { number: 1 }));
    assert!(asked.unwrap_err().to_string().contains("does not answer that"));

    assert!(davy(&agent, &["delete", "1"]).status.success());
    assert_eq!(davy(&agent, &["restore", "1"]).status.code(), Some(4));
    let line = &journal(&agent)[0];
    assert!(line.state == ActionState::Done && !line.undoable, "{line:?}");
    assert!(line.note.contains("deleted for good"), "{}", line.note);

    // The other has the same content, and has it still.
    let restored = davy(&agent, &["restore", "2"]);
    assert!(restored.status.success(), "{restored:?}");
    assert!(fs::read(&second).unwrap() == miner && !first.exists());
    assert_eq!(fs::metadata(&second).unwrap().mode() & 0o7777, 0o4711);
    assert_eq!(journal(&agent)[1].state, ActionState::Undone);
    assert!(list(&agent).is_empty());

    // A number never means two files.
    take(&agent, &second);
    assert_eq!(list(&agent)[0]["number"], 3);
}
