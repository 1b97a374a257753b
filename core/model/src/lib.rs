//! The words every room of Davy speaks: processes, flows, events, evidence, findings, incidents, actions and
//! the tiers protections run in.
//!
//! Nothing here does I/O, reads a clock or decides anything; values are built by the host rooms and the engines.

mod action;
mod capture;
mod code;
mod confinement;
mod connection;
mod container;
mod dialogue;
mod door;
mod event;
mod file;
mod finding;
mod flow;
mod inbound;
mod incident;
mod lateral;
mod memory;
mod mount;
mod outbound;
mod port;
mod port_scan;
mod prefix;
mod process;
mod sample;
mod scan;
mod service;
mod technique;
mod tier;
mod time;
mod trust;

pub use action::{Action, ActionId, ActionRecord, ActionState, Destination, Proposal};
pub use capture::{Capture, Captured, FlowReading, Said};
pub use code::{CodeJudgement, CodeKind, CodeOutcome, CodeReason, NotSha256, Sha256};
pub use confinement::Confinement;
pub use connection::{Connection, Heading, Naming, Peer, Place, Talker, service_of, unit_of};
pub use container::container_of;
pub use dialogue::{Dialect, Dialogue, Part, Speech};
pub use door::{AddressRange, Door};
pub use event::{CodeAct, Event, EventKind, ProbeRequest};
pub use file::{FileAct, FileChange, FileId, PersistencePlace};
pub use finding::{Evidence, Finding, FindingId, FindingKind, Severity, Signal};
pub use flow::{
    Direction, FlowAggregate, FlowChunk, FlowClose, FlowKey, FlowOpen, FlowVolume, NameAnswer, Transport,
};
pub use inbound::InboundRefusal;
pub use incident::{Incident, IncidentId, IncidentState, TimelineEntry, TreeNode};
pub use lateral::{LateralMove, LateralReach, Mover};
pub use memory::{GpuUse, MemoryShape};
pub use mount::{MAX_MOUNTS, Mount, parse_mountinfo};
pub use outbound::{
    CGROUP_PATH_MAX, OUTBOUND_RULES, OutboundAttempt, OutboundMode, OutboundModes, OutboundProtocol,
    OutboundTables, RuleSet, UNIT_NAME_MAX, name_of_reversed, reversed_name, template_of,
};
pub use port::{NotAPortRange, PortRange};
pub use port_scan::{PacketShape, PortNews, PortProbeKind, PortSight, ProbeKinds, ScanSource};
pub use prefix::{NotAPrefix, Prefix, mapped_octets};
pub use process::{Credentials, ExecImage, Exit, ImageKind, Namespaces, ProcessInfo, ProcessKey};
pub use sample::{SampleBatch, ThreadSample};
pub use scan::{ProgramFacts, ScanHit, ScanMatch, ScanOccasion, ScanReport, SetAside, Wallet};
pub use service::{ClassSet, ProgramClass, ServiceBreach, ServiceStart};
pub use technique::Technique;
pub use tier::{Capability, Mode, Probe, ProtectionStatus, Tier};
pub use time::Timestamp;
pub use trust::{Oddity, Pending, PendingId, Rank, Ruling, Source, Voucher};
