//! Connection requests from forged addresses, as fast as a core can make them, at a host that watches for scans.
#![allow(unsafe_code)]

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use davy_test_e2e::TwoHosts;
use serde::Serialize;

use super::{HOST, agent, enter, hosts, within};
use crate::agent::Agent;

/// Packets a second that are asked for.
const RATE: u32 = 500_000;

/// How long the flood lasts.
const TIME: Duration = Duration::from_secs(10);

/// Different packets: addresses and ports.
const FRAMES: u32 = 1 << 16;

/// Packets that are given to the kernel at once.
const BATCH: usize = 128;

/// How long a visitor waits for a connection: less than a request that was lost takes to be sent again.
const PATIENCE: Duration = Duration::from_millis(900);

/// What a host did under a flood, with and without an agent.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    asked: u32,
    alone: Side,
    watched: Side,
    /// Share of one core that the agent's threads took, in percent.
    cpu_percent: f64,
    /// The agent's resident memory at its end, in bytes.
    resident: u64,
}

/// One flood.
#[derive(Debug, Serialize)]
struct Side {
    /// Packets a second that came.
    arrived: f64,
    /// Connections that visitors tried, and how many were made.
    tried: u32,
    connected: u32,
}

impl Outcome {
    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { asked, alone, watched, cpu_percent, resident } = self;
        writeln!(
            out,
            "\nA flood of {asked} connection requests a second from forged addresses: {:.0} came, {} of {} visitors got their \
             connection; without an agent {:.0} came, {} of {}. The agent took {cpu_percent:.1} % of a core, and had {:.1} MB \
             resident at its end (goal 64).",
            watched.arrived,
            watched.connected,
            watched.tried,
            alone.arrived,
            alone.connected,
            alone.tried,
            *resident as f64 / 1e6
        )
    }
}

pub(super) fn measure(davy: &Path) -> Result<Outcome> {
    let hosts = hosts()?;
    // Forged sources answer nobody: what is sent to them goes nowhere.
    hosts.shell(0, "ip route add blackhole 198.18.0.0/15")?;
    let alone = flood(&hosts)?;
    let agent = agent(&hosts, davy, "")?;
    let (before, begin) = (agent.cpu()?, Instant::now());
    let watched = flood(&hosts)?;
    let cpu_percent = 100.0 * (agent.cpu()? - before) / begin.elapsed().as_secs_f64();
    told(&agent)?;
    Ok(Outcome { asked: RATE, alone, watched, cpu_percent, resident: agent.resident()? })
}

/// A flood of which no source is known was not watched.
fn told(agent: &Agent) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        if agent.davy(&["scans", "--json"])?.contains("\"198.1") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    anyhow::bail!("the flood was not seen")
}

fn flood(hosts: &TwoHosts) -> Result<Side> {
    let listener = within(&hosts.namespace(0), || TcpListener::bind((HOST, 0)))??;
    let address = listener.local_addr()?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The visitor after the flood ends it.
            let _last = listener.incoming().find(|_| over.load(Ordering::Relaxed));
        });
        let counted = (|| {
            let before = received(hosts)?;
            let begin = Instant::now();
            let mut sender = Command::new(std::env::current_exe()?);
            sender.arg("flood-port").arg(hosts.namespace(1)).arg(hardware(hosts)?);
            let mut sender = sender.stdin(Stdio::null()).spawn()?;
            let (mut tried, mut connected) = (0, 0);
            while sender.try_wait()?.is_none() {
                tried += 1;
                connected += u32::from(visit(hosts, address)?);
                std::thread::sleep(Duration::from_millis(50));
            }
            ensure!(sender.wait()?.success(), "the flood failed");
            let arrived = (received(hosts)? - before) as f64 / begin.elapsed().as_secs_f64();
            Ok(Side { arrived, tried, connected })
        })();
        over.store(true, Ordering::Relaxed);
        let _ = visit(hosts, address);
        counted
    })
}

fn visit(hosts: &TwoHosts, address: SocketAddr) -> Result<bool> {
    within(&hosts.namespace(1), || TcpStream::connect_timeout(&address, PATIENCE).is_ok())
}

/// Packets that the host's end of the cable took.
fn received(hosts: &TwoHosts) -> Result<u64> {
    let output = hosts.command(0).args(["cat", "/proc/self/net/dev"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("davy0:")).context("no davy0")?;
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).context("no count of packets")
}

/// The hardware address of the host's end of the cable.
fn hardware(hosts: &TwoHosts) -> Result<String> {
    let output = hosts.command(0).args(["ip", "-o", "link", "show", "davy0"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let address = text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    address.map(str::to_owned).context("no hardware address")
}

/// `flood-port NAMESPACE HARDWARE`: sends from that network for a time.
pub(crate) fn send(namespace: &Path, hardware: &str) -> Result<()> {
    enter(namespace)?;
    let to: Vec<u8> =
        hardware.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    let to: [u8; 6] = to.try_into().ok().context("six bytes")?;
    let frames: Vec<Vec<u8>> = (0..FRAMES).map(|n| frame(to, n)).collect::<Result<_>>()?;
    let socket = packet_socket()?;
    let mut vectors: Vec<libc::iovec> = frames
        .iter()
        .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .map(|vector| {
            // SAFETY: all fields are numbers and pointers, for which zero is a value.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (vector, 1);
            message
        })
        .collect();
    let begin = Instant::now();
    let mut sent = 0u64;
    while begin.elapsed() < TIME {
        if sent > (begin.elapsed().as_secs_f64() * f64::from(RATE)) as u64 {
            std::thread::sleep(Duration::from_micros(100));
            continue;
        }
        let place = (sent % u64::from(FRAMES)) as usize;
        let batch = &mut messages[place..(place + BATCH).min(FRAMES as usize)];
        // SAFETY: each message points at a vector, and that at a frame, which all live until the end of this function; the
        // kernel writes nothing but msg_len (sendmmsg(2)).
        let taken = unsafe { libc::sendmmsg(socket.as_raw_fd(), batch.as_mut_ptr(), batch.len() as u32, 0) };
        if taken > 0 {
            sent += taken as u64;
        } else if io::Error::last_os_error().raw_os_error() != Some(libc::ENOBUFS) {
            return Err(io::Error::last_os_error()).context("sendmmsg");
        }
    }
    Ok(())
}

/// A connection request (RFC 9293) with an address and ports of its own, as masscan sends it: without options.
fn frame(to: [u8; 6], number: u32) -> Result<Vec<u8>> {
    // Mixed, so that neither addresses nor ports come in order.
    let mixed = number.wrapping_mul(0x9e37_79b1);
    let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) | (mixed >> 15));
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], to)
        .ipv4(from.octets(), HOST.octets(), 64)
        .tcp(32_768 + (mixed % 20_000) as u16, 1 + (number % 60_000) as u16, mixed, 1024)
        .syn();
    let mut bytes = Vec::with_capacity(builder.size(0));
    builder.write(&mut bytes, &[])?;
    Ok(bytes)
}

fn packet_socket() -> Result<OwnedFd> {
    // SAFETY: takes numbers alone; the descriptor is new and owned by nobody else.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        ensure!(fd >= 0, "no packet socket: {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: the name ends in a zero byte; the address is as long as is said (packet(7)).
    let bound = unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = libc::if_nametoindex(c"davy1".as_ptr()) as i32;
        let length = size_of::<libc::sockaddr_ll>() as u32;
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length)
    };
    ensure!(bound == 0, "no way onto the cable: {}", io::Error::last_os_error());
    Ok(socket)
}
