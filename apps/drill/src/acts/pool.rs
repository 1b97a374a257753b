//! The stage: a pool that is none, and a name server with one answer, on the loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustls::ServerConfig;
use serde_json::{Value, json};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, PacketFlag, ResourceRecord};

use super::lines::{Lines, Received};
use super::tls;
use crate::{link, namespace};

/// An address for documentation (RFC 5737), which nobody has: the pool's, inside the private namespace.
const POOL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// Most connections at once; more are closed.
const MAX_CONNECTIONS: usize = 8;

/// Gaps between jobs: in the clear, and in TLS, where the rhythm is all there is to see and a drill cannot wait for a
/// real pool's.
const JOB_GAP: Duration = Duration::from_secs(3);
const JOB_GAP_IN_TLS: Duration = Duration::from_millis(1200);

/// How long a connection may take for its handshake, and a name server waits for a question.
const PATIENCE: Duration = Duration::from_secs(3);

/// Serves until the moment given; in a network namespace of its own if `private`, else on the host's loopback.
pub(super) fn stage(private: bool, in_tls: bool, until: Instant) -> anyhow::Result<()> {
    let listener = if private {
        namespace::leave_network()?;
        link::raise_loopback()?;
        link::add_to_loopback(POOL)?;
        let resolver = UdpSocket::bind((POOL, 53)).context("serve names")?;
        std::thread::Builder::new().spawn(move || serve_names(&resolver, until))?;
        TcpListener::bind((POOL, if in_tls { 443 } else { 3333 }))
    } else {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
    }
    .context("listen as a pool")?;
    let (config, certificate) =
        if in_tls { tls::server().map(|(c, d)| (Some(c), d))? } else { (None, String::new()) };
    println!("listening {} {certificate}", listener.local_addr()?);
    serve(&listener, config.as_ref(), until);
    Ok(())
}

pub(super) fn serve(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>, until: Instant) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let mine = Arc::clone(&open);
        let tls = tls.cloned();
        let talk = move || {
            let _ = talk(stream, tls.as_ref(), until);
            mine.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().spawn(talk).is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One miner's connection: answers requests, and pushes jobs.
fn talk(socket: TcpStream, tls: Option<&Arc<ServerConfig>>, until: Instant) -> anyhow::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut lines, gap) = match tls {
        Some(config) => (tls::answer(socket, config)?, JOB_GAP_IN_TLS),
        None => (Lines::clear(socket)?, JOB_GAP),
    };
    let mut height = 3_100_000;
    let mut next_job = Instant::now() + gap;
    while Instant::now() < until {
        match lines.receive(next_job.saturating_duration_since(Instant::now()))? {
            Received::Closed => break,
            Received::Line(line) => {
                if let Some(answer) = answer(&line, height) {
                    lines.send(&answer)?;
                }
            }
            Received::Nothing => {}
        }
        if Instant::now() >= next_job {
            next_job = Instant::now() + gap;
            height += 1;
            lines.send(&json!({"jsonrpc": "2.0", "method": "job", "params": job(height)}))?;
        }
    }
    Ok(())
}

/// The pool's answer to a line; `None` for one that is no request.
fn answer(line: &[u8], height: u32) -> Option<Value> {
    let request: Value = serde_json::from_slice(line).ok()?;
    let id = request.get("id")?;
    let result = match request.get("method")?.as_str()? {
        "login" => json!({"id": "davy-drill", "job": job(height), "extensions": ["algo"], "status": "OK"}),
        "submit" | "keepalived" => json!({"status": "OK"}),
        _ => {
            return Some(
                json!({"id": id, "jsonrpc": "2.0", "error": {"code": -1, "message": "Invalid method"}}),
            );
        }
    };
    Some(json!({"id": id, "jsonrpc": "2.0", "error": null, "result": result}))
}

fn job(height: u32) -> Value {
    json!({
        "blob": format!("1010{}", "da".repeat(72)),
        "job_id": format!("{height:016x}"),
        "target": "b88d0600",
        "algo": "rx/0",
        "height": height,
        "seed_hash": "5e".repeat(32),
    })
}

/// Tells everyone who asks that the name is the pool.
fn serve_names(socket: &UdpSocket, until: Instant) {
    let mut buffer = [0; 512];
    let _ = socket.set_read_timeout(Some(PATIENCE));
    while Instant::now() < until {
        let Ok((count, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(reply) = resolve(&buffer[..count]) {
            let _ = socket.send_to(&reply, from);
        }
    }
}

fn resolve(query: &[u8]) -> Option<Vec<u8>> {
    let query = Packet::parse(query).ok()?;
    let question = query.questions.first()?;
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    let address = RData::A(A::from(POOL));
    reply.answers.push(ResourceRecord::new(question.qname.clone(), CLASS::IN, 60, address));
    reply.questions.push(question.clone());
    reply.build_bytes_vec().ok()
}

/// The name server beside a pool at this address; `None` where there is none.
pub(crate) fn resolver_beside(pool: SocketAddr) -> Option<SocketAddr> {
    (pool.ip() == IpAddr::V4(POOL)).then(|| SocketAddr::from((POOL, 53)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_login_is_answered_with_a_job() {
        let answer =
            answer(br#"{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"x"}}"#, 7).unwrap();
        assert_eq!(answer["id"], 1);
        assert_eq!(answer["result"]["job"]["height"], 7);
        assert_eq!(answer["result"]["job"]["blob"].as_str().unwrap().len(), 148);
    }

    #[test]
    fn what_is_no_request_is_not_answered() {
        for line in [&b"GET / HTTP/1.1\r\n"[..], b"{}", b"[]", b"\xff\xfe", br#"{"id":1,"method":3}"#] {
            assert!(answer(line, 1).is_none());
        }
        let other = answer(br#"{"id":2,"method":"mining.subscribe"}"#, 1).unwrap();
        assert_eq!(other["error"]["code"], -1);
    }

    #[test]
    fn a_name_is_answered_with_the_pool() {
        let question = super::super::pool_name::question("pool.example.net").unwrap();
        let reply = resolve(&question).unwrap();
        let reply = Packet::parse(&reply).unwrap();
        assert_eq!(reply.answers[0].name.to_string(), "pool.example.net");
        assert!(matches!(&reply.answers[0].rdata, RData::A(a) if Ipv4Addr::from(a.address) == POOL));
        assert!(resolve(b"junk").is_none());
    }
}
