//! The name a TLS client asks for (RFC 6066, server_name), from the first bytes it sends.

use tls_parser::{
    SNIType, TlsExtension, TlsMessage, TlsMessageHandshake, parse_tls_extensions, parse_tls_message_handshake,
};

/// Whether bytes begin a TLS record of the handshake type.
pub(crate) fn is_tls(head: &[u8]) -> bool {
    matches!(head, [0x16, 3, 0..=4, ..])
}

/// The name in a ClientHello, which may span several records and be cut after the extension that holds it.
#[must_use]
pub fn server_name(head: &[u8]) -> Option<String> {
    let message = joined_records(head);
    let (_, TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello))) =
        parse_tls_message_handshake(&message).ok()?
    else {
        return None;
    };
    let (_, extensions) = parse_tls_extensions(hello.ext?).ok()?;
    extensions.iter().find_map(|extension| {
        let TlsExtension::SNI(names) = extension else { return None };
        let (_, name) = names.iter().find(|(kind, _)| *kind == SNIType::HostName)?;
        let name = std::str::from_utf8(name).ok()?;
        let fits = !name.is_empty() && name.len() <= 253 && name.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| name.trim_end_matches('.').to_ascii_lowercase())
    })
}

/// The payload of handshake records one after the other, without their five-byte headers.
fn joined_records(mut head: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [0x16, 3, _, high, low, rest @ ..] = head {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        message.extend_from_slice(&rest[..length]);
        head = &rest[length..];
    }
    message
}
