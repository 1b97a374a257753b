//! Nobody is locked out while the agent or its keeper is held up: stopped, traced, frozen, killed.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::agent::{Agent, signal};
use crate::ground::{execute, until};
use crate::lockouts::{SLACK, ground_of_three, hanging, passes, quick};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("agent_sigstopped_in_a_decision", agent_sigstopped_in_a_decision),
    ("agent_traced_in_a_decision", agent_traced_in_a_decision),
    ("agent_and_keeper_frozen_together", agent_and_keeper_frozen_together),
    ("keeper_sigstopped", keeper_sigstopped),
    ("keeper_traced", keeper_traced),
    ("keeper_killed", keeper_killed),
];

const DECIDED: Duration = Duration::from_secs(2);
const SWITCHED: Duration = Duration::from_secs(2);
/// 100 ms until it is asked whether it lives, 500 ms for the answer.
const SILENT: Duration = Duration::from_millis(600);

fn agent_sigstopped_in_a_decision() {
    let (ground, [good, bad, hang]) = ground_of_three();
    let mut agent = Agent::start(ground.path());
    let (child, since) = hanging(&mut agent, &hang);
    signal(agent.pid(), Signal::STOP);
    passes(child, since, SILENT, "an exec while the agent is stopped");
    for _ in 0..20 {
        quick(&good);
    }
    assert!(execute(&bad).is_ok(), "it is let through, as stated");
    signal(agent.pid(), Signal::CONT);
    until("it decides again", Duration::from_secs(4), || execute(&bad) == Err(libc::EPERM));
    // Counts are told once a second.
    until("all of them are counted", Duration::from_secs(3), || {
        let [late, absent, restarts] = agent.counts();
        assert!(late == 0 && restarts == 0, "{late} {restarts}");
        absent >= 22
    });
}

/// Holds a process as a debugger does until it is dropped.
struct Debugger(Child);

impl Debugger {
    fn attach(pid: i32) -> Self {
        let mut child = Command::new("gdb")
            .args(["-q", "-nx", "-iex", "set auto-load off", "-iex", "set debuginfod enabled off"])
            .args(["-iex", "set confirm off", "-p", &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("it is traced", Duration::from_secs(20), || {
            assert!(child.try_wait().unwrap().is_none(), "the debugger has ended");
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.is_empty() || status.contains("State:\tt")
        });
        Self(child)
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        // It lets go and ends with its input; one that does not is of no use any more.
        drop(self.0.stdin.take());
        let end = Instant::now() + Duration::from_secs(5);
        while self.0.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn have_gdb() -> bool {
    let have = Command::new("gdb").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !have {
        println!("SKIPPED: no gdb to trace with");
    }
    have
}

fn agent_traced_in_a_decision() {
    if !have_gdb() {
        return;
    }
    let (ground, [good, bad, hang]) = ground_of_three();
    let mut agent = Agent::start(ground.path());
    let (child, since) = hanging(&mut agent, &hang);
    let debugger = Debugger::attach(agent.pid());
    // The debugger itself takes longer to attach than the decision may take.
    passes(child, since, DECIDED, "an exec while the agent is traced");
    // Nobody has been asked yet since it is held.
    let took = execute(&good).unwrap();
    assert!(took < SILENT + SLACK, "{took:?}");
    for _ in 0..20 {
        quick(&good);
    }
    assert!(execute(&bad).is_ok(), "it is let through, as stated");
    drop(debugger);
    until("it decides again", Duration::from_secs(4), || execute(&bad) == Err(libc::EPERM));
}

fn keeper_traced() {
    if !have_gdb() {
        return;
    }
    let (ground, [good, bad, _]) = ground_of_three();
    let mut agent = Agent::start(ground.path());
    let debugger = Debugger::attach(agent.keeper.cast_signed());
    let took = execute(&good).unwrap();
    assert!(took < SWITCHED + SLACK, "{took:?}");
    drop(debugger);
    until("another decides", Duration::from_secs(4), || execute(&bad) == Err(libc::EPERM));
    assert_eq!(agent.counts()[2], 1);
}

fn keeper_sigstopped() {
    let (ground, [good, bad, _]) = ground_of_three();
    let mut agent = Agent::start(ground.path());
    signal(agent.keeper.cast_signed(), Signal::STOP);
    let took = execute(&good).unwrap();
    println!("an exec while the keeper is stopped: after {took:?}");
    assert!(took < SWITCHED + SLACK, "{took:?}");
    until("another decides", Duration::from_secs(4), || execute(&bad) == Err(libc::EPERM));
    assert_eq!(agent.counts()[2], 1);
}

fn keeper_killed() {
    let (ground, [good, bad, _]) = ground_of_three();
    let mut agent = Agent::start(ground.path());
    for restarts in 1..=3 {
        let keeper = agent.keeper;
        signal(keeper.cast_signed(), Signal::KILL);
        quick(&good);
        until("another decides", Duration::from_secs(6), || execute(&bad) == Err(libc::EPERM));
        assert_eq!(agent.counts()[2], restarts);
        agent.keeper = child_of(agent.pid());
        assert_ne!(agent.keeper, keeper);
    }
}

fn child_of(pid: i32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let of_threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let all: String = of_threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .chain([children])
        .collect();
    all.split_whitespace().next().unwrap().parse().unwrap()
}

/// A control group of the test's own, thawed and removed at the end.
struct Group(PathBuf);

impl Group {
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let point = words.next()?;
            (words.next()? == "cgroup2").then(|| PathBuf::from(point))
        })?;
        let path = root.join(format!("davy-test-gate-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.freeze"), "0");
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("{} could not be removed", self.0.display());
    }
}

fn agent_and_keeper_frozen_together() {
    let Some(group) = Group::make() else {
        println!("SKIPPED: no control group can be made to freeze");
        return;
    };
    let (ground, [good, bad, hang]) = ground_of_three();
    let mut agent = Agent::start(ground.path());
    for pid in [agent.child.id(), agent.keeper] {
        fs::write(group.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    let (child, since) = hanging(&mut agent, &hang);
    fs::write(group.0.join("cgroup.freeze"), "1").unwrap();
    passes(child, since, SWITCHED, "an exec while the agent's whole service is frozen");
    for _ in 0..20 {
        quick(&good);
    }
    fs::write(group.0.join("cgroup.freeze"), "0").unwrap();
    until("another decides", Duration::from_secs(4), || execute(&bad) == Err(libc::EPERM));
    drop(agent);
}
