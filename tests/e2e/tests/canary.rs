//! What enforces proves that it does, on a process of the agent's own; and when it does not, that is told.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use davy_model::{Action, ActionRecord, ActionState, FindingKind, IncidentState, Severity, Signal};
use davy_test_e2e::{Agent, cgroup2, davy, root_or_skip};
use davy_wire::{Command as Order, Proof, Query, Reply, RequestBody, Tally};
use rustix::process::Signal as Kill;

/// Enforces where nobody is, so that nothing but the canary is acted on.
const ENFORCE: &str = "[scope]\ncgroups = [\"/davy-e2e-nobody\"]\n[mining]\nmode = \"enforce\"\n";

const LIMIT: Duration = Duration::from_secs(60);

/// One at a time, because what one leaves behind the other would be blamed for.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn canary(agent: &Agent, after: Option<&Proof>) -> Proof {
    agent
        .wait_for("a canary", LIMIT, |agent| {
            Ok(agent.status()?.last_canary.filter(|proof| after.is_none_or(|last| proof.time > last.time)))
        })
        .unwrap()
}

/// Whether what enforces here is said to do so.
fn proven(agent: &Agent) -> Option<bool> {
    agent.status().unwrap().protections.into_iter().find(|p| p.name == "mining").unwrap().proven
}

/// The cgroups of an agent's canaries.
fn cgroups(agent: u32) -> Vec<PathBuf> {
    let Some(mount) = cgroup2() else { return Vec::new() };
    let prefix = format!("davy-canary-{agent}-");
    let all = std::fs::read_dir(mount).unwrap().flatten();
    all.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).map(|e| e.path()).collect()
}

/// The canaries that this binary plays.
fn canaries(binary: &std::path::Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        // One that has ended and that nobody has collected yet has no command line any more.
        if line.starts_with(&*binary.to_string_lossy()) && line.contains("\0drill-act\0canary") {
            found.push(pid);
        }
    }
    found
}

/// A copy of the program, so that its canaries are told from those of other agents here.
fn copy(folder: &std::path::Path) -> PathBuf {
    let binary = folder.join("davy");
    std::fs::copy(davy(), &binary).unwrap();
    binary
}

fn nothing_is_left(agent: u32, binary: &std::path::Path) {
    for _ in 0..50 {
        if cgroups(agent).is_empty() && canaries(binary).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("left: {:?}, {:?}", cgroups(agent), canaries(binary));
}

/// What was done on behalf of no incident. Whatever else mines on this machine, as other tests do, has one.
fn journal(agent: &Agent) -> Vec<ActionRecord> {
    let replies = agent.ask(RequestBody::Query(Query::Actions { limit: 1000 })).unwrap();
    let records = replies.into_iter().filter_map(|r| if let Reply::Action(a) = r { Some(a) } else { None });
    records.filter(|record| record.incident.is_none()).collect()
}

fn write_policy(agent: &Agent, policy: &str) {
    std::fs::write(agent.base().join("etc/davy.toml"), policy).unwrap();
    agent.ask(RequestBody::Command(Order::Reload)).unwrap();
}

#[test]
fn what_enforces_proves_it_at_start_and_when_it_begins_to_enforce() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let binary = copy(folder.path());
    let mut agent = Agent::start_in(folder.path(), ENFORCE, Command::new(&binary), &[]).unwrap();
    let first = canary(&agent, None);
    let can_cut = agent
        .status()
        .unwrap()
        .probes
        .iter()
        .any(|p| p.capability == davy_model::Capability::CgroupBpf && p.works);
    let of = if can_cut { 5 } else { 3 };
    assert_eq!(first.tally, Tally { held: of, of, failed: Vec::new() }, "{}", agent.log());
    assert_eq!(proven(&agent), Some(true));

    // Each step is in the journal, told apart from what is done to others, and none is left to undo.
    let lines = journal(&agent);
    assert_eq!(lines.len() as u32, if can_cut { 3 } else { 2 }, "{lines:?}");
    for line in &lines {
        assert!(
            line.is_canary() && line.note.starts_with("Davy's own canary: ") && !line.undoable,
            "{line:?}"
        );
        let kill = matches!(line.action, Action::Kill { .. });
        assert_eq!(line.state, if kill { ActionState::Done } else { ActionState::Undone }, "{line:?}");
    }
    nothing_is_left(agent.pid(), &binary);

    // In observe nobody is acted on, and what begins to enforce proves it.
    write_policy(&agent, "[mining]\nmode = \"observe\"\n");
    write_policy(&agent, ENFORCE);
    let second = canary(&agent, Some(&first));
    assert!(second.tally.all_held(), "{second:?}");
    // A reload that changes nothing of it does not.
    write_policy(&agent, ENFORCE);
    agent.ask(RequestBody::Command(Order::Disarm { seconds: 600 })).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(agent.status().unwrap().last_canary.as_ref(), Some(&second));
    agent.ask(RequestBody::Command(Order::Arm)).unwrap();
    assert!(canary(&agent, Some(&second)).tally.all_held());

    // Nothing is told of any of the three, and no incident has them.
    let played: Vec<u32> = journal(&agent)
        .iter()
        .filter_map(|line| if let Action::Kill { root, .. } = &line.action { Some(root.pid) } else { None })
        .collect();
    assert_eq!(played.len(), 3, "{played:?}");
    let told = agent.findings().unwrap();
    assert!(
        !told.iter().any(|f| f.kind == FindingKind::Unproven
            || f.processes.iter().chain(&f.subject).any(|process| played.contains(&process.pid))),
        "{told:?}"
    );
    let trees: Vec<_> = agent.incidents().unwrap().into_iter().flat_map(|i| i.tree).collect();
    assert!(!trees.iter().any(|node| played.contains(&node.process.pid)), "{trees:?}");
    agent.signal(Kill::TERM);
    agent.wait_end(Duration::from_secs(15)).unwrap();
    nothing_is_left(agent.pid(), &binary);
}

#[test]
fn what_only_observes_acts_on_nobody() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let agent = Agent::start("").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(agent.status().unwrap().last_canary, None);
    assert_eq!(journal(&agent), []);
    let tally = Tally { held: 12, of: 13, failed: vec!["respond/cut".to_owned()] };
    agent.ask(RequestBody::Command(Order::Drilled(tally.clone()))).unwrap();
    assert_eq!(agent.status().unwrap().last_drill.unwrap().tally, tally);
}

/// Thaws whatever an agent freezes of its own, as whoever is root could.
struct Thawing {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Thawing {
    fn begin(agent: Arc<Mutex<Option<u32>>>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Some(agent) = *agent.lock().unwrap() {
                    for cgroup in cgroups(agent) {
                        let freeze = cgroup.join("cgroup.freeze");
                        if std::fs::read_to_string(&freeze).is_ok_and(|text| text.trim() == "1") {
                            let _ = std::fs::write(freeze, "0");
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Thawing {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_canary_that_is_not_stopped_is_told_loudly_until_one_is() {
    if !root_or_skip() {
        return;
    }
    if cgroup2().is_none() {
        println!("SKIPPED: a cgroup v2 mount");
        return;
    }
    let _alone = alone();
    let agent = Agent::start("").unwrap();
    let thawing = Thawing::begin(Arc::new(Mutex::new(Some(agent.pid()))));
    write_policy(&agent, ENFORCE);
    let broken = canary(&agent, None);
    drop(thawing);
    assert!(
        !broken.tally.all_held() && broken.tally.failed.contains(&"freeze: it runs on".to_owned()),
        "{broken:?}"
    );
    assert!(agent.log().contains("Davy's own canary was not stopped: freeze: it runs on"), "{}", agent.log());
    assert_eq!(proven(&agent), Some(false));

    let incident = agent
        .wait_for("the incident", LIMIT, |agent| {
            Ok(agent
                .incidents()?
                .into_iter()
                .find(|i| i.findings.iter().any(|f| f.kind == FindingKind::Unproven)))
        })
        .unwrap();
    assert_eq!((incident.state, incident.severity), (IncidentState::Running, Severity::Critical));
    let finding = agent.findings().unwrap().into_iter().find(|f| f.kind == FindingKind::Unproven).unwrap();
    assert!(finding.summary.contains("freeze: it runs on"), "{}", finding.summary);
    assert_eq!(finding.evidence[0].signal, Signal::Canary);
    assert!(!finding.techniques.is_empty());
    let status = |agent: &Agent| {
        let mut command = Command::new(davy());
        command.arg("--base-dir").arg(agent.base()).args(["status", "--color", "never"]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(
        status(&agent).starts_with("NOT PROVEN. Davy's own canary was not stopped at "),
        "{}",
        status(&agent)
    );

    // Once it works again, the next canary says so, and ends the incident.
    write_policy(&agent, "");
    write_policy(&agent, ENFORCE);
    assert!(canary(&agent, Some(&broken)).tally.all_held(), "{}", agent.log());
    assert_eq!(proven(&agent), Some(true));
    agent
        .wait_for("the incident is over", LIMIT, |agent| {
            let state = agent.incidents()?.into_iter().find(|i| i.id == incident.id).map(|i| i.state);
            Ok((state == Some(IncidentState::Ended)).then_some(()))
        })
        .unwrap();
    let said = status(&agent);
    assert!(said.starts_with("Protected. 1 of ") && said.contains(" protections enforces"), "{said}");
}

#[test]
fn a_canary_whose_agent_is_killed_is_gone_with_the_next() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let binary = copy(folder.path());
    let mut agent = Agent::start_in(folder.path(), "", Command::new(&binary), &[]).unwrap();
    std::fs::write(agent.base().join("etc/davy.toml"), ENFORCE).unwrap();
    agent.ask(RequestBody::Command(Order::Reload)).unwrap();
    // It stands still for half a second.
    let end = std::time::Instant::now() + LIMIT;
    let frozen = |cgroup: &PathBuf| {
        std::fs::read_to_string(cgroup.join("cgroup.events")).is_ok_and(|text| text.contains("frozen 1"))
    };
    while !cgroups(agent.pid()).iter().any(frozen) {
        assert!(std::time::Instant::now() < end, "no canary stands still: {}", agent.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    agent.signal(Kill::KILL);
    agent.wait_end(Duration::from_secs(15)).unwrap();
    assert_eq!(cgroups(agent.pid()).len(), 1, "nobody was there to clean up");
    assert_eq!(canaries(&binary).len(), 1);

    let next =
        Agent::start_in(folder.path(), "[mining]\nmode = \"observe\"\n", Command::new(&binary), &[]).unwrap();
    nothing_is_left(agent.pid(), &binary);
    next.wait_for("nothing is left to undo", LIMIT, |next| {
        let lines = journal(next);
        assert!(!lines.is_empty() && lines.iter().all(ActionRecord::is_canary), "{lines:?}");
        Ok(lines.iter().all(|l| l.state == ActionState::Undone && !l.undoable).then_some(()))
    })
    .unwrap();
    assert_eq!(next.status().unwrap().last_canary, None);
}

#[test]
fn without_root_the_canary_is_stopped_by_signals() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let binary = copy(folder.path());
    for dir in ["", "davy", "etc", "state", "run"] {
        let path = folder.path().join(dir);
        if !path.exists() {
            std::fs::create_dir(&path).unwrap();
        }
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let start = |policy| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(&binary);
        Agent::start_in(folder.path(), policy, command, &[]).unwrap()
    };
    let mut agent = start(ENFORCE);
    let proof = canary(&agent, None);
    assert_eq!(proof.tally, Tally { held: 3, of: 3, failed: Vec::new() }, "{}", agent.log());
    nothing_is_left(agent.pid(), &binary);

    // Killed while it stands still, it is let go by the next agent, and ends.
    write_policy(&agent, "");
    write_policy(&agent, ENFORCE);
    let end = std::time::Instant::now() + LIMIT;
    let stopped = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    while !canaries(&binary).iter().any(stopped) {
        assert!(std::time::Instant::now() < end, "no canary stands still: {}", agent.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    agent.signal(Kill::KILL);
    agent.wait_end(Duration::from_secs(15)).unwrap();
    assert_eq!(canaries(&binary).len(), 1, "nobody was there to clean up");
    let next = start("[mining]\nmode = \"observe\"\n");
    nothing_is_left(next.pid(), &binary);
}
