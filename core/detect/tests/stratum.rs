//! Mining protocols on the wire: every dialect, cut in pieces, carried by HTTP and WebSocket, and what only looks like one.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_model::{Dialect, Direction, FindingKind, Part};
use proptest::prelude::*;
use scene::Scene;

const LOGIN: &str = r#"{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"48edf","pass":"x","agent":"XMRig/6.21","algo":["rx/0","cn/2"]}}
"#;
const JOB: &str = r#"{"id":1,"jsonrpc":"2.0","error":null,"result":{"id":"9","job":{"blob":"1010","job_id":"7","target":"b88d0600","algo":"rx/0","height":1,"seed_hash":"ab"},"status":"OK"}}
"#;

/// What a conversation is: who says what, in turn.
type Lines = &'static [(Direction, &'static str)];
use Direction::{Received, Sent};

const DIALECTS: [(&str, Lines, Dialect); 6] = [
    ("monero", &[(Sent, LOGIN), (Received, JOB)], Dialect::Login),
    (
        "bitcoin",
        &[
            (Sent, "{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"cpuminer/2.5.1\"]}\n"),
            (
                Received,
                "{\"id\":1,\"error\":null,\"result\":[[[\"mining.set_difficulty\",\"b4\"],[\"mining.notify\",\"ae\"]],\"08\",4]}\n",
            ),
            (Sent, "{\"id\":2,\"method\":\"mining.authorize\",\"params\":[\"u\",\"p\"]}\n"),
            (
                Received,
                "{\"id\":null,\"method\":\"mining.notify\",\"params\":[\"bf\",\"4d\",\"01\",\"07\",[],\"00\",\"1c\",\"50\",false]}\n",
            ),
            (
                Sent,
                "{\"id\":4,\"method\":\"mining.submit\",\"params\":[\"u\",\"bf\",\"00\",\"50\",\"b2\"]}\n",
            ),
        ],
        Dialect::Subscribe,
    ),
    (
        "spaced and without jsonrpc",
        &[
            (Sent, "{ \"params\" : [ \"x\" ] , \"id\" : 1 , \"method\" : \"mining.subscribe\" }\r\n"),
            (Received, "{ \"method\" : \"mining.set_difficulty\", \"params\": [ 8 ] }\r\n"),
        ],
        Dialect::Subscribe,
    ),
    (
        "ethereum",
        &[
            (Sent, "{\"id\":1,\"method\":\"eth_submitLogin\",\"params\":[\"0xab\"],\"worker\":\"w\"}\n"),
            (Received, "{\"id\":1,\"jsonrpc\":\"2.0\",\"result\":true}\n"),
            (Sent, "{\"id\":5,\"method\":\"eth_getWork\",\"params\":[]}\n"),
        ],
        Dialect::Ethereum,
    ),
    (
        "ethereum stratum 2",
        &[
            (
                Sent,
                "{\"id\":0,\"method\":\"mining.hello\",\"params\":{\"agent\":\"ethminer-0.17\",\"host\":\"h\",\"port\":\"4d2\",\"proto\":\"EthereumStratum/2.0.0\"}}\n",
            ),
            (
                Received,
                "{\"id\":0,\"result\":{\"proto\":\"EthereumStratum/2.0.0\",\"encoding\":\"plain\"}}\n{\"method\":\"mining.set\",\"params\":{\"epoch\":\"dc\"}}\n",
            ),
        ],
        Dialect::Hello,
    ),
    (
        "submission only",
        &[
            (
                Sent,
                "{\"id\":2,\"jsonrpc\":\"2.0\",\"method\":\"submit\",\"params\":{\"id\":\"9\",\"job_id\":\"7\",\"nonce\":\"d0\",\"result\":\"e1\"}}\n",
            ),
            (
                Received,
                "{\"id\":2,\"jsonrpc\":\"2.0\",\"method\":\"job\",\"params\":{\"blob\":\"10\",\"job_id\":\"8\",\"target\":\"b8\"}}\n",
            ),
        ],
        Dialect::Login,
    ),
];

/// The scene after a conversation, each message cut in pieces of `cut` bytes and changed by `wrap`.
fn play(lines: Lines, cut: usize, wrap: &dyn Fn(Direction, &str) -> Vec<u8>) -> Scene {
    let mut scene = Scene::new();
    let process = scene.run(scene.init(), "/usr/bin/python3", &["python3"]);
    let flow = scene.open(process, "198.51.100.7:8080");
    for (direction, text) in lines {
        for piece in wrap(*direction, text).chunks(cut) {
            scene.bytes(flow, *direction, piece);
        }
        scene.wait(0.1);
    }
    scene.second();
    scene
}

#[test]
fn every_dialect_in_pieces_of_every_size_is_mining() {
    for (name, lines, dialect) in DIALECTS {
        for cut in [1, 7, 100, 4096] {
            let scene = play(lines, cut, &|_, text| text.as_bytes().to_vec());
            let finding = scene.mining().unwrap_or_else(|| panic!("{name} in pieces of {cut}"));
            assert!(finding.summary.contains(dialect.name()), "{name}: {}", finding.summary);
        }
    }
}

#[test]
fn every_dialect_inside_http_and_websocket_is_mining() {
    for (name, lines, _) in DIALECTS {
        let scene = play(lines, 50, &|direction, text| match direction {
            Sent => format!(
                "POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            )
            .into_bytes(),
            Received => {
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{text}").into_bytes()
            }
        });
        assert!(scene.mining().is_some(), "{name} in HTTP");

        let mut scene = Scene::new();
        let process = scene.run(scene.init(), "/usr/bin/node", &["node"]);
        let flow = scene.open(process, "198.51.100.7:443");
        scene.send(flow, b"GET /ws HTTP/1.1\r\nHost: api.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n\r\n");
        scene.receive(
            flow,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        );
        for (direction, text) in lines {
            let bytes = frame(text.as_bytes(), (*direction == Sent).then_some([7, 99, 200, 1]));
            scene.bytes(flow, *direction, &bytes);
        }
        scene.second();
        let finding = scene.mining().unwrap_or_else(|| panic!("{name} in WebSocket"));
        assert!(finding.summary.contains("inside WebSocket"), "{}", finding.summary);
    }
}

/// A WebSocket text frame, masked as a client's is.
fn frame(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = vec![0x81];
    let bit = if mask.is_some() { 0x80 } else { 0 };
    if payload.len() < 126 {
        bytes.push(bit | payload.len() as u8);
    } else {
        bytes.push(bit | 126);
        bytes.extend((payload.len() as u16).to_be_bytes());
    }
    bytes.extend(mask.into_iter().flatten());
    let mask = mask.unwrap_or_default();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, k)| b ^ k));
    bytes
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

proptest! {
    #[test]
    fn a_login_cut_anywhere_is_whole_again(cuts in proptest::collection::vec(1usize..60, 1..12)) {
        let mut scene = Scene::new();
        let process = scene.run(scene.init(), "/usr/bin/x", &["x"]);
        let flow = scene.open(process, "198.51.100.7:80");
        let mut rest = LOGIN.as_bytes();
        for cut in cuts {
            let (piece, tail) = rest.split_at(cut.min(rest.len()));
            scene.send(flow, piece);
            rest = tail;
        }
        scene.send(flow, rest);
        scene.receive(flow, JOB.as_bytes());
        scene.second();
        prop_assert!(scene.mining().is_some());
        prop_assert!(Part::Session > Part::Client);
    }
}
