//! Every dialect of mining, cut in pieces, carried by HTTP and WebSocket.
#![allow(clippy::unwrap_used, missing_docs)]

mod wire;

use davy_inspect::{Bounds, Inspector};
use davy_model::{Captured, Dialect, Dialogue, Direction, FlowKey, Part, Said};
use proptest::prelude::*;
use wire::{JOB, LOGIN, frame};

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

/// One flow being read.
#[derive(Default)]
struct Conversation {
    inspector: Option<Inspector>,
    offsets: [u64; 2],
    heard: Dialogue,
}

impl Conversation {
    /// One message, cut in pieces of `cut` bytes.
    fn say(&mut self, direction: Direction, message: &[u8], cut: usize) {
        let inspector = self.inspector.get_or_insert_with(|| Inspector::new(Bounds::default()));
        for piece in message.chunks(cut) {
            let next = &mut self.offsets[usize::from(direction == Received)];
            let offset = *next;
            *next += piece.len() as u64;
            let capture = Captured::Flow { flow: FlowKey(1), direction, offset, bytes: piece.to_vec() };
            for said in inspector.read(&capture) {
                if let Said::Flow(reading) = said {
                    self.heard = reading.dialogue;
                }
            }
        }
    }
}

/// Whether it was heard that this side is a miner, in this dialect.
fn check(name: &str, heard: &Dialogue, dialect: Dialect) {
    assert!(matches!(heard.part(), Part::Session | Part::Client), "{name}: {heard:?}");
    assert_eq!(heard.dialect(), Some(dialect), "{name}: {heard:?}");
}

#[test]
fn every_dialect_is_heard_in_pieces_of_every_size() {
    for (name, lines, dialect) in DIALECTS {
        for cut in [1, 7, 100, 4096] {
            let mut conversation = Conversation::default();
            lines.iter().for_each(|(direction, text)| conversation.say(*direction, text.as_bytes(), cut));
            check(name, &conversation.heard, dialect);
            assert!(!conversation.heard.http && !conversation.heard.websocket, "{name}");
        }
    }
}

#[test]
fn every_dialect_is_heard_inside_http() {
    for (name, lines, dialect) in DIALECTS {
        let mut conversation = Conversation::default();
        for (direction, text) in lines {
            let head = match direction {
                Sent => format!("POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: {}", text.len()),
                Received => "HTTP/1.1 200 OK\r\nContent-Type: application/json".to_owned(),
            };
            conversation.say(*direction, format!("{head}\r\n\r\n{text}").as_bytes(), 50);
        }
        check(name, &conversation.heard, dialect);
        assert!(conversation.heard.http, "{name}");
    }
}

#[test]
fn every_dialect_is_heard_inside_websocket() {
    for (name, lines, dialect) in DIALECTS {
        let mut conversation = Conversation::default();
        conversation.say(Sent, b"GET /ws HTTP/1.1\r\nHost: api.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n\r\n", 4096);
        conversation.say(
            Received,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            4096,
        );
        for (direction, text) in lines {
            let bytes = frame(text.as_bytes(), (*direction == Sent).then_some([7, 99, 200, 1]));
            conversation.say(*direction, &bytes, 4096);
        }
        check(name, &conversation.heard, dialect);
        assert!(conversation.heard.websocket, "{name}");
    }
}

proptest! {
    #[test]
    fn a_login_cut_anywhere_is_whole_again(cuts in proptest::collection::vec(1usize..60, 1..12)) {
        let mut conversation = Conversation::default();
        let mut rest = LOGIN.as_bytes();
        for cut in cuts {
            let (piece, tail) = rest.split_at(cut.min(rest.len()));
            conversation.say(Sent, piece, 4096);
            rest = tail;
        }
        conversation.say(Sent, rest, 4096);
        conversation.say(Received, JOB.as_bytes(), 4096);
        prop_assert_eq!(conversation.heard.part(), Part::Session);
    }
}
