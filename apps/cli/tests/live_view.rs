//! `davy top` on a real terminal: it takes the screen, obeys its keys, and gives the terminal back.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod canned;
mod fake_agent;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use davy_model::IncidentState;
use davy_wire::{Query, Reply, RequestBody};
use fake_agent::FakeAgent;

/// What the terminal is told to leave the alternate screen.
const MAIN_SCREEN: &str = "\x1b[?1049l";

fn host() -> FakeAgent {
    FakeAgent::answering(|request| match request {
        RequestBody::Query(Query::Status) => vec![Reply::Status(canned::status())],
        RequestBody::Query(Query::Top) => vec![Reply::Top(canned::top())],
        RequestBody::Query(_) => {
            let mut incident = canned::incident();
            incident.state = IncidentState::Running;
            vec![Reply::Incident(incident)]
        }
        RequestBody::Command(_) => vec![Reply::Done("frozen".to_owned())],
    })
}

/// Types keys, a second apart, into `davy top` on a terminal that script(1) makes.
fn typed(agent: &FakeAgent, keys: &[&str]) -> Option<(i32, String)> {
    let line = format!(
        "stty rows 24 cols 80 && {} --base-dir {} top",
        env!("CARGO_BIN_EXE_davy"),
        agent.base().display()
    );
    let spawned = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => {
            println!("SKIPPED: script(1), which makes a terminal, is missing: {e}");
            return None;
        }
    };
    let mut input = child.stdin.take().unwrap();
    for key in keys {
        std::thread::sleep(Duration::from_secs(1));
        input.write_all(key.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    Some((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[test]
fn takes_the_screen_and_gives_it_back() {
    let agent = host();
    let Some((code, screen)) = typed(&agent, &["\r", "q"]) else { return };
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("strongest"), "{screen}");
    assert!(screen.contains(MAIN_SCREEN), "{screen:?}");
}

#[test]
fn freezes_when_asked_and_confirmed() {
    let agent = host();
    let Some((code, screen)) = typed(&agent, &["", "f", "y", "q"]) else { return };
    assert_eq!(code, 0, "{screen}");
    let id = davy_model::IncidentId(7);
    let order = davy_wire::Command::Act { id, actions: vec!["freeze".to_owned()] };
    assert!(agent.heard().contains(&RequestBody::Command(order)), "{screen}");
}

#[test]
fn needs_a_terminal() {
    let ended = host().davy(&["top"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("davy top --once"), "{}", ended.err);
}
