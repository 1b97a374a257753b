//! A service is isolated by order, told, let back, and isolated again by the next agent. Never the machine itself: every
//! order names a cgroup of the test's own.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, Output};
use std::time::Duration;

use davy_model::{Action, ActionRecord, ActionState};
use davy_test_e2e::{Agent, Scope, davy, root_or_skip};
use davy_wire::{Query, Reply, RequestBody};
use rustix::process::Signal;

/// What a process inside the scope is told when it asks for an address outside. The network namespace is its own and has no
/// way there, so that whoever is not isolated hears of that.
fn asks(scope: &Scope) -> String {
    let said = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "bash",
        "-c",
        &format!("exec 2>'{}' 3<>/dev/tcp/192.0.2.1/443", said.path().display()),
    ]);
    scope.spawn(&mut command).unwrap().wait().unwrap();
    std::fs::read_to_string(said.path()).unwrap()
}

fn is_isolated(scope: &Scope) -> bool {
    let said = asks(scope);
    assert!(said.contains("not permitted") || said.contains("unreachable"), "{said}");
    said.contains("not permitted")
}

fn order(agent: &Agent, arguments: &[&str]) -> Output {
    Command::new(davy()).arg("--base-dir").arg(agent.base()).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn isolations(agent: &Agent) -> Vec<ActionRecord> {
    let replies = agent.ask(RequestBody::Query(Query::Actions { limit: 100 })).unwrap();
    let actions = replies.into_iter().filter_map(|r| if let Reply::Action(a) = r { Some(a) } else { None });
    actions.filter(|a| matches!(a.action, Action::Isolate { .. })).collect()
}

#[test]
fn a_service_is_isolated_told_and_let_back() {
    if !root_or_skip() {
        return;
    }
    let (scope, other) = (Scope::make("isolate").unwrap(), Scope::make("isolate-other").unwrap());
    let agent = Agent::start("").unwrap();
    assert!(!is_isolated(&scope), "free before anything happens");

    let done = order(&agent, &["isolate", "--for", "10m", "--in", scope.name(), "--keep", "10.0.0.0/8"]);
    assert!(done.status.success() && said(&done).contains("isolated for 10 min"), "{}", said(&done));
    assert!(said(&done).contains("10.0.0.0/8"), "it says what stays: {}", said(&done));
    assert!(is_isolated(&scope) && !is_isolated(&other));
    let status = agent.status().unwrap();
    assert_eq!(status.isolated.len(), 1);
    assert_eq!(status.isolated[0].cgroup.as_deref(), Some(scope.name()));
    let shown = said(&order(&agent, &["status"]));
    let sentence = format!("{} is isolated from the network until", scope.name());
    assert!(shown.replace('\n', " ").contains(&sentence) || shown.contains("isolated"), "{shown}");

    // The same again holds by the newer line alone.
    assert!(order(&agent, &["isolate", "--for", "20m", "--in", scope.name()]).status.success());
    let states: Vec<_> = isolations(&agent).iter().map(|a| a.state).collect();
    assert_eq!(states, [ActionState::Expired, ActionState::Done]);
    assert_eq!(agent.status().unwrap().isolated.len(), 1);

    let last = isolations(&agent).last().unwrap().id;
    let undone = order(&agent, &["undo", &format!("a{}", last.0)]);
    assert!(undone.status.success(), "{}", said(&undone));
    assert!(!is_isolated(&scope));

    assert!(order(&agent, &["isolate", "--for", "1m", "--in", scope.name()]).status.success());
    assert!(is_isolated(&scope));
    let ended = order(&agent, &["isolate", "--end"]);
    assert!(ended.status.success() && said(&ended).contains("on the network again"), "{}", said(&ended));
    assert!(!is_isolated(&scope));
    assert!(said(&order(&agent, &["isolate", "--end"])).contains("nothing is isolated"));
}

#[test]
fn an_isolation_ends_by_itself_and_survives_a_restart_until_then() {
    if !root_or_skip() {
        return;
    }
    let scope = Scope::make("isolate-restart").unwrap();
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let start = || Agent::start_in(folder.path(), "", Command::new(davy()), &[]).unwrap();
    let mut agent = start();
    assert!(order(&agent, &["isolate", "--for", "25s", "--in", scope.name()]).status.success());
    assert!(is_isolated(&scope));
    agent.signal(Signal::KILL);
    agent.wait_end(Duration::from_secs(10)).unwrap();
    assert!(!is_isolated(&scope), "without --pin nothing stays in the kernel");

    let agent = start();
    agent
        .wait_for("the next agent goes on with it", Duration::from_secs(10), |_| {
            Ok(is_isolated(&scope).then_some(()))
        })
        .unwrap();
    agent
        .wait_for("it ends by itself", Duration::from_secs(40), |agent| {
            let expired = isolations(agent).last().is_some_and(|a| a.state == ActionState::Expired);
            Ok(expired.then_some(()))
        })
        .unwrap();
    assert!(!is_isolated(&scope));
    assert_eq!(agent.status().unwrap().isolated, []);
}

#[test]
fn a_service_that_starts_after_the_agent_is_isolated_then() {
    if !root_or_skip() {
        return;
    }
    let scope = Scope::make("isolate-later").unwrap();
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let start = || Agent::start_in(folder.path(), "", Command::new(davy()), &[]).unwrap();
    let mut agent = start();
    assert!(order(&agent, &["isolate", "--for", "5m", "--in", scope.name()]).status.success());
    agent.signal(Signal::KILL);
    agent.wait_end(Duration::from_secs(10)).unwrap();
    drop(scope);

    let agent = start();
    agent
        .wait_for("it is told", Duration::from_secs(10), |agent| {
            Ok((agent.status()?.isolated.len() == 1).then_some(()))
        })
        .unwrap();
    let scope = Scope::make("isolate-later").unwrap();
    agent
        .wait_for("it is isolated when it is there", Duration::from_secs(20), |_| {
            Ok(is_isolated(&scope).then_some(()))
        })
        .unwrap();
    assert!(order(&agent, &["isolate", "--end"]).status.success());
    assert!(!is_isolated(&scope));
}

#[test]
fn what_makes_no_sense_is_refused() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start("").unwrap();
    for (cgroup, why) in
        [("/davy-e2e-nobody", "there is no cgroup"), ("/../x", "below the root"), ("x", "below the root")]
    {
        let refused = order(&agent, &["isolate", "--for", "10m", "--in", cgroup]);
        assert!(!refused.status.success() && said(&refused).contains(why), "{}", said(&refused));
    }
    let refused = order(&agent, &["isolate", "--for", "30d", "--in", "/davy-e2e-nobody"]);
    assert!(said(&refused).contains("at most 7 days"), "{}", said(&refused));
    assert_eq!(agent.status().unwrap().isolated, []);
}
