use davy_model::Direction;

use crate::flow_table::Message;

/// First message of the initiator: an ElligatorSwift-encoded key, 64 bytes.
const FIRST: usize = 64;
/// The responder's reply in the present and in an older version of the specification.
const REPLIES: [u32; 2] = [234, 170];
/// An encrypted frame header is 6 bytes and a 16-byte tag.
const SMALLEST_FRAME: u32 = 22;

/// Whether a flow began as Stratum v2 begins: 64 random-looking bytes from the client, a reply of 234 or 170 bytes, and then nothing
/// shorter than an encrypted header.
#[must_use]
pub fn looks_like_noise_handshake(opening: &[Message], first_sent: &[u8]) -> bool {
    let [client, server, rest @ ..] = opening else { return false };
    client.direction == Direction::Sent
        && client.size as usize == FIRST
        && REPLIES.contains(&server.size)
        && rest.first().is_none_or(|m| m.direction == Direction::Sent && m.size > SMALLEST_FRAME)
        && first_sent.len() >= FIRST
        && looks_random(&first_sent[..FIRST])
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
