//! What goes over the agent's two control sockets: one JSON text a line, a request and then its answers. And, in [`worker`],
//! what goes between the agent and its unprivileged workers.
//!
//! The read socket answers everything in [`Query`]; the change socket takes [`Command`]s too and is root's alone.
//! Every message names the protocol version; an agent answers a version it does not know with [`Reply::Error`].

mod bans;
mod connection;
mod message;
mod outbound;
mod ports;
mod sealed;
mod status;
mod trust;
pub mod worker;

pub use bans::BanEntry;
pub use connection::ConnectionEntry;
pub use message::{Command, ErrorCode, MAX_LINE, Query, Reply, Request, RequestBody, VERSION};
pub use outbound::{OutboundName, OutboundSummary};
pub use ports::{ListeningPort, OpenTo, PortOwner, PortSource, PortsState, PortsView};
pub use sealed::Quarantined;
pub use status::{
    AgentStatus, BusyTree, DrillOutcome, DrillResult, DropCount, IsolatedStatus, PolicySummary, Proof,
    StoreStatus, Tally, TopView, TreeFlow, WorkerStatus,
};
pub use trust::{TrustSummary, TrustedBy};
