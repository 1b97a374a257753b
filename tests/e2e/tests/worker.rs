//! What strangers wrote is read by a worker without privileges, and the agent outlives it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use davy_model::{Capability, FindingKind};
use davy_test_e2e::{Agent, root_or_skip};

const LIMIT: Duration = Duration::from_secs(20);

/// An agent whose kernel lets it capture; says loudly when there is none.
fn capturing() -> Option<Agent> {
    if !root_or_skip() {
        return None;
    }
    let agent = Agent::start("").unwrap();
    let status = agent.status().unwrap();
    let cgroups = status.probes.iter().find(|p| p.capability == Capability::CgroupBpf).unwrap();
    if !cgroups.works {
        println!("SKIPPED: captures need programs on cgroups' sockets: {}", cgroups.reason);
        return None;
    }
    Some(agent)
}

fn worker(agent: &Agent, not: Option<u32>) -> u32 {
    agent
        .wait_for("the worker", LIMIT, |agent| {
            Ok(agent.status()?.workers.iter().find_map(|w| w.pid).filter(|pid| Some(*pid) != not))
        })
        .unwrap()
}

/// A field of /proc/PID/status.
fn field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

/// Speaks as a miner and its pool do, over a connection of this process.
fn speak() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut miner = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut pool, _) = listener.accept().unwrap();
    let login = br#"{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"4ab","pass":"x","agent":"m/1","algo":["rx/0"]}}"#;
    let job = br#"{"id":1,"jsonrpc":"2.0","error":null,"result":{"id":"9","job":{"blob":"10","job_id":"7","target":"b8"},"status":"OK"}}"#;
    miner.write_all(login).unwrap();
    pool.read_exact(&mut vec![0; login.len()]).unwrap();
    pool.write_all(job).unwrap();
    miner.read_exact(&mut vec![0; job.len()]).unwrap();
    // Long enough for the sensors to know whose it is while it lives.
    std::thread::sleep(Duration::from_millis(300));
}

fn hears(agent: &Agent) {
    agent
        .wait_for("a finding about the conversation", LIMIT, |agent| {
            let about_us = |f: &davy_model::Finding| {
                f.subject.is_some_and(|p| p.pid == std::process::id())
                    && matches!(f.kind, FindingKind::Mining | FindingKind::PoolContact)
            };
            Ok(agent.findings()?.into_iter().find(about_us))
        })
        .unwrap();
}

#[test]
fn hostile_bytes_are_read_without_root_files_or_system_calls() {
    let Some(agent) = capturing() else { return };
    let pid = worker(&agent, None);
    let status = agent.status().unwrap();
    let confinement = status.workers[0].confinement.clone().unwrap();
    assert!(confinement.unprivileged, "{confinement:?}");
    assert_eq!(field(pid, "Uid").split_whitespace().next(), Some("65534"));
    assert_eq!(field(pid, "Groups"), "");
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(pid, capabilities), "0000000000000000", "{capabilities}");
    }
    if confinement.calls_filtered {
        assert_eq!((field(pid, "Seccomp"), field(pid, "NoNewPrivs")), ("2".to_owned(), "1".to_owned()));
    }
    for missing in confinement.missing {
        println!("SKIPPED: {missing}");
    }
    speak();
    hears(&agent);
}

#[test]
fn a_worker_that_is_ended_is_started_again_and_said_so() {
    let Some(agent) = capturing() else { return };
    let first = worker(&agent, None);
    let process = rustix::process::Pid::from_raw(first.cast_signed()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    // The agent notices it with the next capture, which is lost and counted.
    speak();
    let second = worker(&agent, Some(first));
    assert_ne!(first, second);
    let status = agent.status().unwrap();
    assert!(status.workers[0].restarts >= 1, "{:?}", status.workers);
    speak();
    hears(&agent);
}

#[test]
fn the_worker_ends_with_the_agent_however_it_ends() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        let Some(mut agent) = capturing() else { return };
        let pid = worker(&agent, None);
        agent.signal(signal);
        agent.wait_end(LIMIT).unwrap();
        let limit = std::time::Instant::now() + LIMIT;
        while fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains("inspect")) {
            assert!(std::time::Instant::now() < limit, "the worker outlives the agent after {signal:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
