//! What carries a mining protocol: nothing, a proxy's greeting, HTTP, or WebSocket.

use std::borrow::Cow;

/// What was found at the beginning of one direction of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unwrapped<'a> {
    /// The text inside.
    pub text: Cow<'a, [u8]>,
    /// Whether it came inside HTTP.
    pub http: bool,
    /// Whether it came inside WebSocket frames.
    pub websocket: bool,
    /// The host an HTTP request or a proxy greeting names, without its port.
    pub host: Option<String>,
    /// The first words of an HTTP request, such as `POST /upload.php`, at most 120 bytes.
    pub request: Option<String>,
}

const MAX_HEADERS: usize = 48;

/// Takes off what surrounds the protocol's text. Input may be cut anywhere.
#[must_use]
pub fn unwrap(head: &[u8]) -> Unwrapped<'_> {
    if let Some(http) = http_request(head).or_else(|| http_response(head)) {
        return http;
    }
    if let Some((host, rest)) = socks_greeting(head) {
        return Unwrapped { text: Cow::Borrowed(rest), host: Some(host), ..Unwrapped::default() };
    }
    Unwrapped { text: Cow::Borrowed(head), ..Unwrapped::default() }
}

fn http_request(head: &[u8]) -> Option<Unwrapped<'_>> {
    const METHODS: [&[u8]; 6] = [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"CONNECT ", b"OPTIONS "];
    if !METHODS.iter().any(|m| head.starts_with(m)) {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(head).ok()?;
    let connect = request.method == Some("CONNECT");
    let host = if connect { request.path.map(str::to_owned) } else { header(request.headers, "host") };
    let websocket = is_upgrade(request.headers);
    let rest = if let httparse::Status::Complete(length) = status { &head[length..] } else { &[] };
    let text = if websocket { Cow::Owned(frames(rest)) } else { Cow::Borrowed(rest) };
    let words = request.method.zip(request.path).map(|(method, path)| shown(method, path));
    Some(Unwrapped { text, http: !connect, websocket, host: host.map(|h| without_port(&h)), request: words })
}

/// A request's first words without what may be secret: its query, parameters of its path (RFC 3986, 3.3), who asks (user
/// information of an absolute form), and parts of the path that look like keys.
fn shown(method: &str, path: &str) -> String {
    let path = path.split(['?', '#', ';']).next().unwrap_or(path);
    let (scheme, path) = match path.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
            let user = authority.rfind('@').map_or(0, |at| at + 1);
            (format!("{scheme}://"), &rest[user..])
        }
        None => (String::new(), path),
    };
    let parts: Vec<&str> = path.split('/').map(|part| if is_key(part) { "…" } else { part }).collect();
    let shown = format!("{scheme}{}", parts.join("/"));
    let shown: String = shown.chars().filter(|c| !c.is_control()).take(100).collect();
    format!("{method} {shown}")
}

/// Whether a part of a path is long and mixed as keys are, and names of files seldom.
fn is_key(part: &str) -> bool {
    let any = |is: fn(&u8) -> bool| part.bytes().any(|byte| is(&byte));
    part.len() >= 20 && any(u8::is_ascii_digit) && any(u8::is_ascii_alphabetic) && !part.contains('.')
}

fn http_response(head: &[u8]) -> Option<Unwrapped<'_>> {
    if !head.starts_with(b"HTTP/1.") {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(head).ok()?;
    let websocket = response.code == Some(101) && is_upgrade(response.headers);
    let httparse::Status::Complete(length) = status else {
        return Some(Unwrapped { http: true, websocket, ..Unwrapped::default() });
    };
    let text = if websocket { Cow::Owned(frames(&head[length..])) } else { Cow::Borrowed(&head[length..]) };
    Some(Unwrapped { text, http: true, websocket, ..Unwrapped::default() })
}

fn header(headers: &[httparse::Header<'_>], name: &str) -> Option<String> {
    let header = headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
    Some(String::from_utf8_lossy(header.value).trim().to_owned())
}

fn is_upgrade(headers: &[httparse::Header<'_>]) -> bool {
    header(headers, "upgrade").is_some_and(|v| v.eq_ignore_ascii_case("websocket"))
}

fn without_port(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_matches(['[', ']']).to_ascii_lowercase()
}

/// The payload of WebSocket frames (RFC 6455, 5.2), unmasked; control frames are left out, the last frame may be cut.
#[must_use]
pub fn frames(mut input: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    while let [first, second, rest @ ..] = input {
        let (length, rest) = match second & 0x7f {
            126 => match rest {
                [a, b, rest @ ..] => (u64::from(u16::from_be_bytes([*a, *b])), rest),
                _ => break,
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => break,
            },
            short => (u64::from(short), rest),
        };
        let (mask, rest) = if second & 0x80 == 0 {
            ([0; 4], rest)
        } else {
            match rest.split_first_chunk::<4>() {
                Some((mask, rest)) => (*mask, rest),
                None => break,
            }
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        if first & 0x0f <= 2 {
            text.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
            text.push(b'\n');
        }
        input = rest;
    }
    text
}

/// A SOCKS5 greeting and request as a client sends them (RFC 1928), with the name it asks for.
fn socks_greeting(head: &[u8]) -> Option<(String, &[u8])> {
    let [5, methods, rest @ ..] = head else { return None };
    let rest = rest.get(usize::from(*methods)..)?;
    let [5, 1, 0, 3, length, rest @ ..] = rest else { return None };
    let name = rest.get(..usize::from(*length))?;
    let rest = rest.get(usize::from(*length) + 2..)?;
    let name = std::str::from_utf8(name).ok()?;
    name.bytes().all(|b| b.is_ascii_graphic()).then(|| (name.to_ascii_lowercase(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        for (path, expected) in [
            ("/upload.php?key=1#a", "/upload.php"),
            ("/shop;jsessionid=8A1C/cart", "/shop"),
            ("http://ann:pass@shop.example/a@b", "http://shop.example/a@b"),
            ("/bot123456:AAF3zK90aQpLmN4rT7uVwX2yZ/sendMessage", "/…/sendMessage"),
            (
                "/pool/main/p/postgresql-15/postgresql-client-15_15.18-0.deb",
                "/pool/main/p/postgresql-15/postgresql-client-15_15.18-0.deb",
            ),
            ("/", "/"),
        ] {
            assert_eq!(shown("GET", path), format!("GET {expected}"));
        }
    }
}
