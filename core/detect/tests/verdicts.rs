//! What is called mining, and how soon.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_model::Direction;
use scene::{Scene, everyday, randomx};

#[test]
fn randomx_alone_is_mining_within_ten_seconds() {
    let mut scene = Scene::new();
    let miner = scene.run(scene.init(), "/usr/bin/make", &["make"]);
    scene.threads(miner, 2, |t| t.mxcsr = randomx());
    scene.seconds(10);
    let finding = scene.mining().expect("a mining finding");
    assert!(finding.confidence >= 0.95);
    assert!(finding.summary.contains("rounding mode changed in"), "{}", finding.summary);
}

#[test]
fn computation_alone_is_never_mining() {
    for nice in [0, 19] {
        for path in ["/usr/bin/openssl", "/tmp/openssl", "/dev/shm/x"] {
            let mut scene = Scene::new();
            let load = scene.run(scene.init(), path, &[path]);
            scene.threads(load, 2, |t| {
                t.mxcsr = everyday();
                t.nice = nice;
                t.allowed = 1;
            });
            scene.seconds(600);
            assert!(scene.findings.is_empty(), "{path}: {:?}", scene.findings);
        }
    }
}

#[test]
fn stratum_login_is_mining_at_low_cpu() {
    let mut scene = Scene::new();
    let miner = scene.run(scene.init(), "/usr/bin/python3", &["python3", "x.py"]);
    let flow = scene.open(miner, "198.51.100.7:80");
    scene.send(flow, br#"{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"4abc","pass":"x","agent":"x/1","algo":["rx/0"]}}"#);
    scene.receive(flow, br#"{"id":1,"jsonrpc":"2.0","error":null,"result":{"id":"1","job":{"blob":"0707","job_id":"1","target":"b88d0600","algo":"rx/0"},"status":"OK"}}"#);
    scene.second();
    let finding = scene.mining().expect("a mining finding");
    assert!(finding.summary.contains("rx/0"), "{}", finding.summary);
}

#[test]
fn encrypted_pool_and_computation_is_mining_within_ten_seconds() {
    let mut scene = Scene::new();
    let miner = scene.run(scene.init(), "/usr/bin/x", &["x"]);
    scene.threads(miner, 1, |t| t.mxcsr = everyday());
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
    for round in 0..5 {
        scene.second();
        scene.size(flow, Direction::Received, 382);
        scene.second();
        if round % 2 == 0 || round == 3 {
            scene.size(flow, Direction::Sent, 225);
            scene.wait(0.05);
            scene.size(flow, Direction::Received, 85);
        }
    }
    scene.second();
    let finding = scene.mining().expect("a mining finding");
    assert!(finding.confidence >= 0.95);
}
