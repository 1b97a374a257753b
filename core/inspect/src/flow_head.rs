//! The beginning of one flow, both ways, and what it says.

use davy_model::{Dialogue, Direction, FlowKey, FlowReading};

use crate::layers::unwrap;
use crate::server_name::{is_tls, server_name};
use crate::stratum::listen;
use crate::stream_head::StreamHead;

/// Bytes without any brace after which a stream that is neither TLS nor HTTP is no JSON.
const UNDECIDED: usize = 640;

/// The first message of a Stratum v2 session: an ElligatorSwift-encoded key (specification, protocol security).
const KEY: usize = 64;

/// One flow's beginning.
#[derive(Debug)]
pub(crate) struct FlowHead {
    sent: StreamHead,
    received: StreamHead,
    reading: FlowReading,
}

impl FlowHead {
    pub(crate) fn new(flow: FlowKey) -> Self {
        Self {
            sent: StreamHead::default(),
            received: StreamHead::default(),
            reading: FlowReading {
                flow,
                tls: false,
                name: None,
                request: None,
                random_start: false,
                dialogue: Dialogue::default(),
            },
        }
    }

    /// Memory that its bytes take.
    pub(crate) fn weight(&self) -> usize {
        self.sent.weight() + self.received.weight()
    }

    /// Puts new bytes to the head of their direction and reads it again. Gives all it says when that has changed.
    pub(crate) fn read(
        &mut self,
        direction: Direction,
        offset: u64,
        bytes: &[u8],
        limit: usize,
    ) -> Option<FlowReading> {
        let head = match direction {
            Direction::Sent => &mut self.sent,
            Direction::Received => &mut self.received,
        };
        if !head.push(offset, bytes, limit) {
            return None;
        }
        let mut reading = self.reading.clone();
        let open = if is_tls(head.bytes()) {
            reading.tls = true;
            let name = (direction == Direction::Sent).then(|| server_name(head.bytes())).flatten();
            // The answer to a hello tells nothing more; a hello is waited for until it is whole.
            let open = direction == Direction::Sent && name.is_none();
            reading.name = name.or(reading.name);
            open
        } else {
            listen_to(head, direction, &mut reading)
        };
        if !open || head.full(limit) {
            head.close();
        }
        let changed = reading != self.reading;
        self.reading = reading;
        changed.then(|| self.reading.clone())
    }
}

/// Reads text, and says whether more of it may tell more.
fn listen_to(head: &StreamHead, direction: Direction, reading: &mut FlowReading) -> bool {
    let bytes = head.bytes();
    let text = unwrap(bytes);
    let plausible = text.http || text.host.is_some() || bytes.len() < UNDECIDED || text.text.contains(&b'{');
    if text.host.is_some() {
        reading.name.clone_from(&text.host);
    }
    if text.request.is_some() {
        reading.request.clone_from(&text.request);
    }
    let speech = listen(&text.text);
    let dialogue = &mut reading.dialogue;
    dialogue.http |= text.http && speech.dialect.is_some();
    dialogue.websocket |= text.websocket && speech.dialect.is_some();
    match direction {
        Direction::Sent => {
            dialogue.sent = speech;
            reading.random_start = bytes.get(..KEY).is_some_and(looks_random);
        }
        Direction::Received => dialogue.received = speech,
    }
    plausible
}

/// 64 random bytes hold 56 different values on average, fewer than 44 in less than one of a million, and hardly ever mostly letters.
fn looks_random(bytes: &[u8]) -> bool {
    let mut seen = [false; 256];
    for byte in bytes {
        seen[usize::from(*byte)] = true;
    }
    let different = seen.iter().filter(|s| **s).count();
    let printable = bytes.iter().filter(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()).count();
    different >= 44 && printable * 10 <= bytes.len() * 7
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(head: &mut FlowHead, bytes: &[u8]) -> Option<FlowReading> {
        head.read(Direction::Sent, 0, bytes, 2048)
    }

    #[test]
    fn what_says_nothing_new_is_not_told_again() {
        let mut head = FlowHead::new(FlowKey(1));
        let request = b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n";
        assert!(sent(&mut head, request).is_some_and(|r| r.name.as_deref() == Some("shop.example")));
        assert_eq!(sent(&mut head, b"more"), None);
    }

    #[test]
    fn a_stream_that_cannot_be_json_is_given_up() {
        let mut head = FlowHead::new(FlowKey(1));
        assert_eq!(sent(&mut head, &[b'a'; UNDECIDED]), None);
        assert_eq!(head.weight(), 0);
    }

    #[test]
    fn keys_look_random_and_text_and_zeros_do_not() {
        let key: Vec<u8> = (0..64u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert!(looks_random(&key));
        assert!(!looks_random(&[0; 64]));
        assert!(!looks_random(
            b"{\"id\":1,\"method\":\"login\",\"params\":{\"login\":\"4ab\",\"pass\":\"x\"}}  "
        ));
    }
}
