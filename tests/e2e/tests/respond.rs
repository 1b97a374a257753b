//! A real miner in a cgroup of its own, under an agent that enforces there and nowhere else.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use davy_model::{Action, ActionRecord, ActionState, FindingKind, Incident, IncidentState};
use davy_test_e2e::{Agent, Scope, freezes, kills, puts_away, root_or_skip};
use davy_wire::{Command as Order, RequestBody};

/// One test at a time: each agent sees the whole host, and the test runner would be the cause of all their miners.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The miner that was built beside the test, copied to where quarantine may take it.
fn miner(folder: &Path) -> PathBuf {
    let copy = folder.join("nightly-report");
    std::fs::copy(davy_test_e2e::miner(), &copy).unwrap();
    copy
}

fn mine(scope: &Scope, program: &Path) -> Child {
    let mut command = Command::new(program);
    command.args(["--algo", "randomx", "--mode", "light", "--threads", "1", "--no-pool", "--for", "60"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    scope.spawn(&mut command).unwrap()
}

fn mining_incident(agent: &Agent, pid: u32) -> Option<Incident> {
    let mut incidents = agent.incidents().unwrap();
    incidents.retain(|i| {
        i.findings.iter().any(|f| f.kind == FindingKind::Mining && f.processes.iter().any(|p| p.pid == pid))
    });
    incidents.pop()
}

/// An action on this miner: what was done goes before what another protection, which only observes, would have done.
fn action(incident: &Incident, wanted: impl Fn(&Action) -> bool) -> Option<&ActionRecord> {
    let of_it = incident.actions.iter().filter(|r| wanted(&r.action));
    of_it.min_by_key(|r| r.state == ActionState::WouldHave)
}

#[test]
fn a_miner_is_recognised_killed_put_away_and_given_back() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let scope = Scope::make("kill").unwrap();
    let policy = format!("[scope]\ncgroups = [\"{}\"]\n[mining]\nmode = \"enforce\"\n", scope.name());
    let agent = Agent::start(&policy).unwrap();
    let folder = tempfile::Builder::new().prefix("davy-miner-").tempdir().unwrap();
    let program = miner(folder.path());
    let content = std::fs::read(&program).unwrap();
    let mut child = mine(&scope, &program);
    let incident = agent
        .wait_for("the miner is killed", Duration::from_secs(40), |agent| {
            let incident = mining_incident(agent, child.id());
            Ok(incident
                // The journal knows of the kill a moment before the incident's text is renewed.
                .filter(|i| i.state == IncidentState::Stopped)
                .filter(|i| action(i, kills(child.id())).is_some_and(|r| r.state == ActionState::Done)))
        })
        .unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success());
    assert!(incident.techniques.iter().any(|t| t.0.starts_with("T1496")));
    assert_eq!(action(&incident, puts_away(&program)).unwrap().state, ActionState::Done);
    assert!(!program.exists(), "the program is away");

    agent.ask(RequestBody::Command(Order::UndoIncident { id: incident.id })).unwrap();
    assert_eq!(std::fs::read(&program).unwrap(), content, "undo gives the program back, byte for byte");
    let again = agent.ask(RequestBody::Command(Order::UndoIncident { id: incident.id }));
    assert!(again.is_err(), "undone once is undone");
}

#[test]
fn a_frozen_miner_is_let_go_by_undo_and_left_alone_after_it() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let scope = Scope::make("freeze").unwrap();
    let policy = format!(
        "[scope]\ncgroups = [\"{}\"]\n[mining]\nmode = \"enforce\"\nactions = [\"freeze\"]\n",
        scope.name()
    );
    let agent = Agent::start(&policy).unwrap();
    let folder = tempfile::Builder::new().prefix("davy-miner-").tempdir().unwrap();
    let mut child = mine(&scope, &miner(folder.path()));
    let incident = agent
        .wait_for("the miner is frozen", Duration::from_secs(40), |agent| {
            let incident = mining_incident(agent, child.id());
            Ok(incident
                .filter(|i| action(i, freezes(child.id())).is_some_and(|r| r.state == ActionState::Done)))
        })
        .unwrap();
    let spent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let after = stat.rsplit(')').next().unwrap().to_owned();
        after.split_whitespace().nth(11).unwrap().parse::<u64>().unwrap()
    };
    let before = spent(child.id());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(spent(child.id()), before, "a frozen process computes nothing");
    agent.ask(RequestBody::Command(Order::UndoIncident { id: incident.id })).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(spent(child.id()) > before, "it computes again, and is left alone");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn outside_of_the_scope_it_only_says_what_it_would_have_done() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let scope = Scope::make("outside").unwrap();
    let agent =
        Agent::start("[scope]\ncgroups = [\"/davy-e2e-elsewhere\"]\n[mining]\nmode = \"enforce\"\n").unwrap();
    let folder = tempfile::Builder::new().prefix("davy-miner-").tempdir().unwrap();
    let mut child = mine(&scope, &miner(folder.path()));
    let incident = agent
        .wait_for("the miner is recognised", Duration::from_secs(40), |agent| {
            let incident = mining_incident(agent, child.id());
            Ok(incident.filter(|i| action(i, kills(child.id())).is_some()))
        })
        .unwrap();
    assert_eq!(action(&incident, kills(child.id())).unwrap().state, ActionState::WouldHave);
    assert!(child.try_wait().unwrap().is_none(), "it runs on");
    child.kill().unwrap();
    child.wait().unwrap();
}
