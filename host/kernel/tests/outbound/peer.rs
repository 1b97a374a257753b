//! A process of the test program's own, in a network namespace of its own that has only loopback, and what it does when it is told
//! to on its input.
#![allow(unsafe_code)]

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use simple_dns::rdata::{A, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, ResourceRecord, TYPE};

use crate::live::client::{Client, answer};
use crate::ring;

/// The namespace has these addresses, all of them its own.
const NET: &str = "ip link set lo up && ip addr add 198.51.100.1/32 dev lo && ip addr add 198.51.100.53/32 dev lo && \
                   ip addr add 203.0.113.7/32 dev lo && ip addr add 203.0.113.8/32 dev lo && \
                   ip addr add 2001:db8::1/128 dev lo nodad";

pub(crate) fn start(cgroup: Option<&Path>) -> Client {
    let mut client = Client::start_alone(NET, cgroup);
    client.ask("listen");
    client
}

/// What a peer holds on to.
#[derive(Default)]
struct Held {
    living: Option<TcpStream>,
    listeners: Vec<TcpListener>,
    socket: Option<OwnedFd>,
    heard: Option<(UdpSocket, SocketAddr)>,
    pointed: Option<UdpSocket>,
    asked: Option<Asked>,
}

/// A question under way: who answers it, who asked it, and from where.
struct Asked {
    server: UdpSocket,
    socket: UdpSocket,
    name: String,
}

/// Serves a client that [`start`] gave.
pub(crate) fn run() {
    let mut held = Held::default();
    answer(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        act(&mut held, &words).map(|()| "ok".to_owned())
    });
}

fn act(held: &mut Held, words: &[&str]) -> std::io::Result<()> {
    let to = || -> SocketAddr { words[1].parse().unwrap() };
    match words[0] {
        "listen" => {
            for port in [8080, 8081] {
                held.listeners.push(TcpListener::bind(("::", port))?);
            }
            Ok(())
        }
        "connect" => TcpStream::connect_timeout(&to(), Duration::from_secs(5)).map(|s| held.living = Some(s)),
        "talk" => {
            let (Some(living), Some(listener)) = (held.living.as_mut(), held.listeners.first()) else {
                return Err(std::io::Error::other("nothing is open"));
            };
            living.write_all(b"x")?;
            let (mut accepted, _) = listener.accept()?;
            accepted.read_exact(&mut [0])
        }
        "datagram" => {
            let from = if to().is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            UdpSocket::bind(from)?.send_to(b"x", to()).map(drop)
        }
        "hear" => {
            let (server, client) = (UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind((words[1], 0))?);
            let port = server.local_addr()?.port();
            client.send_to(b"q", ("198.51.100.1", port))?;
            let (_, from) = server.recv_from(&mut [0; 16])?;
            held.heard = Some((server, from));
            Ok(())
        }
        "answer" | "answer-another" => {
            let (server, mut from) = held.heard.take().unwrap();
            if words[0] != "answer" {
                from.set_port(from.port() ^ 1);
            }
            let done = server.send_to(b"a", from).map(drop);
            held.heard = Some((server, from));
            done
        }
        "connected-datagram" => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to())?;
            socket.send(b"x").map(drop)
        }
        // A destination, and nothing sent to it.
        "point" => {
            if held.pointed.is_none() {
                held.pointed = Some(UdpSocket::bind("0.0.0.0:0")?);
            }
            held.pointed.as_ref().map_or(Ok(()), |socket| socket.connect(to()))
        }
        "send" => sent(|| held.pointed.as_ref().map_or(Ok(0), |socket| socket.send(b"x"))),
        "send-elsewhere" => sent(|| held.pointed.as_ref().map_or(Ok(0), |socket| socket.send_to(b"x", to()))),
        "unpoint" => held.pointed.as_ref().map_or(Ok(()), dissolve),
        "question" => question_under_way(words[1], words[2]).map(|asked| held.asked = Some(asked)),
        "reply" => held.asked.take().map_or(Ok(()), |asked| asked.reply(words[1].parse().unwrap())),
        "mapped" => socket(libc::AF_INET6, libc::SOCK_STREAM, 0).and_then(|fd| connect(&fd, to())),
        "fast-open" => socket(libc::AF_INET, libc::SOCK_STREAM, 0).and_then(|fd| fast_open(&fd, to())),
        "multipath" => socket(libc::AF_INET, libc::SOCK_STREAM, 262).and_then(|fd| connect(&fd, to())),
        "raw" => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP).map(drop),
        "raw-v6" => socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_UDP).map(drop),
        "packet" => socket(libc::AF_PACKET, libc::SOCK_RAW, 0).and_then(|fd| frame(&fd)),
        "ring" => socket(libc::AF_INET, libc::SOCK_STREAM, 0).and_then(|fd| ring::connect(&fd, to())),
        // A socket that was made before, as one that is inherited or passed is.
        "make" => socket(libc::AF_INET, libc::SOCK_STREAM, 0).map(|fd| held.socket = Some(fd)),
        "use" => connect(held.socket.as_ref().unwrap(), to()),
        // Somebody else connects for whoever asks, and hands the connection over.
        "offer" => offer(words[1], words[2].parse().unwrap()),
        "take" => take(words[1]),
        "user" => set_user(words[1].parse().unwrap()),
        "serve-names" => serve_names(words[1], words[2].parse().unwrap()),
        "resolve" => resolve(words[1], words[2]),
        "forge" => forge(words[1], words[2], words[3].parse().unwrap()),
        "move" => std::fs::write(Path::new(words[1]).join("cgroup.procs"), std::process::id().to_string()),
        _ => Err(std::io::Error::other("no such act")),
    }
}

fn checked(code: libc::c_int) -> std::io::Result<libc::c_int> {
    if code < 0 { Err(std::io::Error::last_os_error()) } else { Ok(code) }
}

fn socket(family: i32, kind: i32, protocol: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only; what it gives is a descriptor that nobody else owns.
    unsafe {
        checked(libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol)).map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// An address as the kernel takes it; of the other family on an IPv6 socket as mapped.
pub(crate) fn address(to: SocketAddr) -> (libc::sockaddr_in, libc::sockaddr_in6) {
    // SAFETY: both are plain numbers, for which zeros are values.
    let (mut v4, mut v6): (libc::sockaddr_in, libc::sockaddr_in6) = unsafe { std::mem::zeroed() };
    v4.sin_family = libc::AF_INET as u16;
    v6.sin6_family = libc::AF_INET6 as u16;
    v4.sin_port = to.port().to_be();
    v6.sin6_port = to.port().to_be();
    match to {
        SocketAddr::V4(to) => {
            v4.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
            v6.sin6_addr.s6_addr = to.ip().to_ipv6_mapped().octets();
        }
        SocketAddr::V6(to) => v6.sin6_addr.s6_addr = to.ip().octets(),
    }
    (v4, v6)
}

fn connect(fd: &OwnedFd, to: SocketAddr) -> std::io::Result<()> {
    let (v4, v6) = address(to);
    let family = rustix::net::sockopt::socket_domain(fd)?;
    let (pointer, length) = if family == rustix::net::AddressFamily::INET6 {
        (std::ptr::from_ref(&v6).cast(), size_of_val(&v6))
    } else {
        (std::ptr::from_ref(&v4).cast(), size_of_val(&v4))
    };
    // SAFETY: the pointer is to an address of that length, which lives through the call.
    unsafe { checked(libc::connect(fd.as_raw_fd(), pointer, length as u32)).map(drop) }
}

fn fast_open(fd: &OwnedFd, to: SocketAddr) -> std::io::Result<()> {
    let (v4, _) = address(to);
    // SAFETY: both pointers are to values of the lengths given, which live through the call.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            b"x".as_ptr().cast(),
            1,
            libc::MSG_FASTOPEN,
            std::ptr::from_ref(&v4).cast(),
            size_of_val(&v4) as u32,
        )
    };
    if sent < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a frame of its own making to loopback.
fn frame(fd: &OwnedFd) -> std::io::Result<()> {
    // SAFETY: plain numbers, for which zeros are values.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = 1;
    to.sll_halen = 6;
    let frame = [0u8; 60];
    // SAFETY: both pointers are to values of the lengths given, which live through the call.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            std::ptr::from_ref(&to).cast(),
            size_of_val(&to) as u32,
        )
    };
    if sent < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Becomes another user for good.
fn set_user(uid: u32) -> std::io::Result<()> {
    // SAFETY: takes numbers only.
    unsafe { checked(libc::setresuid(uid, uid, uid)).map(drop) }
}

/// A name server that answers every question with this address, by way of an alias, for a second.
fn serve_names(at: &str, address: std::net::Ipv4Addr) -> std::io::Result<()> {
    let socket = UdpSocket::bind((at, 53))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let asked = Packet::parse(&buffer[..length]).unwrap();
            let name = asked.questions[0].qname.to_string();
            let _ = socket.send_to(&reply(asked.id(), &name, address), from);
        }
    });
    Ok(())
}

fn reply(id: u16, name: &str, address: std::net::Ipv4Addr) -> Vec<u8> {
    let name = Name::new_unchecked(name);
    let mut packet = Packet::new_reply(id);
    packet.questions.push(Question::new(name.clone(), TYPE::A.into(), CLASS::IN.into(), false));
    let edge = Name::new_unchecked("edge.example.net");
    packet.answers.push(ResourceRecord::new(name, CLASS::IN, 1, RData::CNAME(CNAME(edge.clone()))));
    let given = RData::A(A { address: address.to_bits() });
    packet.answers.push(ResourceRecord::new(edge, CLASS::IN, 1, given));
    packet.build_bytes_vec_compressed().unwrap()
}

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new_unchecked(name), TYPE::A.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().unwrap()
}

/// Asks a name server and waits for its answer.
fn resolve(at: &str, name: &str) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(&question(77, name), (at, 53))?;
    socket.recv_from(&mut [0; 512]).map(drop)
}

/// Asks a name server that takes its time.
fn question_under_way(at: &str, name: &str) -> std::io::Result<Asked> {
    let (server, socket) = (UdpSocket::bind((at, 53))?, UdpSocket::bind("198.51.100.1:0")?);
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(&question(77, name), (at, 53))?;
    Ok(Asked { server, socket, name: name.to_owned() })
}

impl Asked {
    fn reply(self, address: std::net::Ipv4Addr) -> std::io::Result<()> {
        self.server.send_to(&reply(77, &self.name, address), self.socket.local_addr()?)?;
        self.socket.recv_from(&mut [0; 512]).map(drop)
    }
}

/// Sends; that nobody listened to the datagram before is no error of this one.
fn sent(send: impl Fn() -> std::io::Result<usize>) -> std::io::Result<()> {
    match send() {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => send().map(drop),
        outcome => outcome.map(drop),
    }
}

/// Takes the destination of a socket away again (connect(2)).
fn dissolve(socket: &UdpSocket) -> std::io::Result<()> {
    // SAFETY: plain numbers, for which zeros are values; the family zero is `AF_UNSPEC`.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to an address of that length, which lives through the call.
    unsafe {
        checked(libc::connect(socket.as_raw_fd(), &raw const nowhere, size_of_val(&nowhere) as u32)).map(drop)
    }
}

/// Has answers come to a socket that are none to what it asked: nothing was asked, another name was, another number was.
fn forge(server: &str, name: &str, address: std::net::Ipv4Addr) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let forger = UdpSocket::bind((server, 53))?;
    let to = std::net::SocketAddr::new("198.51.100.1".parse().unwrap(), socket.local_addr()?.port());
    let come = |bytes: &[u8]| {
        forger.send_to(bytes, to)?;
        socket.recv_from(&mut [0; 512]).map(drop)
    };
    come(&reply(5, name, address))?;
    socket.send_to(&question(5, "another.example"), (server, 53))?;
    come(&reply(5, name, address))?;
    socket.send_to(&question(6, name), (server, 53))?;
    come(&reply(7, name, address))
}

/// Serves one who comes to a Unix socket: connects, and passes the open connection on.
fn offer(path: &str, to: SocketAddr) -> std::io::Result<()> {
    let listener = UnixListener::bind(path)?;
    std::thread::spawn(move || {
        let (asker, _) = listener.accept().unwrap();
        let connection = TcpStream::connect(to).unwrap();
        let passed = [connection.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&passed));
        sendmsg(&asker, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
    });
    Ok(())
}

/// Takes a connection from a Unix socket and writes to it.
fn take(path: &str) -> std::io::Result<()> {
    let from = UnixStream::connect(path)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&from, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::empty())?;
    let passed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    TcpStream::from(passed.ok_or_else(|| std::io::Error::other("nothing was passed"))?).write_all(b"x")
}
