//! A miner in each of its disguises, told as events: recognised, and the disguise named.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_model::{Action, Direction, FileAct, FindingKind, ImageKind, ProcessKey};
use scene::{Scene, everyday, randomx};

/// A miner's encrypted connection: the handshake, then for each of `seconds` what a pool and a miner send.
fn encrypted_pool(scene: &mut Scene, miner: ProcessKey, seconds: u32) {
    let flow = scene.open(miner, "198.51.100.7:443");
    for (direction, size) in [
        (Direction::Sent, 517),
        (Direction::Received, 2200),
        (Direction::Sent, 80),
        (Direction::Sent, 289),
        (Direction::Received, 486),
    ] {
        scene.wait(0.05);
        scene.size(flow, direction, size);
    }
    for second in 0..seconds {
        scene.second();
        if second % 3 == 0 {
            scene.size(flow, Direction::Received, 382);
        }
        if scene::chance(second as usize).is_multiple_of(2) {
            scene.wait(0.1);
            scene.size(flow, Direction::Sent, 225);
            scene.wait(0.03);
            scene.size(flow, Direction::Received, 85);
        }
    }
    scene.second();
}

struct Disguise {
    comm: &'static str,
    path: &'static str,
    kind: ImageKind,
    args: &'static [&'static str],
    /// Words that the evidence must hold.
    says: &'static str,
}

const DISGUISES: [Disguise; 6] = [
    Disguise { comm: "miner", path: "/home/u/miner", kind: ImageKind::File, args: &["./miner"], says: "" },
    Disguise {
        comm: "kworker/u4:1",
        path: "/home/u/x",
        kind: ImageKind::File,
        args: &["[kworker/u4:1]"],
        says: "like a kernel thread",
    },
    Disguise {
        comm: "nginx",
        path: "/tmp/nginx",
        kind: ImageKind::File,
        args: &["nginx: worker process"],
        says: "calls itself nginx",
    },
    Disguise {
        comm: "x",
        path: "/memfd:x (deleted)",
        kind: ImageKind::Memfd,
        args: &["x"],
        says: "there is no file",
    },
    Disguise {
        comm: "x",
        path: "/home/u/x (deleted)",
        kind: ImageKind::Deleted,
        args: &["x"],
        says: "deleted",
    },
    Disguise {
        comm: "x",
        path: "/home/u/.X11-unix/x",
        kind: ImageKind::File,
        args: &["x"],
        says: "a hidden place",
    },
];

#[test]
fn randomx_in_every_disguise_within_ten_seconds() {
    for disguise in &DISGUISES {
        let mut scene = Scene::new();
        let miner = scene.run_as(scene.init(), disguise.comm, disguise.path, disguise.kind, disguise.args);
        scene.threads(miner, 2, |t| t.mxcsr = randomx());
        scene.seconds(10);
        let finding = scene.mining().unwrap_or_else(|| panic!("{} {:?}", disguise.comm, disguise.kind));
        assert!(finding.confidence >= 0.95);
        let words: Vec<&str> = finding.evidence.iter().map(|e| e.text.as_str()).collect();
        assert!(words.iter().any(|w| w.contains(disguise.says)), "{}: {words:?}", disguise.comm);
    }
}

#[test]
fn scrypt_by_an_encrypted_pool_in_every_disguise_within_ten_seconds() {
    for disguise in &DISGUISES {
        for threads in [1, 2] {
            let mut scene = Scene::new();
            let miner =
                scene.run_as(scene.init(), disguise.comm, disguise.path, disguise.kind, disguise.args);
            scene.threads(miner, threads, |t| t.mxcsr = everyday());
            encrypted_pool(&mut scene, miner, 9);
            let finding =
                scene.mining().unwrap_or_else(|| panic!("{} with {threads} threads", disguise.comm));
            assert!(finding.confidence >= 0.95, "{} {}", disguise.comm, finding.confidence);
        }
    }
}

#[test]
fn throttled_to_a_quarter_within_thirty_seconds() {
    // The share of a CPU by sweep: a quota enforced within the second, and bursts of a second in four.
    for shares in [vec![0.25, 0.26, 0.24, 0.25], vec![0.97, 0.01, 0.01, 0.01]] {
        let mut scene = Scene::new();
        let miner = scene.run(scene.init(), "/usr/bin/x", &["x"]);
        scene.threads(miner, 2, |t| {
            t.mxcsr = everyday();
            t.shares.clone_from(&shares);
            // The first sleeps every ten milliseconds of work, the second is stopped from outside.
            t.waits = if shares[0] < 0.5 { 25.0 * 1.5 } else { 0.5 };
        });
        encrypted_pool(&mut scene, miner, 29);
        let finding = scene.mining().unwrap_or_else(|| panic!("{shares:?}"));
        assert!(finding.confidence >= 0.95);

        let mut scene = Scene::new();
        let miner = scene.run(scene.init(), "/usr/bin/x", &["x"]);
        scene.threads(miner, 1, |t| {
            t.mxcsr = randomx();
            t.shares.clone_from(&shares);
        });
        scene.seconds(30);
        assert!(scene.mining().is_some(), "RandomX at {shares:?}");
    }
}

#[test]
fn one_mining_thread_among_many() {
    let mut scene = Scene::new();
    let host = scene.run(scene.init(), "/usr/bin/java", &["java", "-jar", "app.jar"]);
    scene.threads(host, 7, |t| {
        t.mxcsr = everyday();
        t.shares = vec![0.02, 0.3, 0.0];
        t.waits = 300.0;
    });
    scene.threads(host, 1, |t| {
        t.tid += 100;
        t.mxcsr = randomx();
    });
    scene.seconds(15);
    assert!(scene.mining().is_some());
}

#[test]
fn a_program_that_deletes_itself_is_told() {
    let mut scene = Scene::new();
    let shell = scene.run(scene.init(), "/usr/bin/bash", &["bash", "run.sh"]);
    let miner = scene.run(shell, "/home/u/x", &["./x"]);
    let rm = scene.run(shell, "/usr/bin/rm", &["rm", "x"]);
    scene.file(rm, "/home/u/x", FileAct::Deleted);
    scene.threads(miner, 2, |t| t.mxcsr = randomx());
    scene.seconds(10);
    let finding = scene.mining().unwrap();
    assert!(finding.evidence.iter().any(|e| e.text.contains("deleted by its own tree")));
}

#[test]
fn hidden_computation_without_a_pool_is_suspected_and_no_more() {
    let mut scene = Scene::new();
    let x = scene.run_as(
        scene.init(),
        "kworker/u4:1",
        "/memfd:x (deleted)",
        ImageKind::Memfd,
        &["[kworker/u4:1]"],
    );
    scene.threads(x, 2, |t| {
        t.mxcsr = everyday();
        t.nice = 19;
        t.allowed = 1;
    });
    scene.seconds(60);
    let finding = scene.mining().expect("a suspicion");
    assert_eq!(finding.severity, davy_model::Severity::High);
    assert!(finding.confidence < 0.95);
    assert!(finding.summary.contains("hides and computes"));
}

#[test]
fn answers_are_proposed_once_the_verdict_stands() {
    let mut scene = Scene::new();
    let miner = scene.run(scene.init(), "/tmp/x", &["/tmp/x"]);
    scene.threads(miner, 2, |t| t.mxcsr = randomx());
    let mut actions = Vec::new();
    for _ in 0..10 {
        scene.second();
        actions.extend(scene.last.proposals.iter().map(|p| p.item.action.clone()));
    }
    assert!(actions.iter().any(|a| matches!(a, Action::Freeze { root, .. } if *root == miner)));
    assert!(actions.iter().any(|a| matches!(a, Action::Kill { tree, .. } if tree.contains(&miner))));
    assert!(actions.iter().any(|a| matches!(a, Action::Quarantine { path, .. } if path == "/tmp/x")));
}

#[test]
fn the_systems_own_interpreter_is_not_quarantined() {
    let mut scene = Scene::new();
    let miner = scene.run(scene.init(), "/usr/bin/python3.11", &["python3", "x.py"]);
    scene.threads(miner, 2, |t| t.mxcsr = randomx());
    let mut actions = Vec::new();
    for _ in 0..10 {
        scene.second();
        actions.extend(scene.last.proposals.iter().map(|p| p.item.action.clone()));
    }
    assert!(!actions.is_empty());
    assert!(!actions.iter().any(|a| matches!(a, Action::Quarantine { .. })));
}

#[test]
fn masquerade_is_a_finding_of_its_own() {
    let mut scene = Scene::new();
    scene.run_as(scene.init(), "[kthreadd]", "/home/u/x", ImageKind::File, &["[kthreadd]"]);
    scene.second();
    assert_eq!(scene.of_kind(FindingKind::Masquerade).len(), 1);
}

#[test]
fn a_process_under_a_mount_is_a_disguise_of_its_own() {
    let mut scene = Scene::new();
    let miner = scene.run(scene.init(), "/usr/local/bin/report", &["report"]);
    let how = "tmpfs / is mounted over /proc/4711".to_owned();
    scene.event(Some(miner), davy_model::EventKind::Code(davy_model::CodeAct::Hidden { how }));
    scene.seconds(2);
    let findings = scene.of_kind(FindingKind::Masquerade);
    assert_eq!(findings.len(), 1);
    assert!(findings[0].summary.contains("hidden from ps and top"), "{}", findings[0].summary);
    assert!(findings[0].techniques.iter().any(|t| t.0 == "T1564.001"));
    assert!(scene.mining().is_none(), "hiding alone is not mining");
}
