//! Two network namespaces of the test's own, joined by a cable: one is the host with the firewall, one is everybody else.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub)]

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What the host is called by, and by whom.
pub const HOST: [&str; 2] = ["10.77.0.1", "fd77::1"];
pub const NEAR: [&str; 2] = ["10.77.0.2", "fd77::2"];
pub const FAR: [&str; 2] = ["10.77.0.3", "fd77::3"];

/// How long a connection that is not answered is waited for.
const PATIENCE: Duration = Duration::from_millis(400);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The two namespaces; they go with the test.
pub struct World {
    pub host: String,
    pub others: String,
}

impl World {
    /// Makes them; `None`, said loudly, where that cannot be.
    pub fn make() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: this test needs root");
            return None;
        }
        for program in ["ip", "nft"] {
            if Command::new(program).arg("-V").output().is_err() {
                println!("SKIPPED: {program} is not installed");
                return None;
            }
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("davyfw-{}-{number}-{what}", std::process::id());
        let world = Self { host: name("h"), others: name("o") };
        sh(&format!(
            "ip netns add {h} && ip netns add {o} && \
             for n in {h} {o}; do ip netns exec $n sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'; done && ip -n {h} link add e0 type veth peer name e0 netns {o} && \
             ip -n {h} link set lo up && ip -n {o} link set lo up && ip -n {h} link set e0 up && ip -n {o} link set e0 up",
            h = world.host,
            o = world.others
        ));
        let places = [(&world.host, HOST), (&world.others, NEAR), (&world.others, FAR)];
        for (namespace, [v4, v6]) in places {
            sh(&format!(
                "ip -n {namespace} addr add {v4}/24 dev e0 && ip -n {namespace} addr add {v6}/64 dev e0 nodad"
            ));
        }
        Some(world)
    }

    /// Runs something with the host's network.
    pub fn at_host<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        within(&self.host, task)
    }

    /// Whether a TCP connection from this address is answered.
    pub fn reaches(&self, from: &str, to: &str, port: u16) -> bool {
        self.connect(from, to, port).is_some()
    }

    /// A TCP connection from this address, if it is answered.
    pub fn connect(&self, from: &str, to: &str, port: u16) -> Option<TcpStream> {
        let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
        within(&self.others, || dial(SocketAddr::new(from, 0), SocketAddr::new(to, port)))
    }

    /// Runs something with the network of everybody else.
    pub fn elsewhere<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        within(&self.others, task)
    }

    /// Whether what is sent by UDP from this address is answered by somebody who sends it back.
    pub fn is_echoed(&self, from: &str, to: &str, port: u16) -> bool {
        let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
        within(&self.others, || {
            let socket = UdpSocket::bind(SocketAddr::new(from, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let sent = socket.send_to(b"hello", SocketAddr::new(to, port));
            sent.is_ok() && socket.recv_from(&mut [0; 16]).is_ok()
        })
    }

    /// Listens at a port of every address of the host, for as long as what is given back lives.
    pub fn listen(&self, port: u16) -> TcpListener {
        self.at_host(|| TcpListener::bind(("::", port)).unwrap())
    }

    /// Sends back what comes to a UDP port, four times at most.
    pub fn echo(&self, address: &str, port: u16) {
        let socket = self.at_host(|| UdpSocket::bind((address, port)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            for _ in 0..4 {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
    }

    /// Has nft read rules at the host.
    pub fn nft(&self, rules: &str) {
        let folder = std::env::temp_dir().join(format!("{}.nft", self.host));
        std::fs::write(&folder, rules).unwrap();
        sh(&format!("ip netns exec {} nft -f {}", self.host, folder.display()));
        std::fs::remove_file(folder).unwrap();
    }

    /// What nft lists at the host.
    pub fn listed(&self, what: &str) -> String {
        sh(&format!("ip netns exec {} nft {what}", self.host))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for namespace in [&self.host, &self.others].into_iter().filter(|name| !name.is_empty()) {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// Runs a shell's line and gives what it printed.
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs something in a thread that has entered a network namespace, and ends with it.
fn within<T: Send>(namespace: &str, task: impl FnOnce() -> T + Send) -> T {
    let handle = File::open(format!("/run/netns/{namespace}")).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            task()
        });
        thread.join().unwrap()
    })
}

fn dial(from: SocketAddr, to: SocketAddr) -> Option<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None).unwrap();
    bind(&socket, &from).unwrap();
    let _ = connect(&socket, &to);
    let mut waiting = [PollFd::new(&socket, PollFlags::OUT)];
    let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(PATIENCE.subsec_nanos()) };
    let ready = poll(&mut waiting, Some(&patience)).unwrap();
    let answered = ready == 1 && sockopt::socket_error(&socket).is_ok_and(|outcome| outcome.is_ok());
    answered.then(|| {
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(false).unwrap();
        stream
    })
}
