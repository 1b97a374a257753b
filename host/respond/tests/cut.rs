//! Cutting flows off through a block that only remembers.

#![allow(clippy::unwrap_used, missing_docs)]

mod stage;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use davy_model::{Action, ActionState, Destination, Timestamp};
use davy_respond::{Block, Responder, ResponderConfig, due, expiry};
use stage::*;

/// A destination, and the cgroup that alone is cut off from it.
type Place = (Destination, Option<String>);

#[derive(Clone, Default)]
struct Memory {
    blocked: Arc<Mutex<BTreeMap<Place, Option<u32>>>>,
    broken: bool,
}

impl Block for Memory {
    fn block(
        &self,
        destination: Destination,
        cgroup: Option<&str>,
        seconds: Option<u32>,
    ) -> Result<(), String> {
        if self.broken {
            return Err("no cgroup v2".into());
        }
        self.blocked.lock().unwrap().insert((destination, cgroup.map(str::to_owned)), seconds);
        Ok(())
    }

    fn unblock(&self, destination: Destination, cgroup: Option<&str>) -> Result<(), String> {
        self.blocked.lock().unwrap().remove(&(destination, cgroup.map(str::to_owned)));
        Ok(())
    }

    fn destroy(&self, destination: Destination, cgroup: Option<&str>) -> Result<u32, String> {
        let place = (destination, cgroup.map(str::to_owned));
        assert!(self.blocked.lock().unwrap().contains_key(&place), "blocked before it is ended");
        Ok(2)
    }
}

fn cut(address: &str, port: u16, seconds: u32) -> Action {
    Action::Cut {
        destination: Destination { address: address.parse().unwrap(), port },
        cgroup: None,
        seconds,
    }
}

fn with(memory: &Memory, folder: &tempfile::TempDir) -> Responder {
    Responder::new(ResponderConfig::new(folder.path().into(), None), Some(Box::new(memory.clone()))).unwrap()
}

#[test]
fn a_destination_is_cut_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let responder = with(&memory, &folder);
    for (action, note) in [
        (cut("198.51.100.7", 443, 86_400), "198.51.100.7:443 cut off for 24 h; 2 connections ended"),
        (cut("2001:db8::7", 3333, 90), "[2001:db8::7]:3333 cut off for 90 s; 2 connections ended"),
        (cut("198.51.100.8", 0, 0), "198.51.100.8 cut off until undone; 2 connections ended"),
    ] {
        let outcome = act(&responder, &action);
        assert_eq!((outcome.state, outcome.note.as_str(), outcome.undoable), (ActionState::Done, note, true));
        assert_eq!(memory.blocked.lock().unwrap().len(), 1);
        let record = line(&action, &outcome);
        for _ in 0..2 {
            assert_eq!(responder.undo(&record).state, ActionState::Undone);
        }
        assert!(memory.blocked.lock().unwrap().is_empty());
    }
}

#[test]
fn one_cgroup_is_cut_off_and_let_back_without_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let responder = with(&memory, &folder);
    let Action::Cut { destination, seconds, .. } = cut("198.51.100.7", 3333, 60) else { unreachable!() };
    let of = |cgroup: Option<&str>| Action::Cut { destination, cgroup: cgroup.map(str::to_owned), seconds };
    let outcome = act(&responder, &of(Some("/system.slice/x.service")));
    let note = "198.51.100.7:3333 cut off for /system.slice/x.service for 1 min; 2 connections ended";
    assert_eq!((outcome.state, outcome.note.as_str()), (ActionState::Done, note));
    act(&responder, &of(None));
    assert_eq!(memory.blocked.lock().unwrap().len(), 2);
    assert_eq!(
        responder.undo(&line(&of(Some("/system.slice/x.service")), &outcome)).state,
        ActionState::Undone
    );
    assert!(memory.blocked.lock().unwrap().keys().eq([&(destination, None)]));
}

#[test]
fn what_must_stay_reachable_is_not_cut() {
    let folder = tempfile::tempdir().unwrap();
    let responder = with(&Memory::default(), &folder);
    for action in [
        cut("0.0.0.0", 0, 9),
        cut("::", 443, 9),
        cut("127.0.0.1", 0, 9),
        cut("::ffff:127.0.0.1", 0, 9),
        cut("224.0.0.1", 1, 9),
    ] {
        assert!(responder.prepare(&action).is_err(), "{action:?}");
    }
    assert!(responder.prepare(&cut("127.0.0.1", 3333, 9)).is_ok(), "a relay on this host can be cut");
}

#[test]
fn a_host_that_cannot_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let action = cut("198.51.100.7", 443, 60);
    let none = Responder::new(ResponderConfig::new(folder.path().into(), None), None).unwrap();
    assert!(none.prepare(&action).is_err());
    let broken = with(&Memory { broken: true, ..Memory::default() }, &folder);
    let outcome = act(&broken, &action);
    assert_eq!((outcome.state, outcome.undoable), (ActionState::Failed, false));
    assert!(outcome.note.contains("no cgroup v2"), "{}", outcome.note);
}

#[test]
fn time_runs_out_across_restarts_and_clock_jumps() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let responder = with(&memory, &folder);
    let action = cut("198.51.100.7", 443, 100);
    let mut record = line(&action, &act(&responder, &action));
    record.changed = Timestamp::from_secs(1_000);
    let mut endless = line(&cut("198.51.100.8", 443, 0), &act(&responder, &cut("198.51.100.8", 443, 0)));
    endless.changed = record.changed;
    let journal = [record.clone(), endless];
    let at = Timestamp::from_secs;
    assert!(due(&journal, at(1_099)).is_empty());
    assert_eq!(due(&journal, at(1_100)), [&journal[0]]);
    assert_eq!(expiry::remaining(&record, at(1_040)), Some(60));
    assert_eq!(expiry::remaining(&record, at(-5_000)), Some(100), "a clock set back makes it no longer");
    assert_eq!(expiry::remaining(&record, at(1_100)), None);
    let expired = responder.expire(&record);
    assert_eq!(expired.state, ActionState::Expired, "{}", expired.note);
    assert_eq!(memory.blocked.lock().unwrap().len(), 1, "the endless one holds");
    record.state = ActionState::Expired;
    assert!(due(&[record], at(9_999)).is_empty());
}
