//! Greets a pool by its name: looks it up at the stage's name server and asks the stage's web server for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};

use super::steady;

/// Gaps between two greetings.
const GAP: Duration = Duration::from_secs(4);

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks the name up and greets the pool by it, again and again until the moment given.
pub(super) fn run(pool: SocketAddr, resolver: &str, name: &str, until: Instant) -> anyhow::Result<()> {
    let mut first = true;
    while Instant::now() < until {
        if resolver != "-" {
            look_up(super::address(resolver)?, name)?;
        }
        let mut stream = greet(pool, name)?;
        if std::mem::take(&mut first) {
            steady();
        }
        // The stage speaks no HTTP; that the name went over the wire is all.
        let _ = stream.read(&mut [0; 64]);
        std::thread::sleep(GAP);
    }
    Ok(())
}

fn look_up(resolver: SocketAddr, name: &str) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("look the name up")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(resolver).context("look the name up")?;
    socket.send(&question(name)?).context("look the name up")?;
    let mut answer = [0; 512];
    socket.recv(&mut answer).context("wait for the name's address")?;
    Ok(())
}

/// A question for the name's IPv4 address (RFC 1035).
pub(super) fn question(name: &str) -> anyhow::Result<Vec<u8>> {
    let mut packet = Packet::new_query(0xda5e);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).context("read the pool's name")?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false));
    Ok(packet.build_bytes_vec()?)
}

fn greet(pool: SocketAddr, name: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&pool, PATIENCE).context("reach the pool")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {name}\r\nUser-Agent: davy-drill\r\n\r\n")?;
    Ok(stream)
}
