//! The handshake of Stratum v2 by its sizes (specification, protocol security).

use davy_model::Direction;

use crate::flow_table::Message;

/// First message of the initiator: an ElligatorSwift-encoded key, 64 bytes.
const FIRST: u32 = 64;
/// The responder's reply in the present and in an older version of the specification.
const REPLIES: [u32; 2] = [234, 170];
/// An encrypted frame header is 6 bytes and a 16-byte tag.
const SMALLEST_FRAME: u32 = 22;

/// Whether a flow began as Stratum v2 begins: 64 bytes from the client, a reply of 234 or 170 bytes, and then nothing shorter
/// than an encrypted header. That the 64 bytes look random is for the reader of the flow's bytes to say.
#[must_use]
pub(crate) fn has_sizes_of_noise(opening: &[Message]) -> bool {
    let [client, server, rest @ ..] = opening else { return false };
    client.direction == Direction::Sent
        && client.size == FIRST
        && REPLIES.contains(&server.size)
        && rest.first().is_none_or(|m| m.direction == Direction::Sent && m.size > SMALLEST_FRAME)
}
