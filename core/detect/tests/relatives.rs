//! Evidence that joins across processes, and signals that seldom come alone: GPUs, preparation, command lines, tampering.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_model::{
    CodeAct, Direction, EventKind, FindingKind, GpuUse, ImageKind, MemoryShape, ProbeRequest, ProcessKey,
    Signal,
};
use scene::{Scene, chance, everyday, randomx};

fn gpu(process: ProcessKey, busy: Option<u16>) -> EventKind {
    EventKind::Gpu(GpuUse {
        process,
        device: "0000:01:00.0".to_owned(),
        busy_permille: busy,
        memory: 5 << 30,
    })
}

#[test]
fn a_busy_gpu_is_mining_only_with_a_pool() {
    // As recorded: 98.7 % busy, 5 GiB held, minutes on end.
    for pool in [false, true] {
        let mut scene = Scene::new();
        let process = scene.run(scene.init(), "/home/u/x", &["x"]);
        if pool {
            let flow = scene.open(process, "198.51.100.7:4444");
            scene.send(flow, b"GET / HTTP/1.1\r\nHost: eu1.ethermine.org\r\n\r\n");
        }
        for _ in 0..120 {
            scene.event(Some(process), gpu(process, Some(987)));
            scene.second();
        }
        assert_eq!(scene.mining().is_some(), pool);
    }
}

#[test]
fn a_gpu_that_draws_says_nothing() {
    let mut scene = Scene::new();
    let process = scene.run(scene.init(), "/usr/bin/Xorg", &["Xorg"]);
    scene.event(Some(process), gpu(process, Some(210)));
    scene.second();
    assert!(scene.detector.busiest(5).is_empty() && scene.findings.is_empty());
}

#[test]
fn a_parent_that_talks_for_its_child_is_seen() {
    let mut scene = Scene::new();
    let talker = scene.run(scene.init(), "/usr/bin/python3", &["python3", "proxy.py"]);
    let worker = scene.run(talker, "/home/u/x", &["./x"]);
    scene.threads(worker, 2, |t| t.mxcsr = everyday());
    let flow = scene.open(talker, "198.51.100.7:443");
    for second in 0..25 {
        scene.second();
        if second % 4 == 2 {
            scene.size(flow, Direction::Received, 382);
        }
        if chance(second).is_multiple_of(2) {
            scene.wait(0.1);
            scene.size(flow, Direction::Sent, 225);
            scene.wait(0.04);
            scene.size(flow, Direction::Received, 85);
        }
    }
    let finding = scene.mining().expect("mining by two programs");
    assert_eq!(finding.subject, Some(worker));
    assert!(
        finding.evidence.iter().any(|e| e.text.contains("python3") && e.text.contains("talks to a pool"))
    );
}

#[test]
fn strangers_under_one_shell_are_not_joined() {
    let mut scene = Scene::new();
    let shell = scene.run(scene.init(), "/usr/bin/bash", &["bash"]);
    let load = scene.run(shell, "/usr/bin/openssl", &["openssl", "speed"]);
    scene.threads(load, 2, |t| t.mxcsr = everyday());
    let relay = scene.run(shell, "/usr/bin/socat", &["socat"]);
    let flow = scene.open(relay, "198.51.100.7:443");
    for second in 0..60 {
        scene.second();
        scene.size(flow, Direction::Received, 382);
        if chance(second).is_multiple_of(2) {
            scene.wait(0.1);
            scene.size(flow, Direction::Sent, 225);
            scene.wait(0.04);
            scene.size(flow, Direction::Received, 85);
        }
    }
    assert!(scene.mining().is_none());
}

#[test]
fn forks_of_one_program_are_weighed_together() {
    let mut scene = Scene::new();
    let parent = scene.run(scene.init(), "/home/u/x", &["x"]);
    for _ in 0..2 {
        let child = scene.fork(parent);
        scene.threads(child, 1, |t| t.mxcsr = randomx());
    }
    scene.seconds(9);
    let finding = scene.mining().unwrap();
    assert_eq!(finding.processes.len(), 3, "the parent and both children");
    assert_eq!(finding.subject, Some(parent));
}

#[test]
fn a_miners_own_words_and_computation_are_mining() {
    let mut scene = Scene::new();
    let args = ["./sys", "-o", "198.51.100.7:3333", "-u", "wallet", "--donate-level=0", "-a", "rx/0"];
    let process = scene.run(scene.init(), "/home/u/sys", &args);
    scene.seconds(2);
    assert!(scene.mining().is_none(), "words alone are not enough");
    scene.threads(process, 2, |t| t.mxcsr = everyday());
    scene.seconds(10);
    assert!(scene.mining().is_some());
    // The same words in a search are nothing.
    let mut scene = Scene::new();
    let grep = scene.run(scene.init(), "/usr/bin/grep", &["grep", "-r", "stratum+tcp://", "--donate-level"]);
    scene.threads(grep, 2, |t| t.mxcsr = everyday());
    scene.seconds(20);
    assert!(scene.findings.is_empty());
}

#[test]
fn what_computes_is_looked_at_closely_and_seldom() {
    let mut scene = Scene::new();
    let process = scene.run(scene.init(), "/home/u/x", &["x"]);
    scene.threads(process, 2, |t| t.mxcsr = everyday());
    scene.seconds(65);
    let memory =
        scene.probes.iter().filter(|p| matches!(p, ProbeRequest::Memory(k) if *k == process)).count();
    assert!((2..=3).contains(&memory), "{memory} looks at memory in a minute");
    let calls = scene.probes.iter().filter(|p| matches!(p, ProbeRequest::Syscalls(_))).count();
    assert_eq!(calls, 0, "nothing but computation is no reason to count every call of the host");
}

#[test]
fn memory_and_preparation_are_told() {
    let mut scene = Scene::new();
    let process = scene.run(scene.init(), "/home/u/x", &["x"]);
    let shape = MemoryShape {
        process,
        resident: 2_300 << 20,
        hugetlb: 2_080 << 20,
        largest_anonymous: 2_080 << 20,
        scratchpads: 2,
        anonymous_executable: 64 << 10,
        writable_executable: 0,
        nameless_code: 0,
    };
    scene.event(Some(process), EventKind::Memory(shape));
    scene.event(Some(process), EventKind::Code(CodeAct::DeviceOpen { major: 202, minor: 0, write: true }));
    scene.event(Some(process), EventKind::Code(CodeAct::HugePagesReserved { before: 0, now: 1168 }));
    scene.threads(process, 2, |t| t.mxcsr = randomx());
    scene.seconds(10);
    let finding = scene.mining().unwrap();
    let words: Vec<&str> = finding.evidence.iter().map(|e| e.text.as_str()).collect();
    for part in ["a 2080 MiB mapping", "model-specific registers", "0 before, 1168 now"] {
        assert!(words.iter().any(|w| w.contains(part)), "{part}: {words:?}");
    }
}

#[test]
fn system_calls_speak_for_and_against() {
    for (calls, sign) in [(70, 1.0), (60_000, -1.0)] {
        let mut scene = Scene::new();
        let process = scene.run(scene.init(), "/home/u/x", &["x"]);
        scene.threads(process, 2, |t| t.mxcsr = everyday());
        scene.seconds(10);
        let before = scene.detector.busiest(1)[0].bits;
        scene.event(Some(process), EventKind::Syscalls { count: calls, cpu_ns: 1_000_000_000 });
        scene.second();
        let after = scene.detector.busiest(1)[0].bits;
        assert!((after - before) * sign > 0.0, "{calls}: {before} {after}");
    }
}

#[test]
fn evidence_fades_when_it_stops() {
    let mut scene = Scene::new();
    let process = scene.run(scene.init(), "/usr/bin/x", &["x"]);
    scene.threads(process, 2, |t| t.mxcsr = everyday());
    scene.seconds(20);
    assert!(scene.detector.sizes().cases == 1);
    scene.threads.clear();
    for _ in 0..60 {
        scene.wait(60.0);
        scene.second();
    }
    assert_eq!(scene.detector.sizes().cases, 0);
}

#[test]
fn whoever_reaches_for_davy_is_told() {
    let mut scene = Scene::new();
    let davy = scene.run(scene.init(), "/usr/bin/davy", &["davy", "agent"]);
    scene.detector.guard(davy);
    let kill = scene.run(scene.init(), "/usr/bin/kill", &["kill", "-9"]);
    scene.event(Some(scene.init()), EventKind::Code(CodeAct::Signal { target: davy, signal: 15 }));
    scene.event(Some(kill), EventKind::Code(CodeAct::Signal { target: davy, signal: 0 }));
    scene.second();
    assert!(
        scene.of_kind(FindingKind::Tampering).is_empty(),
        "the service manager may, and asking whether it lives is no harm"
    );
    scene.event(Some(kill), EventKind::Code(CodeAct::Signal { target: davy, signal: 9 }));
    scene.second();
    assert_eq!(scene.of_kind(FindingKind::Tampering).len(), 1);
}

#[test]
fn injection_by_a_debugger_is_not_told() {
    for (path, told) in [("/usr/bin/gdb", false), ("/home/u/x", true)] {
        let mut scene = Scene::new();
        let victim = scene.run(scene.init(), "/usr/sbin/cron", &["cron"]);
        let other = scene.run_as(scene.init(), "x", path, ImageKind::File, &["x"]);
        scene.event(Some(other), EventKind::Code(CodeAct::Trace { target: victim, write: true }));
        scene.threads(other, 1, |t| t.mxcsr = randomx());
        scene.seconds(10);
        let finding = scene.mining().unwrap();
        assert_eq!(finding.evidence.iter().any(|e| e.signal == Signal::Campaign), told);
    }
}
