//! Processes, folders and cgroups that a test makes and that are gone after it, however it ends.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use davy_model::{Action, ActionId, ActionRecord, ActionState, ProcessKey, Timestamp};
use davy_respond::{Outcome, Responder, ResponderConfig};

/// No process that a test starts lives longer, in seconds, whatever happens to the test.
pub const LIFE: &str = "60";

pub fn boot() -> u32 {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    u32::from_str_radix(&id[..8], 16).unwrap()
}

fn fields(pid: u32) -> Option<Vec<String>> {
    let line = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
    let rest = &line[line.rfind(')')? + 2..];
    Some(rest.split(' ').map(str::to_owned).collect())
}

pub fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start_ticks: fields(pid).unwrap()[19].parse().unwrap(), boot: boot() }
}

/// The state letter of proc_pid_stat(5); `None` when there is no such process.
pub fn state(pid: u32) -> Option<char> {
    fields(pid)?[0].chars().next()
}

pub fn lives(key: &ProcessKey) -> bool {
    fields(key.pid)
        .is_some_and(|f| f[19] == key.start_ticks.to_string() && !matches!(f[0].as_str(), "Z" | "X"))
}

pub fn parent(pid: u32) -> Option<u32> {
    fields(pid)?[1].parse().ok()
}

pub fn descendants(root: u32) -> BTreeSet<u32> {
    let pids = || {
        fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
    };
    let mut found = BTreeSet::from([root]);
    loop {
        let more: Vec<u32> = pids()
            .filter(|pid| !found.contains(pid) && parent(*pid).is_some_and(|p| found.contains(&p)))
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(10), "waited 10 s for: {what}");
        sleep(Duration::from_millis(2));
    }
}

/// A shell script under `timeout`, in a process group of its own that dies with the test.
pub struct Play {
    pub child: Child,
    pub root: ProcessKey,
}

impl Play {
    pub fn shell(script: &str) -> Self {
        Self::run(Command::new("timeout").args(["-s", "KILL", LIFE, "sh", "-c", script]))
    }

    pub fn run(command: &mut Command) -> Self {
        let child = command.process_group(0).stdin(Stdio::null()).spawn().unwrap();
        let root = key(child.id());
        Self { child, root }
    }

    pub fn pids(&self) -> BTreeSet<u32> {
        descendants(self.root.pid)
    }

    pub fn grown_to(self, count: usize) -> Self {
        wait_for("the tree to grow", || self.pids().len() >= count);
        self
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        let pids = self.pids();
        for pid in pids.iter().map(|&pid| rustix::process::Pid::from_raw(pid as i32).unwrap()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let group = rustix::process::Pid::from_raw(self.root.pid as i32).unwrap();
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn cgroup2_mount() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = text.lines().find(|line| line.contains(" - cgroup2 "))?;
    Some(line.split(' ').nth(4)?.into())
}

/// A cgroup v2 of the test's own.
pub struct TestCgroup {
    pub mount: PathBuf,
    pub path: String,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl TestCgroup {
    /// `None`, loudly, where the host has none to give.
    pub fn make() -> Option<Self> {
        let mount = cgroup2_mount();
        let path = format!("/davy-respond-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let made = mount.as_ref().is_some_and(|mount| fs::create_dir(mount.join(&path[1..])).is_ok());
        if !made {
            println!("SKIPPED: a writable cgroup v2 hierarchy is missing");
            return None;
        }
        Some(Self { mount: mount.unwrap(), path })
    }

    pub fn folder(&self) -> PathBuf {
        self.mount.join(&self.path[1..])
    }

    /// Runs a script in it from its first instruction on.
    pub fn shell(&self, script: &str) -> Play {
        let procs = self.folder().join("cgroup.procs");
        let enter = format!("echo $$ > {} && exec timeout -s KILL {LIFE} sh -c \"$1\"", procs.display());
        let play = Play::run(Command::new("sh").args(["-c", &enter, "sh", script]));
        wait_for("the script to enter its cgroup", || self.pids().contains(&play.root.pid));
        play
    }

    pub fn pids(&self) -> BTreeSet<u32> {
        let text = fs::read_to_string(self.folder().join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    pub fn is_frozen(&self) -> bool {
        fs::read_to_string(self.folder().join("cgroup.events")).unwrap().contains("frozen 1")
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.folder().join("cgroup.freeze"), "0");
        let _ = fs::write(self.folder().join("cgroup.kill"), "1");
        let begin = Instant::now();
        while fs::remove_dir(self.folder()).is_err() && begin.elapsed() < Duration::from_secs(5) {
            sleep(Duration::from_millis(5));
        }
    }
}

/// A responder over a fresh folder, that acts on the test's own children.
pub fn responder(state: &Path) -> Responder {
    responder_with(state, |_| {})
}

pub fn responder_with(state: &Path, change: impl FnOnce(&mut ResponderConfig)) -> Responder {
    let mut config = ResponderConfig::new(state.into(), cgroup2_mount());
    config.spare_children = false;
    change(&mut config);
    Responder::new(config, None).unwrap()
}

/// Prepares and carries out; panics on a refusal.
pub fn act(responder: &Responder, action: &Action) -> Outcome {
    let prepared = responder.prepare(action).expect("no failsafe forbids it");
    responder.carry_out(&prepared)
}

/// The journal line of an outcome.
pub fn line(action: &Action, outcome: &Outcome) -> ActionRecord {
    ActionRecord {
        id: ActionId(1),
        time: Timestamp(0),
        changed: Timestamp(0),
        incident: None,
        finding: None,
        action: action.clone(),
        state: outcome.state,
        note: outcome.note.clone(),
        undoable: outcome.undoable,
        undo: outcome.undo.clone(),
    }
}

/// The journal line of an action whose agent died before it could say what came of it.
pub fn intended(action: &Action, undo: &str) -> ActionRecord {
    ActionRecord {
        state: ActionState::Intended,
        note: String::new(),
        undo: undo.into(),
        undoable: false,
        ..line(
            action,
            &Outcome {
                state: ActionState::Intended,
                note: String::new(),
                undoable: false,
                undo: String::new(),
            },
        )
    }
}

/// Reads lines that a script writes to its output.
pub fn first_line(child: &mut Child) -> String {
    let mut text = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut text).unwrap();
    text.trim().to_owned()
}
