//! The peers as their clients see them.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use davy_test_pool::stratum::{BitcoinSession, MoneroSession, Session};
use davy_test_pool::{Algorithm, Chat, ChatConfig, Difficulty, Link, Pool, PoolConfig, Received, Wire, talk};
use proptest::prelude::*;
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(5);

fn answer(link: &mut Link, line: &Value) -> Value {
    link.send(&line.to_string()).expect("send");
    match link.receive(WAIT).expect("receive") {
        Received::Line(text) => serde_json::from_str(&text).expect("JSON"),
        other => panic!("{other:?} instead of an answer"),
    }
}

fn login() -> Value {
    json!({"id": 1, "jsonrpc": "2.0", "method": "login", "params": {"login": "w", "pass": "x", "agent": "t/1"}})
}

#[test]
fn every_wire_carries_a_login_and_pushed_jobs() {
    for (tls, websocket) in [(false, false), (true, false), (false, true), (true, true)] {
        let wire = Wire { tls, websocket };
        let mut config = PoolConfig { wire, ..PoolConfig::new(Algorithm::RandomX) };
        config.jobs_every = (Duration::from_millis(50), Duration::from_millis(100));
        let pool = Pool::start(config).expect("start");
        let mut link = Link::dial(pool.addr(), wire).expect("dial");
        let reply = answer(&mut link, &login());
        assert_eq!(reply["result"]["job"]["blob"].as_str().map(str::len), Some(152), "{wire:?}: {reply}");
        let Received::Line(pushed) = link.receive(WAIT).expect("receive") else {
            panic!("no job came: {wire:?}")
        };
        let pushed: Value = serde_json::from_str(&pushed).expect("JSON");
        assert_eq!(pushed["method"], "job");
        assert_ne!(pushed["params"]["job_id"], reply["result"]["job"]["job_id"]);
    }
}

#[test]
fn shares_are_judged() {
    let mut session = MoneroSession::new(Algorithm::RandomX, Difficulty(1000));
    let mut say = |line: Value| {
        let turn = session.hear(&line.to_string());
        (serde_json::from_str::<Value>(&turn.replies[0]).expect("JSON"), turn.share)
    };
    let (reply, _) = say(login());
    let (id, job) = (&reply["result"]["id"], &reply["result"]["job"]["job_id"]);
    let share = |id: &Value, job: &Value, nonce: &str, top: &str| {
        let result = format!("{}{top}", "11".repeat(24));
        json!({"id": 2, "jsonrpc": "2.0", "method": "submit",
            "params": {"id": id, "job_id": job, "nonce": nonce, "result": result}})
    };
    let low = "0000000000000000";
    let high = "ffffffffffffffff";
    assert_eq!(say(share(id, job, "01020304", low)).1, Some(true));
    let refused = [
        (share(id, job, "01020304", high), "Low difficulty share"),
        (share(id, job, "0102", low), "Malformed nonce"),
        (share(id, job, "01020304", ""), "Malformed result"),
        (share(id, &json!("other"), "01020304", low), "Block expired"),
        (share(&json!("stranger"), job, "01020304", low), "Unauthenticated"),
    ];
    for (line, reason) in refused {
        let (reply, counts) = say(line);
        assert_eq!((reply["error"]["message"].as_str(), counts), (Some(reason), Some(false)));
    }
}

#[test]
fn a_miner_beyond_the_bound_is_hung_up_on() {
    let config = PoolConfig { max_connections: 1, ..PoolConfig::new(Algorithm::RandomX) };
    let pool = Pool::start(config).expect("start");
    let mut first = Link::dial(pool.addr(), Wire::CLEAR).expect("dial");
    answer(&mut first, &login());
    let mut second = Link::dial(pool.addr(), Wire::CLEAR).expect("dial");
    assert_eq!(second.receive(WAIT).expect("receive"), Received::Closed);
}

#[test]
fn noise_ends_the_conversation_and_nothing_else() {
    let pool = Pool::start(PoolConfig::new(Algorithm::Scrypt)).expect("start");
    let mut noisy = Link::dial(pool.addr(), Wire::CLEAR).expect("dial");
    noisy.send("GET / HTTP/1.1").expect("send");
    assert_eq!(noisy.receive(WAIT).expect("receive"), Received::Closed);
    let mut next = Link::dial(pool.addr(), Wire::CLEAR).expect("dial");
    let reply = answer(&mut next, &json!({"id": 1, "method": "mining.subscribe", "params": []}));
    assert_eq!(reply["result"][2], 4);
    assert_eq!(pool.stats().malformed, 1);
}

#[test]
fn a_guest_and_a_room_talk_both_ways() {
    let chat = Chat::start(ChatConfig::new()).expect("start");
    let wire = Wire { tls: false, websocket: true };
    let (said, _) = talk(chat.addr(), wire, Duration::from_secs(7)).expect("talk");
    assert!(said >= 1);
}

#[test]
fn the_program_prints_its_address_and_what_it_saw() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_davy-test-pool"))
        .args(["--tls", "--dialect", "bitcoin", "--for", "2s"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let first = lines.next().expect("a line");
    let address = first.strip_prefix("listening ").expect("an address").parse().expect("an address");
    let mut link = Link::dial(address, Wire::TLS).expect("dial");
    answer(&mut link, &json!({"id": 1, "method": "mining.subscribe", "params": []}));
    let stats: Value = serde_json::from_str(&lines.next().expect("numbers")).expect("JSON");
    assert_eq!(stats["connections"], 1);
    assert!(child.wait().expect("an end").success());
}

proptest! {
    #[test]
    fn no_line_makes_a_session_fall(lines in proptest::collection::vec(any_line(), 0..12)) {
        let mut monero = MoneroSession::new(Algorithm::RandomX, Difficulty(10));
        let mut bitcoin = BitcoinSession::new(Algorithm::Scrypt, Difficulty(10));
        for line in lines {
            for session in [&mut monero as &mut dyn Session, &mut bitcoin] {
                let turn = session.hear(&line);
                prop_assert!(turn.hang_up || !turn.replies.is_empty());
                session.push_job();
            }
        }
    }
}

/// Arbitrary text, and requests of both dialects with arbitrary parameters.
fn any_line() -> impl Strategy<Value = String> {
    let methods = [
        "login",
        "submit",
        "getjob",
        "keepalived",
        "mining.subscribe",
        "mining.authorize",
        "mining.submit",
        "other",
    ];
    let parameter = prop_oneof![
        any::<i64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        "[0-9a-f]{0,70}".prop_map(Value::from),
        Just(Value::Null),
    ];
    let parameters = prop_oneof![
        proptest::collection::vec(parameter.clone(), 0..6).prop_map(Value::from),
        parameter.prop_map(|v| json!({"id": v, "login": v, "job_id": v, "nonce": v, "result": v})),
    ];
    prop_oneof![
        ".{0,80}",
        (proptest::sample::select(methods.to_vec()), parameters)
            .prop_map(|(method, params)| json!({"id": 3, "method": method, "params": params}).to_string()),
    ]
}
