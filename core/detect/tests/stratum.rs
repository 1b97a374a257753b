//! What follows from the words of a mining protocol: who mines, who only serves, and what only looks like it.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_model::{Dialect, Dialogue, EventKind, FindingKind, FlowReading, Speech};
use scene::Scene;

const LOGIN: &str = r#"{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"48edf","pass":"x","agent":"XMRig/6.21","algo":["rx/0","cn/2"]}}
"#;
const JOB: &str = r#"{"id":1,"jsonrpc":"2.0","error":null,"result":{"id":"9","job":{"blob":"1010","job_id":"7","target":"b88d0600","algo":"rx/0","height":1,"seed_hash":"ab"},"status":"OK"}}
"#;

#[test]
fn a_session_in_every_dialect_is_mining_and_says_how_it_was_carried() {
    for dialect in [Dialect::Login, Dialect::Subscribe, Dialect::Ethereum, Dialect::Hello] {
        for (http, websocket, words) in
            [(false, false, ""), (true, false, ", inside HTTP"), (true, true, ", inside WebSocket")]
        {
            let mut scene = Scene::new();
            let process = scene.run(scene.init(), "/usr/bin/python3", &["python3"]);
            let flow = scene.open(process, "198.51.100.7:8080");
            let sent = Speech { enters: true, dialect: Some(dialect), ..Speech::default() };
            let received = Speech { jobs: true, ..Speech::default() };
            let dialogue = Dialogue { sent, received, noise: false, http, websocket };
            let reading =
                FlowReading { flow, tls: false, name: None, request: None, random_start: false, dialogue };
            scene.event(None, EventKind::FlowRead(Box::new(reading)));
            scene.second();
            let summary = &scene.mining().expect("mining").summary;
            let told = format!("by {} with 198.51.100.7:8080{words}", dialect.name());
            assert!(summary.contains(&told), "{summary}");
            assert_eq!(summary.contains("inside"), http, "{summary}");
        }
    }
}

#[test]
fn a_proxy_in_between_is_seen_through() {
    for greeting in [
        &b"CONNECT pool.example:3333 HTTP/1.1\r\nHost: pool.example:3333\r\n\r\n"[..],
        &b"\x05\x01\x00\x05\x01\x00\x03\x0cpool.example\x0d\x05"[..],
    ] {
        let mut scene = Scene::new();
        let process = scene.run(scene.init(), "/usr/bin/x", &["x"]);
        let flow = scene.open(process, "198.51.100.7:1080");
        scene.send(flow, greeting);
        scene.send(flow, LOGIN.as_bytes());
        scene.receive(flow, JOB.as_bytes());
        scene.second();
        let finding = scene.mining().expect("mining through a proxy");
        assert!(finding.summary.contains("pool.example"), "{}", finding.summary);
    }
}

#[test]
fn a_pool_and_a_relay_serve_but_need_not_mine() {
    let mut scene = Scene::new();
    let pool = scene.run(scene.init(), "/usr/bin/pool", &["pool"]);
    let flow = scene.flow(pool, "10.0.0.9:50000", true);
    scene.receive(flow, LOGIN.as_bytes());
    scene.send(flow, JOB.as_bytes());
    scene.second();
    assert!(scene.mining().is_none());
    assert_eq!(scene.of_kind(FindingKind::PoolContact).len(), 1);
}

#[test]
fn version_two_is_known_by_its_handshake() {
    let key: Vec<u8> = (0..64).map(|i| (scene::chance(i) % 256) as u8).collect();
    for reply in [234, 170] {
        let mut scene = Scene::new();
        let miner = scene.run(scene.init(), "/usr/bin/x", &["x"]);
        scene.threads(miner, 2, |t| t.mxcsr = scene::everyday());
        let flow = scene.open(miner, "198.51.100.7:34255");
        scene.send(flow, &key);
        scene.receive(flow, &vec![7; reply]);
        scene.seconds(8);
        let finding = scene.mining().or_else(|| scene.of_kind(FindingKind::PoolContact).into_iter().next());
        assert!(finding.expect("a finding").summary.contains("Stratum v2"));
    }
    // 64 letters are no key.
    let mut scene = Scene::new();
    let client = scene.run(scene.init(), "/usr/bin/x", &["x"]);
    let flow = scene.open(client, "198.51.100.7:34255");
    scene.send(flow, &[b'a'; 64]);
    scene.receive(flow, &[7; 234]);
    scene.second();
    assert!(scene.findings.is_empty());
}

#[test]
fn other_protocols_are_not_taken_for_mining() {
    for (sent, received) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"login","params":{"user":"a","password":"b"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":true}"#,
        ),
        (r#"{"method":"submit","params":{"form":"x"}}"#, r#"{"result":{"status":"OK"}}"#),
        (r#"{"method":"job","params":{"job_id":"1"}}"#, r#"{"job_id":"1","status":"queued"}"#),
        (
            r#"{"jsonrpc":"2.0","method":"eth_blockNumber","params":[],"id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":"0x1"}"#,
        ),
        (r#"{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{"text":"mining.notify"}}"#, "{}"),
        (
            "GET /search?q=mining.subscribe HTTP/1.1\r\nHost: example.org\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n<p>stratum+tcp</p>",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2\r\n"),
    ] {
        let mut scene = Scene::new();
        let process = scene.run(scene.init(), "/usr/bin/x", &["x"]);
        let flow = scene.open(process, "198.51.100.7:80");
        scene.send(flow, sent.as_bytes());
        scene.receive(flow, received.as_bytes());
        scene.seconds(2);
        assert!(scene.findings.is_empty(), "{sent}: {:?}", scene.findings);
    }
}
