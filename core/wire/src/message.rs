use davy_model::{
    ActionId, ActionRecord, Event, FileId, Finding, FindingId, Incident, IncidentId, Pending, PendingId,
    Prefix, ProcessInfo, Ruling, ScanSource, ServiceStart, Sha256, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    AgentStatus, BanEntry, ConnectionEntry, OutboundSummary, PortsView, Quarantined, Tally, TopView,
    TrustSummary,
};

/// The protocol's version. A higher one may add fields and variants; it never changes the meaning of one.
pub const VERSION: u32 = 1;

/// The longest line either side accepts, in bytes.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// A line from a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of the client.
    pub version: u32,
    /// What it wants.
    #[serde(flatten)]
    pub body: RequestBody,
}

/// A question or a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestBody {
    /// A question; changes nothing.
    Query(Query),
    /// A change; taken on the change socket only.
    Command(Command),
}

/// Questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Query {
    /// The agent's state.
    Status,
    /// The busiest process trees now.
    Top,
    /// Recorded events, newest last.
    Events {
        /// Not before.
        since: Option<Timestamp>,
        /// At most so many of the newest.
        limit: u32,
        /// Only of this pid.
        pid: Option<u32>,
        /// Only these kinds, by their JSON names; empty means all.
        kinds: Vec<String>,
        /// Go on with new ones as they come, until the client hangs up.
        follow: bool,
    },
    /// Findings, newest last.
    Findings {
        /// Not before.
        since: Option<Timestamp>,
        /// At most so many of the newest.
        limit: u32,
        /// Go on with new ones as they come.
        follow: bool,
    },
    /// One finding.
    Finding {
        /// Which.
        id: FindingId,
    },
    /// Incidents, newest last, without their timelines.
    Incidents {
        /// Not before.
        since: Option<Timestamp>,
        /// At most so many of the newest.
        limit: u32,
    },
    /// One incident with everything.
    Incident {
        /// Which.
        id: IncidentId,
    },
    /// Who talks to whom, seen last last.
    Connections {
        /// Last seen not before.
        since: Option<Timestamp>,
        /// At most so many of those seen last.
        limit: u32,
        /// Only of this systemd service, or of the container whose id begins so.
        service: Option<String>,
        /// Only of this program: its path, or the last part of it.
        process: Option<String>,
        /// Only with other ends outside, or only with others.
        outside: Option<bool>,
    },
    /// The journal of actions, newest last.
    Actions {
        /// At most so many of the newest.
        limit: u32,
    },
    /// What lies in quarantine, oldest first.
    Quarantine,
    /// The content of a file in quarantine, in pieces; on the change socket only, since it may be anybody's secret.
    QuarantineContent {
        /// Which.
        number: u64,
    },
    /// Which code may run, in numbers.
    Trust,
    /// Code that was refused or would have been, the oddest first.
    TrustPending {
        /// At most so many.
        limit: u32,
    },
    /// What services started that their profiles do not have, the odd first.
    ServiceStarts {
        /// At most so many.
        limit: u32,
    },
    /// Who looks for open ports, those against whom most speaks first.
    Scans {
        /// At most so many.
        limit: u32,
    },
    /// Who may connect to what, in numbers.
    Outbound,
    /// What is decided about a content now.
    TrustRuling {
        /// The content.
        sha256: Sha256,
        /// Its path, for folders that are allowed as a whole.
        path: String,
        /// Whether it has no file.
        nameless: bool,
    },
    /// Who may reach which port, and who did.
    Ports,
    /// Who is banned, those that were banned last last.
    Bans,
    /// What is known of a pid.
    Process {
        /// Which.
        pid: u32,
    },
}

impl Query {
    /// Whether only who may change things may ask.
    #[must_use]
    pub const fn is_guarded(&self) -> bool {
        matches!(self, Self::QuarantineContent { .. })
    }
}

/// Changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Command {
    /// Undo everything done for an incident.
    UndoIncident {
        /// Which.
        id: IncidentId,
    },
    /// Undo one action.
    UndoAction {
        /// Which.
        id: ActionId,
    },
    /// Act on an incident as though the policy said so.
    Act {
        /// On which.
        id: IncidentId,
        /// What: `freeze`, `kill`, `quarantine`, `cut`.
        actions: Vec<String>,
    },
    /// Take a file away, kept sealed, whatever the policy says.
    Quarantine {
        /// Where it lies, for people and to find it; absolute.
        path: String,
        /// What it is; nothing else is taken away, whatever lies there by then.
        file: FileId,
        /// Why, for the journal.
        reason: String,
    },
    /// Put a file in quarantine back as it was.
    QuarantineRestore {
        /// Which.
        number: u64,
    },
    /// Forget a file in quarantine for good.
    QuarantineDelete {
        /// Which.
        number: u64,
    },
    /// Break-glass: observe only, for a time.
    Disarm {
        /// For how many seconds.
        seconds: u32,
    },
    /// End a disarm before its time.
    Arm,
    /// Let nothing out and nobody in for a time, but for administrators' sessions and what is named.
    Isolate {
        /// The cgroup v2 subtree below the mount; `None` for the whole host.
        cgroup: Option<String>,
        /// Networks that stay, such as `10.0.0.0/8`.
        keep: Vec<Prefix>,
        /// For how many seconds.
        seconds: u32,
        /// Also when no administrator is logged in over the network.
        anyway: bool,
    },
    /// End every isolation before its time.
    Rejoin,
    /// Enforce every protection inside one cgroup for a time, so that a drill or a trial acts for real without
    /// touching the rest of the host. Ends by itself.
    Rehearse {
        /// The cgroup v2 path below the mount, such as `/davy-drill-4711`.
        cgroup: String,
        /// For how many seconds; zero ends it now.
        seconds: u32,
        /// Whether code that nobody vouches for is refused there too; what the cgroup is to run must then be vouched for.
        #[serde(default)]
        code: bool,
        /// Where code is asked for instead of judged in the kernel: the root of a mount that is nowhere in the agent's own
        /// mount table, such as `/proc/4711/fd/9`. Only what is reached through it is asked for.
        #[serde(default)]
        mount: Option<String>,
    },
    /// What came of a drill, for `davy status`; longer lists and texts than an agent keeps are cut.
    Drilled(Tally),
    /// Let a content run that waits.
    TrustApprove {
        /// Its number.
        id: PendingId,
        /// For how many seconds; `None` for good.
        seconds: Option<u64>,
    },
    /// Let a content run that was not seen yet.
    TrustApproveContent {
        /// The content.
        sha256: Sha256,
        /// Where it lies now, for people.
        path: String,
        /// For how many seconds; `None` for good.
        seconds: Option<u64>,
    },
    /// Let everything run that waits and is not odd.
    TrustAccept,
    /// Take back what was approved or learned.
    TrustWithdraw {
        /// The content.
        sha256: Sha256,
    },
    /// Let nothing in from some addresses for a time.
    Ban {
        /// Whose addresses.
        who: Prefix,
        /// To which TCP and UDP ports; none for everything that comes from there.
        ports: Vec<u16>,
        /// Whether the sender is told, instead of waiting for nothing.
        reject: bool,
        /// For how many seconds.
        seconds: u32,
    },
    /// Let in again whoever is banned within this network; everybody where there is none.
    Unban {
        /// The network.
        who: Option<Prefix>,
    },
    /// Close every port but those that the policy opens, for a trial.
    PortsApply {
        /// Within how many seconds it must be confirmed, else it undoes itself.
        seconds: u32,
        /// Whether entries that open nothing, because nobody listens there, are let pass.
        unused: bool,
        /// Also when an administrator who is logged in now could not log in again.
        anyway: bool,
    },
    /// Keep closed what was closed for a trial.
    PortsConfirm,
    /// Open every port again.
    PortsOpen,
    /// Read the policy again.
    Reload,
    /// Stop the agent and take its enforcement away.
    Stop,
}

/// A line from the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply", content = "data")]
#[allow(clippy::large_enum_variant)]
pub enum Reply {
    /// Answer to [`Query::Status`].
    Status(AgentStatus),
    /// Answer to [`Query::Top`].
    Top(TopView),
    /// One event.
    Event(Event),
    /// One finding.
    Finding(Finding),
    /// One incident.
    Incident(Incident),
    /// One action.
    Action(ActionRecord),
    /// One row of the map of who talks to whom.
    Connection(ConnectionEntry),
    /// One process.
    Process(ProcessInfo),
    /// One file in quarantine.
    Quarantined(Quarantined),
    /// Something in the quarantine that cannot be read, in words.
    QuarantineFault(String),
    /// The next bytes of a content, in base64 with padding.
    Content(String),
    /// Answer to [`Query::Trust`].
    Trust(TrustSummary),
    /// One content that waits.
    Pending(Pending),
    /// One command that a service started.
    ServiceStart(ServiceStart),
    /// Answer to [`Query::Ports`].
    Ports(PortsView),
    /// Somebody who is banned.
    Ban(BanEntry),
    /// One source that looks for open ports, or may.
    ScanSource(ScanSource),
    /// Answer to [`Query::Outbound`].
    Outbound(OutboundSummary),
    /// Answer to [`Query::TrustRuling`].
    Ruling(Ruling),
    /// A command was carried out; a sentence for people.
    Done(String),
    /// Nothing more comes.
    End,
    /// It could not be done.
    Error {
        /// For programs.
        code: ErrorCode,
        /// For people: what was expected and what to do.
        message: String,
    },
}

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The line is not a request of this protocol.
    Malformed,
    /// The version is not spoken here.
    Version,
    /// There is no such thing.
    NotFound,
    /// It is not allowed on this socket or to this user.
    Forbidden,
    /// It was tried and failed.
    Failed,
    /// The request's values make no sense.
    Invalid,
}
