//! A host whose disk takes nothing: read-only, full, or not this user's. An installed agent protects it all the same, and
//! says what it cannot keep.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use davy_model::{Action, ActionRecord, ActionState, FindingKind, Incident};
use davy_test_e2e::{Agent, Scope, davy, freezes, miner, puts_away, root_or_skip};
use davy_wire::{Command as Order, Query, Reply, RequestBody};

/// A mount namespace with an empty /run and a disk that takes nothing, which ends with the test.
struct Host(Child);

/// What is wrong with the disk. Nothing of an agent that was here is seen in it.
const READ_ONLY: &str =
    "mount -t tmpfs -o ro davy-e2e /var/lib && mount --bind /etc /etc && mount -o remount,bind,ro /etc";
const READ_ONLY_SINCE: &str = "mount -t tmpfs davy-e2e /var/lib && mkdir -p /var/lib/davy/store && \
                               touch /var/lib/davy/store/main.db && mount -o remount,ro /var/lib";
const FULL: &str = "mount -t tmpfs -o size=64k davy-e2e /var/lib";

impl Host {
    fn with(disk: &str) -> Self {
        let set =
            format!("mount -t tmpfs -o size=128m davy-e2e /run && {disk} && echo set && exec sleep 300");
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "sh", "-c", &set]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = holder.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "set\n", "the mounts of {disk:?}");
        Self(child)
    }

    /// `davy` in it.
    fn davy(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.id().to_string(), "--mount", "--"]).arg(davy());
        command
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.davy().args(arguments).output().unwrap();
        assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }
}

/// Whether the system's own folders hold a policy, which is not the tests'.
fn installed() -> bool {
    let installed = Path::new("/etc/davy/davy.toml").exists();
    if installed {
        println!("SKIPPED: Davy is installed here");
    }
    installed
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mining_incident(agent: &Agent, pid: u32) -> Option<Incident> {
    let of =
        |f: &davy_model::Finding| f.kind == FindingKind::Mining && f.processes.iter().any(|p| p.pid == pid);
    agent.incidents().unwrap().into_iter().find(|i| i.findings.iter().any(of))
}

fn journal(agent: &Agent, wanted: impl Fn(&Action) -> bool) -> Option<ActionRecord> {
    let replies = agent.ask(RequestBody::Query(Query::Actions { limit: 100 })).unwrap();
    let of_it = |reply| match reply {
        Reply::Action(record) if record.state != ActionState::WouldHave && wanted(&record.action) => {
            Some(record)
        }
        _ => None,
    };
    replies.into_iter().find_map(of_it)
}

#[test]
fn a_read_only_disk_keeps_no_history_and_all_of_the_protection() {
    if !root_or_skip() || installed() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let host = Host::with(READ_ONLY);
    let agent = Agent::start_installed(folder.path(), host.davy()).unwrap();

    // It is said first, in the log, to people and to programs.
    assert!(
        agent.log().contains("/var/lib/davy cannot be written: Read-only file system"),
        "{}",
        agent.log()
    );
    let said = host.ask(&["status", "--color", "never"]);
    let second = said.lines().nth(1).unwrap();
    assert!(second.contains("History and journal lie in memory"), "{said}");
    let store = agent.status().unwrap().store;
    assert_eq!(store.path, "/run/davy/state/store");
    assert!(store.temporary.unwrap().contains("Read-only file system"));
    assert!(store.max_bytes <= 32 << 20, "memory is bounded: {}", store.max_bytes);

    // A miner is recognised, and stopped when ordered.
    let scope = Scope::make("read-only").unwrap();
    let program = folder.path().join("nightly-report");
    std::fs::copy(miner(), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["--algo", "randomx", "--mode", "light", "--threads", "1", "--no-pool", "--for", "120"]);
    let mut mining = scope.spawn(command.stdout(Stdio::null()).stderr(Stdio::null())).unwrap();
    let pid = mining.id();
    let incident = agent
        .wait_for("the miner is recognised", Duration::from_secs(60), |agent| Ok(mining_incident(agent, pid)))
        .unwrap();
    let order = |action: &str| {
        agent.ask(RequestBody::Command(Order::Act { id: incident.id, actions: vec![action.to_owned()] }))
    };
    order("freeze").unwrap();
    assert_eq!(journal(&agent, freezes(pid)).unwrap().state, ActionState::Done);
    // Its program would be lost at the next reboot, so it is not taken away.
    let _ = order("quarantine");
    let record = journal(&agent, puts_away(&program)).unwrap();
    assert_eq!(record.state, ActionState::Refused, "{}", record.note);
    assert!(record.note.contains("Read-only file system") && record.note.contains("stays where it is"));
    assert!(program.exists());

    // What was written down before it was done outlives a crash of the agent, and is undone by the next.
    let mut agent = agent;
    agent.signal(rustix::process::Signal::KILL);
    agent.wait_end(Duration::from_secs(10)).unwrap();
    let agent = Agent::start_installed(folder.path(), host.davy()).unwrap();
    let frozen = journal(&agent, freezes(pid)).unwrap();
    assert_eq!(frozen.state, ActionState::Done);
    agent.ask(RequestBody::Command(Order::UndoAction { id: frozen.id })).unwrap();
    assert_eq!(journal(&agent, freezes(pid)).unwrap().state, ActionState::Undone);
    mining.kill().unwrap();
    mining.wait().unwrap();
}

#[test]
fn a_disk_that_takes_nothing_is_named_with_its_reason() {
    if !root_or_skip() || installed() {
        return;
    }
    for (disk, wanted) in [
        (READ_ONLY_SINCE, "/var/lib/davy/store/main.db cannot be written: Read-only file system"),
        (FULL, "/var/lib/davy cannot be written: No space left on device"),
    ] {
        let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
        let host = Host::with(disk);
        let agent = Agent::start_installed(folder.path(), host.davy()).unwrap();
        let store = agent.status().unwrap().store;
        assert_eq!(store.path, "/run/davy/state/store");
        let why = store.temporary.unwrap();
        assert!(why.contains(wanted), "{why}");
    }
}
