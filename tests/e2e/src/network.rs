//! Two network namespaces joined by a cable: a host for an agent, and everybody else.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a connection that is not answered is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Two hosts that are a test's own; they go with it.
#[derive(Debug)]
pub struct Network {
    host: String,
    others: String,
}

impl Network {
    /// The host's address, and two of everybody else's.
    pub const HOST: &str = "10.78.0.1";
    /// One of everybody else's.
    pub const NEAR: &str = "10.78.0.2";
    /// Another.
    pub const FAR: &str = "203.0.113.3";

    /// Makes them.
    ///
    /// # Errors
    /// Without root, or without ip(8).
    pub fn make() -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("davye2e-{}-{number}-{what}", std::process::id());
        let network = Self { host: name("h"), others: name("o") };
        let (h, o) = (&network.host, &network.others);
        sh(&format!(
            "ip netns add {h} && ip netns add {o} && ip -n {h} link add e0 type veth peer name e0 netns {o} && \
             ip -n {h} link set lo up && ip -n {o} link set lo up && ip -n {h} link set e0 up && ip -n {o} link set e0 up && \
             ip -n {h} addr add {}/24 dev e0 && ip -n {o} addr add {}/24 dev e0 && ip -n {o} addr add {}/32 dev e0 && \
             ip -n {h} route add {}/32 dev e0",
            Self::HOST,
            Self::NEAR,
            Self::FAR,
            Self::FAR
        ))?;
        Ok(network)
    }

    /// A command that runs another at the host; what is added to it is what it runs.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.host)).arg("--");
        command
    }

    /// Listens at a port of the host, in the test's own process.
    ///
    /// # Errors
    /// When somebody does already.
    pub fn listen(&self, address: &str, port: u16) -> Result<TcpListener> {
        Ok(within(&self.host, || TcpListener::bind((address, port)))??)
    }

    /// Whether a connection from this address to a port of the host is answered.
    ///
    /// # Errors
    /// When it cannot be tried.
    pub fn reaches(&self, from: &str, port: u16) -> Result<bool> {
        Ok(self.connect(from, port)?.is_some())
    }

    /// A connection from this address to a port of the host, if it is answered.
    ///
    /// # Errors
    /// When it cannot be tried.
    pub fn connect(&self, from: &str, port: u16) -> Result<Option<TcpStream>> {
        let (from, to): (IpAddr, IpAddr) = (from.parse()?, Self::HOST.parse()?);
        within(&self.others, || dial(SocketAddr::new(from, 0), SocketAddr::new(to, port)))?
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.host, &self.others] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

fn sh(line: &str) -> Result<()> {
    let output = Command::new("sh").args(["-c", line]).output().context("sh did not start")?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Runs something in a thread that has entered a network namespace, and ends with it.
fn within<T: Send>(namespace: &str, task: impl FnOnce() -> T + Send) -> Result<T> {
    let handle = File::open(format!("/run/netns/{namespace}"))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let entered = move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network));
            entered.map(|()| task()).context("the network namespace cannot be entered")
        });
        thread.join().map_err(|_| anyhow::anyhow!("what was tried in {namespace} panicked"))?
    })
}

fn dial(from: SocketAddr, to: SocketAddr) -> Result<Option<TcpStream>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&socket, &from)?;
    let _ = connect(&socket, &to);
    let mut waiting = [PollFd::new(&socket, PollFlags::OUT)];
    let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(PATIENCE.subsec_nanos()) };
    let ready = poll(&mut waiting, Some(&patience))?;
    let answered = ready == 1 && sockopt::socket_error(&socket)?.is_ok();
    Ok(answered.then(|| TcpStream::from(socket)))
}
