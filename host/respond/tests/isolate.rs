//! Isolation through a block that only remembers.

#![allow(clippy::unwrap_used, missing_docs)]

mod stage;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use davy_model::{Action, ActionState, Destination, Timestamp};
use davy_respond::{Block, Isolation, Responder, ResponderConfig, expiry};
use stage::*;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<Option<String>, Isolation>>>);

impl Block for Memory {
    fn block(&self, _: Destination, _: Option<&str>, _: Option<u32>) -> Result<(), String> {
        Err("not asked for".to_owned())
    }

    fn unblock(&self, _: Destination, _: Option<&str>) -> Result<(), String> {
        Err("not asked for".to_owned())
    }

    fn destroy(&self, _: Destination, _: Option<&str>) -> Result<u32, String> {
        Err("not asked for".to_owned())
    }

    fn isolate(&self, isolation: &Isolation) -> Result<(), String> {
        self.0.lock().unwrap().insert(isolation.cgroup.clone(), isolation.clone());
        Ok(())
    }

    fn rejoin(&self, cgroup: Option<&str>) -> Result<(), String> {
        self.0.lock().unwrap().remove(&cgroup.map(str::to_owned));
        Ok(())
    }
}

fn with(memory: &Memory, folder: &tempfile::TempDir) -> Responder {
    Responder::new(ResponderConfig::new(folder.path().into(), None), Some(Box::new(memory.clone()))).unwrap()
}

fn isolate(seconds: u32) -> Action {
    let keep = vec!["10.0.9.0/24".parse().unwrap()];
    Action::Isolate { cgroup: Some("/a.service".to_owned()), keep, seconds }
}

#[test]
fn what_is_isolated_says_what_stays_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let responder = with(&memory, &folder);
    let action = isolate(1800);
    let outcome = act(&responder, &action);
    assert_eq!((outcome.state, outcome.undoable), (ActionState::Done, true));
    assert!(outcome.note.starts_with("/a.service isolated for 30 min"), "{}", outcome.note);
    assert!(outcome.note.contains("10.0.9.0/24"), "{}", outcome.note);
    let kept = memory.0.lock().unwrap().values().next().unwrap().networks.clone();
    assert_eq!(kept, ["10.0.9.0/24".parse().unwrap()]);
    let record = line(&action, &outcome);
    for _ in 0..2 {
        assert_eq!(responder.undo(&record).state, ActionState::Undone);
        assert!(memory.0.lock().unwrap().is_empty());
    }
}

#[test]
fn one_that_would_never_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    assert!(with(&memory, &folder).prepare(&isolate(0)).is_err());
    let none = Responder::new(ResponderConfig::new(folder.path().into(), None), None).unwrap();
    assert!(none.prepare(&isolate(60)).is_err());
}

#[test]
fn the_next_agent_goes_on_for_what_is_left_and_keeps_the_sessions_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let responder = with(&memory, &folder);
    let action = isolate(100);
    let mut record = line(&action, &act(&responder, &action));
    // A session that was there when it began, and may have no process any more that tells of it.
    record.undo =
        record.undo.replace(r#""sessions":["#, r#""sessions":[["203.0.113.9",22],"#).replace(",]", "]");
    record.changed = Timestamp::from_secs(1_000);
    memory.0.lock().unwrap().clear();

    let left = expiry::remaining(&record, Timestamp::from_secs(1_040)).unwrap();
    responder.resume_isolation(&record, left).unwrap();
    let held = memory.0.lock().unwrap().values().next().unwrap().clone();
    assert_eq!(held.seconds, 60);
    assert!(held.sessions.contains(&("203.0.113.9".parse().unwrap(), 22)), "{held:?}");
    assert_eq!(responder.expire(&record).state, ActionState::Expired);
    assert!(memory.0.lock().unwrap().is_empty());
}
