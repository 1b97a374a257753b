//! TCP and UDP sockets over IPv4 and IPv6, with their owners: sock_diag(7) in every network namespace Davy can
//! enter, and `/proc/PID/net/tcp` and its like where sock_diag is refused.

mod diag;
mod namespaces;
mod owners;
mod table;

use std::net::{IpAddr, SocketAddr};

use davy_model::{FlowKey, FlowOpen, FlowVolume, ProcessKey, Transport};

pub use namespaces::{MAX_NAMESPACES, Namespace};
pub use owners::Owners;

use crate::procfs::ProcFs;

/// At most so many sockets are listed over all namespaces.
pub const MAX_SOCKETS: usize = 262_144;

/// One socket, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The kernel's cookie. Where only /proc's tables could be read, which do not tell it, the inode with the highest
    /// bit set, which no cookie has.
    pub flow: FlowKey,
    /// TCP or UDP.
    pub transport: Transport,
    /// This host's end; IPv4-mapped addresses are given as IPv4.
    pub local: SocketAddr,
    /// The other end; unspecified for listening and unconnected sockets.
    pub remote: SocketAddr,
    /// Whether it listens (TCP) or is bound and unconnected (UDP).
    pub listening: bool,
    /// What went over it, for TCP; zeros for UDP, which the kernel does not count.
    pub volume: FlowVolume,
    /// Its inode in sockfs; zero once no process holds it.
    pub inode: u64,
    /// Who holds it open; empty where unknown.
    pub owners: Vec<ProcessKey>,
    /// The user who made it.
    pub uid: u32,
    /// The network namespace's inode; zero where unknown.
    pub namespace: u64,
    /// What the kernel calls it by, for [`destroy`]; `None` where only /proc's tables could be read.
    id: Option<diag::Identity>,
}

impl Socket {
    /// The beginning of its flow, as an event tells it.
    #[must_use]
    pub fn opening(&self, accepted: bool) -> FlowOpen {
        FlowOpen {
            flow: self.flow,
            transport: self.transport,
            local: self.local,
            remote: self.remote,
            accepted,
        }
    }
}

/// Why a socket could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// It is not known by its kernel identity.
    #[error("the socket was read from /proc/net, which does not name it well enough to end it")]
    Unnamed,
    /// Its network namespace is gone or cannot be entered.
    #[error("network namespace {0} cannot be entered; that needs CAP_SYS_ADMIN")]
    Namespace(u64),
    /// The kernel refused.
    #[error("sock_diag destroy: {0}; it needs CAP_NET_ADMIN and CONFIG_INET_DIAG_DESTROY")]
    Refused(std::io::Error),
}

/// Every socket in every network namespace Davy can see, with its owners; at most [`MAX_SOCKETS`].
#[must_use]
pub fn list() -> Vec<Socket> {
    let proc = ProcFs::host();
    let mut sockets = list_unowned(proc);
    let mut owners = Owners::new();
    owners.fill(proc, &mut sockets);
    sockets
}

/// Every socket, with empty owners: without the walk over all descriptors that owners cost.
#[must_use]
pub fn list_unowned(proc: &ProcFs) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for namespace in namespaces::all(proc) {
        let room = MAX_SOCKETS.saturating_sub(sockets.len());
        let found = namespace.run(move |_| diag::dump(room));
        match found {
            Some(Ok(found)) => {
                sockets.extend(found.into_iter().map(|s| Socket { namespace: namespace.inode, ..s }))
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "sock_diag is refused, reading /proc/net");
                sockets.extend(table::read(proc, &namespace, room));
            }
            None => sockets.extend(table::read(proc, &namespace, room)),
        }
    }
    sockets
}

/// Whether sock_diag lists sockets here, tried.
///
/// # Errors
/// What the kernel said.
pub fn probe_list() -> std::io::Result<()> {
    diag::dump(MAX_SOCKETS).map(|_| ())
}

/// Ends a socket at once (SOCK_DESTROY, RFC 9293 ABORT): both ends see a reset. The socket is named by addresses and
/// cookie, so that a later one with the same addresses is never hit. A socket that is already gone counts as ended.
///
/// # Errors
/// When it cannot be named, its namespace cannot be entered, or the kernel refuses.
pub fn destroy(socket: &Socket) -> Result<(), DestroyError> {
    let id = socket.id.ok_or(DestroyError::Unnamed)?;
    let proc = ProcFs::host();
    let own = namespaces::own(proc);
    let outcome = if socket.namespace == 0 || socket.namespace == own.inode {
        diag::destroy(&id)
    } else {
        let namespace = namespaces::all(proc).into_iter().find(|n| n.inode == socket.namespace);
        let outcome = namespace.and_then(|n| n.run(move |_| diag::destroy(&id)));
        outcome.ok_or(DestroyError::Namespace(socket.namespace))?
    };
    match outcome {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOENT.raw_os_error()) => Ok(()),
        other => other.map_err(DestroyError::Refused),
    }
}

/// An IPv4-mapped address as IPv4.
pub(crate) fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether there is no other end.
pub(crate) fn is_unconnected(remote: &SocketAddr) -> bool {
    remote.ip().is_unspecified()
}
