//! An agent comes and goes, by every way a process can go, and leaves the host as it was.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use davy_model::{ActionId, Finding, FindingKind, IncidentId, Mode, Signal as Evidence, Tier};
use davy_test_e2e::{Agent, davy, root_or_skip};
use davy_test_pool::{Algorithm, Pool, PoolConfig};
use davy_wire::{Command as Order, RequestBody};
use rustix::process::Signal;

/// What one agent holds in the kernel, by id, read from its descriptors: other agents may run beside it.
#[derive(Debug)]
struct Held {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl Held {
    fn by(pid: u32) -> Self {
        let mut held = Self { programs: BTreeSet::new(), maps: BTreeSet::new(), links: BTreeSet::new() };
        for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
            // A descriptor may be closed between the listing and the read.
            let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
            for line in info.lines() {
                let Some((name, id)) = line.split_once(':') else { continue };
                let Ok(id) = id.trim().parse() else { continue };
                match name {
                    "prog_id" => held.programs.insert(id),
                    "map_id" => held.maps.insert(id),
                    "link_id" => held.links.insert(id),
                    _ => false,
                };
            }
        }
        held
    }

    /// How many of them still are. The kernel frees programs a moment after the last descriptor is closed.
    fn left(&self) -> usize {
        use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};
        ProgInfoIter::default().filter(|p| self.programs.contains(&p.id)).count()
            + MapInfoIter::default().filter(|m| self.maps.contains(&m.id)).count()
            + LinkInfoIter::default().filter(|l| self.links.contains(&l.id)).count()
    }

    fn wait_until_gone(&self) {
        for _ in 0..50 {
            if self.left() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("left in the kernel: {} of {self:?}", self.left());
    }
}

fn knows_processes(agent: &Agent) {
    let limit = Duration::from_secs(10);
    agent.wait_for("it knows processes", limit, |a| Ok((a.status()?.processes > 1).then_some(()))).unwrap();
}

#[test]
fn every_end_leaves_nothing_behind() {
    if !root_or_skip() {
        return;
    }
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut agent = Agent::start("").unwrap();
        let held = Held::by(agent.pid());
        assert!(
            !held.programs.is_empty() && !held.maps.is_empty(),
            "the agent should be in the kernel: {held:?}"
        );
        assert_ne!(held.left(), 0);
        agent.signal(signal);
        let status = agent.wait_end(Duration::from_secs(15)).unwrap();
        assert_eq!(status.success(), signal != Signal::KILL, "{}", agent.log());
        held.wait_until_gone();
        if signal != Signal::KILL {
            assert!(!agent.base().join("run/read.sock").exists());
            assert!(!agent.base().join("run/control.sock").exists());
        }
    }
}

/// Ends a process if the test has not.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn davy_run_says_that_nothing_is_left_once_nothing_is() {
    use std::io::BufRead;
    if !root_or_skip() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let mut command = Command::new(davy());
    command.arg("--base-dir").arg(folder.path()).arg("run");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut run = Running(command.spawn().unwrap());
    let mut lines = std::io::BufReader::new(run.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("Ctrl-C stops it")), "it does not say how to stop it");
    let held = Held::by(run.0.id());
    assert!(!held.programs.is_empty(), "it should be in the kernel: {held:?}");
    let pid = rustix::process::Pid::from_child(&run.0);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let last = lines.find(|line| line.starts_with("Stopped after ")).unwrap();
    // Whoever says so must be right at that moment.
    assert_eq!(held.left(), 0, "{last}");
    assert!(last.ends_with(" events. Nothing of Davy is left in the kernel."), "{last}");
    assert!(run.0.wait().unwrap().success());
}

#[test]
fn davy_stop_ends_it() {
    if !root_or_skip() {
        return;
    }
    let mut agent = Agent::start("").unwrap();
    agent.ask(RequestBody::Command(Order::Stop)).unwrap();
    let status = agent.wait_end(Duration::from_secs(15)).unwrap();
    assert_eq!(status.code(), Some(8), "the service manager is told not to start it again: {}", agent.log());
}

#[test]
fn a_killed_agent_starts_again_over_what_it_left() {
    if !root_or_skip() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let mut agent = Agent::start_in(folder.path(), "", Command::new(davy()), &[]).unwrap();
        knows_processes(&agent);
        agent.signal(Signal::KILL);
        agent.wait_end(Duration::from_secs(15)).unwrap();
    }
    let agent = Agent::start_in(folder.path(), "", Command::new(davy()), &[]).unwrap();
    let status = agent.status().unwrap();
    assert_eq!(status.store.lost, 0);
    assert_eq!(status.store.failing, None);
}

#[test]
fn two_agents_live_side_by_side_but_not_in_one_folder() {
    if !root_or_skip() {
        return;
    }
    let one = Agent::start("").unwrap();
    let other = Agent::start("").unwrap();
    assert_ne!(one.status().unwrap().pid, other.status().unwrap().pid);
    let third = Command::new(davy()).arg("--base-dir").arg(one.base()).arg("agent").output().unwrap();
    assert!(!third.status.success());
    let said = String::from_utf8_lossy(&third.stderr);
    assert!(said.contains(&one.pid().to_string()), "the message names the pid: {said}");
}

#[test]
fn a_wrong_policy_is_refused_whole_and_shown() {
    if !root_or_skip() {
        return;
    }
    let agent =
        Agent::start("[mining]\nmode = \"enforce\"\n[scope]\ncgroups = [\"/davy-e2e-none\"]\n").unwrap();
    assert_eq!(agent.status().unwrap().mode_of("mining"), Some(Mode::Enforce));
    std::fs::write(agent.base().join("etc/davy.toml"), "[mining]\nmode = \"fierce\"\nspeed = 3\n").unwrap();
    let refusal = agent.ask(RequestBody::Command(Order::Reload)).unwrap_err().to_string();
    assert!(refusal.contains("fierce") && refusal.contains("speed"), "all faults at once: {refusal}");
    let status = agent.status().unwrap();
    assert_eq!(status.mode_of("mining"), Some(Mode::Enforce), "the running policy stays");
    assert!(status.policy.refused.contains("fierce"));
}

#[test]
fn a_list_that_cannot_be_read_is_told_at_start_and_at_a_reload() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start("[mining.pools]\ndomains = [\"gone.txt\"]\n").unwrap();
    let mining = agent.status().unwrap().protections.into_iter().find(|p| p.name == "mining").unwrap();
    assert!(mining.note.contains("gone.txt cannot be read"), "{}", mining.note);
    let said = |agent: &Agent| match agent.ask(RequestBody::Command(Order::Reload)).unwrap().pop() {
        Some(davy_wire::Reply::Done(sentence)) => sentence,
        other => panic!("{other:?}"),
    };
    assert!(said(&agent).contains("but the list of pools"), "{}", said(&agent));
    std::fs::write(agent.base().join("etc/gone.txt"), "pool.example\n").unwrap();
    assert!(!said(&agent).contains("list of pools"), "{}", said(&agent));
}

#[test]
fn break_glass_is_bounded_and_ends() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start("").unwrap();
    assert!(agent.ask(RequestBody::Command(Order::Disarm { seconds: 0 })).is_err());
    assert!(agent.ask(RequestBody::Command(Order::Disarm { seconds: u32::MAX })).is_err());
    agent.ask(RequestBody::Command(Order::Disarm { seconds: 600 })).unwrap();
    assert!(agent.status().unwrap().disarmed_until.is_some());
    agent.ask(RequestBody::Command(Order::Arm)).unwrap();
    assert_eq!(agent.status().unwrap().disarmed_until, None);
}

#[test]
fn what_is_not_there_is_said_to_be_not_there() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start("").unwrap();
    let id = IncidentId(4_711);
    for body in [
        RequestBody::Query(davy_wire::Query::Incident { id }),
        RequestBody::Command(Order::UndoIncident { id }),
        RequestBody::Command(Order::UndoAction { id: ActionId(4_711) }),
    ] {
        let refusal = agent.ask(body).unwrap_err().to_string();
        assert!(refusal.contains("4711"), "{refusal}");
    }
}

/// A command that ends as nobody, with no capability.
fn as_nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    command
}

#[test]
fn without_root_the_poll_tier_says_what_is_missing_and_recognises_a_miner() {
    if !root_or_skip() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let binary = folder.path().join("davy");
    std::fs::copy(davy(), &binary).unwrap();
    for path in [folder.path(), Path::new(&binary)] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    std::fs::create_dir(folder.path().join("etc")).unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::create_dir(folder.path().join("run")).unwrap();
    for dir in ["etc", "state", "run"] {
        std::os::unix::fs::chown(folder.path().join(dir), Some(65534), Some(65534)).unwrap();
    }
    let mut command = as_nobody();
    command.arg(&binary);
    // Without scans, which would know the program by its content.
    let agent = Agent::start_in(folder.path(), "[scan]\nmode = \"off\"\n", command, &[]).unwrap();
    let status = agent.status().unwrap();
    assert_eq!(status.tier, Tier::Poll);
    let mining = status.protections.iter().find(|p| p.name == "mining").unwrap();
    assert_eq!(mining.tier, Some(Tier::Poll));
    assert!(mining.note.contains("not higher"), "{}", mining.note);
    knows_processes(&agent);

    // A miner that says nothing on its command line, at a pool that nobody listed.
    let pool = Pool::start(PoolConfig::new(Algorithm::RandomX)).unwrap();
    let program = folder.path().join("report");
    std::fs::copy(davy_test_e2e::miner(), &program).unwrap();
    let options =
        format!("miner\n--algo\nrandomx\n--mode\nlight\n--threads\n2\n--pool\n{}\n--for\n90", pool.addr());
    let mut command = as_nobody();
    command.arg(&program).env("OPTIONS", options).stdout(Stdio::null()).stderr(Stdio::null());
    let mut miner = command.spawn().unwrap();
    let pid = miner.id();
    let found = agent.wait_for("the miner is recognised", Duration::from_secs(80), |agent| {
        let of_it = |f: &Finding| f.kind == FindingKind::Mining && f.processes.iter().any(|p| p.pid == pid);
        Ok(agent.findings()?.into_iter().find(of_it))
    });
    let _ = miner.kill();
    miner.wait().unwrap();
    let found = found.unwrap();
    // What only BPF sees is no part of it; the shape of its traffic is.
    let has = |signal| found.evidence.iter().any(|e| e.signal == signal);
    assert!(has(Evidence::PoolShape) && !has(Evidence::RoundingMode), "{found:?}");
}
