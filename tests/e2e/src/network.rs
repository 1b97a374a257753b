//! Two network namespaces joined by a cable: a host for an agent, and everybody else.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{TwoHosts, davy};

/// How long a connection that is not answered is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Which of the two hosts is which.
const AGENTS: usize = 0;
const OTHERS: usize = 1;

/// Two hosts that are a test's own: one for an agent, one with the addresses of everybody else.
#[derive(Debug)]
pub struct Network(TwoHosts);

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
    /// As [`TwoHosts::make`].
    pub fn make() -> Result<Self> {
        let with = |address: &str, length: u8| format!("{address}/{length}");
        let others = [with(Self::NEAR, 24), with(Self::FAR, 32)];
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        Ok(Self(TwoHosts::make(&[&with(Self::HOST, 24)], &others)?))
    }

    /// A command that runs another at the host; what is added to it is what it runs.
    #[must_use]
    pub fn command(&self) -> Command {
        self.0.command(AGENTS)
    }

    /// A command that starts an agent at the host, with a BPF file system of its own, so that nothing it pins is on the machine's.
    /// `stage` is a shell's line for the mount namespace that it is alone in; its arguments are to be added.
    #[must_use]
    pub fn agent(&self, stage: &str) -> Command {
        let mut command = self.command();
        command.args(["unshare", "--mount", "--propagation", "private", "sh", "-c"]);
        command
            .arg(format!("mount -t bpf davy-e2e /sys/fs/bpf && {stage} && exec \"$@\""))
            .arg("sh")
            .arg(davy());
        command
    }

    /// A command that runs another at the host of everybody else.
    #[must_use]
    pub fn elsewhere(&self) -> Command {
        self.0.command(OTHERS)
    }

    /// Listens at a port of the host, in the test's own process.
    ///
    /// # Errors
    /// When somebody does already.
    pub fn listen(&self, address: &str, port: u16) -> Result<TcpListener> {
        Ok(within(&self.0.namespace(AGENTS), || TcpListener::bind((address, port)))??)
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
        within(&self.0.namespace(OTHERS), || dial(SocketAddr::new(from, 0), SocketAddr::new(to, port)))?
    }
}

/// Runs something in a thread that has entered a network namespace, and ends with it.
fn within<T: Send>(namespace: &Path, task: impl FnOnce() -> T + Send) -> Result<T> {
    let handle = File::open(namespace)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let entered = move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network));
            entered.map(|()| task()).context("the network namespace cannot be entered")
        });
        thread.join().map_err(|_| anyhow::anyhow!("what was tried in {} panicked", namespace.display()))?
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
