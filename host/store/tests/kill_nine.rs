//! A process that writes is killed at any moment; what was acknowledged is there afterwards.

#![allow(clippy::unwrap_used, missing_docs)]

mod samples;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use davy_model::*;
use davy_store::{EventFilter, Limits, Store};
use samples::*;

const FOLDER: &str = "DAVY_STORE_TEST_FOLDER";
const ROUNDS: u64 = 12;

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(now.as_micros() as i64)
}

/// The child: writes until it is killed, and says what was acknowledged. Does nothing in an ordinary test run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let store = Store::open(Path::new(&folder), Limits::default()).await.unwrap();
    let begin = Instant::now();
    let mut out = std::io::stdout();
    while begin.elapsed() < Duration::from_secs(20) {
        store.append((0..200).map(|n| exec(now(), n, "/usr/bin/gcc")).collect());
        let mut line = action(now(), None, ActionState::Intended);
        line.id = store.record(&line).await.unwrap();
        writeln!(out, "intended {}", line.id.0).unwrap();
        out.flush().unwrap();
        line.state = ActionState::Done;
        line.undoable = true;
        store.change(&line).await.unwrap();
        let id = store.new_finding_id();
        store.put_finding(&finding(id.0, now())).await.unwrap();
        writeln!(out, "done {} {}", line.id.0, id.0).unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_line_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut intended = 0_u64;
    let (mut done, mut findings) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let life = Duration::from_millis(60 + 47 * round);
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut killed = None;
        for line in out.lines().map_while(Result::ok) {
            // Clocked from its first word, so that each round does some work on a slow machine too.
            let first = *killed.get_or_insert_with(Instant::now);
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["intended", id] => intended = id.parse().unwrap(),
                ["done", id, finding] => {
                    done.insert(id.parse::<u64>().unwrap());
                    findings.insert(FindingId(finding.parse().unwrap()));
                }
                _ => {}
            }
            if first.elapsed() > life {
                // SIGKILL; lines already written are read to the end.
                child.kill().unwrap();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Store::open(folder.path(), Limits::default()).await.unwrap();
        let journal = store.actions(u32::MAX).await.unwrap();
        assert!(
            journal.len() as u64 >= intended,
            "round {round}: {} lines, {intended} intended",
            journal.len()
        );
        for (line, id) in journal.iter().zip(1_u64..) {
            assert_eq!(line.id, ActionId(id), "no gap and no double");
            if done.contains(&id) {
                assert_eq!(line.state, ActionState::Done, "round {round}: line {id}");
            }
        }
        let found = store.findings(None, u32::MAX).await.unwrap();
        let found: BTreeSet<_> = found.iter().map(|finding| finding.id).collect();
        assert!(found.is_superset(&findings), "round {round}: {findings:?} of {found:?}");
        assert!(Some(&store.new_finding_id()) > found.last());
        assert!(store.notices().is_empty(), "nothing was set aside");
        // Those that were intended and never finished are found by the next agent.
        let open = store.open_actions().await.unwrap();
        assert_eq!(open.len(), journal.len());
        store.close().await;
    }
    let store = Store::open(folder.path(), Limits::default()).await.unwrap();
    store.flush().await.unwrap();
    let events = store.events(&EventFilter { limit: 1_000_000, ..EventFilter::default() }).await.unwrap();
    assert_eq!(store.status().events, events.len() as u64);
    println!(
        "{ROUNDS} kills: {intended} lines intended, {} done, {} findings, {} events",
        done.len(),
        findings.len(),
        events.len()
    );
    assert!(done.len() as u64 > ROUNDS && !events.is_empty());
}
