//! What the readers make of the real thing, of anything near it, and of anything at all.
#![allow(clippy::unwrap_used, missing_docs)]

mod wire;

use davy_inspect::stratum::listen;
use davy_inspect::{Bounds, Inspector, frames, server_name, unwrap};
use davy_model::{Captured, Direction, FlowKey, Said};
use proptest::prelude::*;
use wire::{JOB, LOGIN, frame};

/// A ClientHello of TLS 1.2 with one name in it (RFC 8446, 4.1.2; RFC 6066, 3).
fn client_hello(name: &str) -> Vec<u8> {
    let mut sni = vec![0, 0];
    sni.extend(((name.len() + 5) as u16).to_be_bytes());
    sni.extend(((name.len() + 3) as u16).to_be_bytes());
    sni.push(0);
    sni.extend((name.len() as u16).to_be_bytes());
    sni.extend(name.as_bytes());
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((sni.len() as u16).to_be_bytes());
    body.extend(sni);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    let mut record = vec![0x16, 3, 1];
    record.extend((message.len() as u16).to_be_bytes());
    record.extend(message);
    record
}

#[test]
fn the_algorithm_and_the_miners_name_are_told() {
    let sent = listen(LOGIN.as_bytes());
    assert_eq!(sent.agent.as_deref(), Some("XMRig/6.21"));
    assert!(sent.enters);
    let received = listen(JOB.as_bytes());
    assert_eq!(received.algorithm.as_deref(), Some("rx/0"));
    assert!(received.jobs && received.accepts);
}

#[test]
fn names_in_tls_are_read() {
    assert_eq!(server_name(&client_hello("Pool.Example")).as_deref(), Some("pool.example"));
}

#[test]
fn a_hello_in_two_segments_that_come_in_any_order_has_its_name() {
    let hello = client_hello("pool.example");
    let (first, second) = hello.split_at(60);
    for order in [[(0, first), (60, second)], [(60, second), (0, first)]] {
        let mut inspector = Inspector::new(Bounds::default());
        // One byte before it, so that the stream's beginning is known.
        let said: Vec<Said> = [(0, &first[..1])]
            .into_iter()
            .chain(order)
            .flat_map(|(offset, bytes)| {
                let (flow, direction, bytes) = (FlowKey(1), Direction::Sent, bytes.to_vec());
                inspector.read(&Captured::Flow { flow, direction, offset, bytes })
            })
            .collect();
        assert!(
            matches!(said.last(), Some(Said::Flow(f)) if f.tls && f.name.as_deref() == Some("pool.example")),
            "{said:?}"
        );
    }
}

proptest! {
    #[test]
    fn parsers_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = listen(&bytes);
        let _ = frames(&bytes);
        let _ = unwrap(&bytes);
        let _ = server_name(&bytes);
    }

    #[test]
    fn parsers_take_anything_near_the_real_thing(cut in 0usize..400, flip in 0usize..400, value in any::<u8>(), http in any::<bool>()) {
        let mut bytes = if http { format!("POST / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n{LOGIN}{JOB}") } else { format!("{LOGIN}{JOB}") }.into_bytes();
        bytes.truncate(cut);
        if let Some(byte) = bytes.get_mut(flip) {
            *byte = value;
        }
        let unwrapped = unwrap(&bytes);
        let speech = listen(&unwrapped.text);
        prop_assert!(speech.agent.is_none_or(|a| a.len() <= 48));
    }

    #[test]
    fn frames_give_back_what_was_framed(payload in proptest::collection::vec(any::<u8>(), 0..300), mask in any::<[u8; 4]>()) {
        let mut text = frames(&frame(&payload, Some(mask)));
        prop_assert_eq!(text.pop(), Some(b'\n'));
        prop_assert_eq!(text, payload);
    }

    #[test]
    fn a_hello_cut_or_changed_anywhere_never_panics(cut in 0usize..120, at in 0usize..120, value in any::<u8>()) {
        let mut hello = client_hello("pool.example");
        hello.truncate(cut);
        if let Some(byte) = hello.get_mut(at) {
            *byte = value;
        }
        let _ = server_name(&hello);
    }
}
