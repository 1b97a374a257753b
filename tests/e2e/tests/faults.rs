//! What goes wrong on real hosts: a flood of processes, a full disk, hostile clients. Protection goes on, and losses are
//! counted.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use davy_test_e2e::{Agent, Scope, davy, miner, root_or_skip};
use davy_wire::{BusyTree, Query, Reply, RequestBody};

fn mine(scope: &Scope) -> Child {
    let mut command = Command::new(miner());
    command.args(["--algo", "randomx", "--mode", "light", "--threads", "1", "--no-pool", "--for", "90"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    scope.spawn(&mut command).unwrap()
}

/// The tree in `davy top` that is this process and is thought to mine. It comes from the engine itself, not the store.
fn mining_tree(agent: &Agent, pid: u32) -> Option<BusyTree> {
    let reply = agent.ask(RequestBody::Query(Query::Top)).unwrap().pop();
    let Some(Reply::Top(view)) = reply else { panic!("not a view: {reply:?}") };
    view.trees.into_iter().find(|t| t.root.pid == pid && t.confidence >= 0.95)
}

#[test]
fn a_flood_of_processes_hides_no_miner() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start("").unwrap();
    let scope = Scope::make("flood").unwrap();
    let mut flood = Command::new("/bin/sh");
    // Thirty thousand forks at the most, and never longer than a minute.
    flood.args(["-c", "timeout 60 sh -c 'i=0; while [ $i -lt 30000 ]; do (exit 0); i=$((i+1)); done'"]);
    let mut flood = scope.spawn(&mut flood).unwrap();
    let mut miner = mine(&scope);
    let tree = agent
        .wait_for("the miner is recognised in the flood", Duration::from_secs(60), |agent| {
            Ok(mining_tree(agent, miner.id()))
        })
        .unwrap();
    assert!(!tree.evidence.is_empty());
    miner.kill().unwrap();
    miner.wait().unwrap();
    flood.wait().unwrap();
    let status = agent.status().unwrap();
    assert!(status.events > 10_000 || !status.drops.is_empty(), "seen or counted: {status:?}");
    assert!(status.resident < 200 << 20, "tables are bounded: {} bytes", status.resident);
}

#[test]
fn a_full_disk_stops_the_record_and_not_the_protection() {
    if !root_or_skip() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs -o size=80m davy-e2e \"$0/state\" && exec \"$@\""]);
    command.arg(folder.path()).arg(davy());
    let agent = Agent::start_in(folder.path(), "", command, &[]).unwrap();
    let inside = format!("/proc/{}/root{}/fill", agent.pid(), state.display());
    let mut fill = std::fs::File::create(inside).unwrap();
    let block = vec![0_u8; 1 << 20];
    while fill.write_all(&block).is_ok() {}
    drop(fill);

    let scope = Scope::make("full").unwrap();
    let mut miner = mine(&scope);
    agent
        .wait_for("the miner is recognised with a full disk", Duration::from_secs(60), |agent| {
            Ok(mining_tree(agent, miner.id()))
        })
        .unwrap();
    miner.kill().unwrap();
    miner.wait().unwrap();
    let status = agent
        .wait_for("the loss is counted", Duration::from_secs(30), |agent| {
            let status = agent.status()?;
            Ok((status.store.lost > 0 || status.store.failing.is_some()).then_some(status))
        })
        .unwrap();
    assert!(status.store.bytes <= 80 << 20);
}

#[test]
fn hostile_clients_are_told_and_left() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start("").unwrap();
    let say = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(agent.base().join("run/read.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    assert!(say(b"GET / HTTP/1.1\r\n\r\n").contains("malformed"));
    assert!(say(b"{\"version\":99,\"query\":{\"what\":\"status\"}}\n").contains("version"));
    assert!(say(b"{\"version\":1,\"command\":{\"what\":\"stop\"}}\n").contains("forbidden"));
    let deep = "[".repeat(50_000) + "\n";
    assert!(say(deep.as_bytes()).contains("malformed"));
    assert_eq!(say(&vec![b'x'; 1 << 20]), "", "an endless line is hung up on");
    let idle: Vec<_> =
        (0..80).map(|_| UnixStream::connect(agent.base().join("run/read.sock")).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(300));
    assert!(say(b"{\"version\":1,\"query\":{\"what\":\"status\"}}\n").contains("too many clients"));
    drop(idle);
    agent
        .wait_for("the places are free again", Duration::from_secs(5), |agent| Ok(agent.status().ok()))
        .unwrap();
}

#[test]
fn a_read_only_disk_is_said_with_the_way_out() {
    if !root_or_skip() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs -o ro davy-e2e \"$0\" && exec \"$@\""]);
    let said =
        command.arg(folder.path()).arg(davy()).arg("--base-dir").arg(folder.path()).arg("agent").output();
    let said = said.unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success());
    assert!(text.contains("Read-only") && text.contains("--base-dir"), "{text}");
}
