use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{FileId, FindingId, IncidentId, Prefix, ProcessKey, Timestamp};

/// The number of an action in one agent's journal, counted from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionId(pub u64);

/// Where traffic goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Destination {
    /// Address; IPv4-mapped addresses are given as IPv4.
    pub address: IpAddr,
    /// Port; zero means every port.
    pub port: u16,
}

/// Something Davy can do to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Action {
    /// Tell people; touch nothing.
    Alert,
    /// Stop the tree from running, until undone.
    Freeze {
        /// Its root.
        root: ProcessKey,
        /// All of it as known now; the responder looks again for children.
        tree: Vec<ProcessKey>,
    },
    /// End the tree.
    Kill {
        /// Its root.
        root: ProcessKey,
        /// All of it as known now; the responder looks again for children.
        tree: Vec<ProcessKey>,
    },
    /// Take the program's file away, kept sealed.
    Quarantine {
        /// The path for people.
        path: String,
        /// The file's identity; the responder refuses when the path leads elsewhere.
        file: FileId,
        /// A process that runs it, for files without a name.
        process: Option<ProcessKey>,
    },
    /// Cut the flows to a destination and allow no new ones for a time.
    Cut {
        /// Where to.
        destination: Destination,
        /// The cgroup v2 subtree that is cut off from it, below the mount; `None` for all that the policy's scope reaches. Who only says
        /// that something is a pool closes it to itself alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup: Option<String>,
        /// For how many seconds; zero means until undone.
        seconds: u32,
    },
    /// Let nothing out and nobody in, but for administrators' sessions and what is named.
    Isolate {
        /// The cgroup v2 subtree that is cut off, below the mount; `None` for the whole host.
        cgroup: Option<String>,
        /// Networks that stay reachable, and that reach the host.
        keep: Vec<Prefix>,
        /// For how many seconds; never zero, because it must end when nobody can reach the host any more.
        seconds: u32,
    },
    /// Let nothing in from some addresses for a time.
    Ban {
        /// Whose addresses.
        who: Prefix,
        /// To which TCP and UDP ports of this host; none for everything that comes from there.
        ports: Vec<u16>,
        /// Whether the sender is told, instead of waiting for nothing.
        reject: bool,
        /// For how many seconds; never zero.
        seconds: u32,
    },
    /// Close every port of this host but those that the policy opens.
    ClosePorts {
        /// How many entries of the policy open something.
        entries: u32,
        /// Within how many seconds it had to be confirmed, else it undid itself.
        seconds: u32,
    },
}

/// An action that a guard would like to see done. Only the arbiter decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// What for.
    pub finding: FindingId,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// How far an action got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionState {
    /// Not done, because the protection observes: it says what would have been done.
    WouldHave,
    /// Written down, not yet done.
    Intended,
    /// Done.
    Done,
    /// Tried and not done; the record says why.
    Failed,
    /// Refused by a failsafe; the record says which.
    Refused,
    /// Done and undone.
    Undone,
    /// Done, and its time ran out.
    Expired,
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// Its number.
    pub id: ActionId,
    /// When it was written down.
    pub time: Timestamp,
    /// When its state last changed.
    pub changed: Timestamp,
    /// What for.
    pub incident: Option<IncidentId>,
    /// What for.
    pub finding: Option<FindingId>,
    /// What.
    #[serde(flatten)]
    pub action: Action,
    /// How far it got.
    pub state: ActionState,
    /// Why it failed or was refused, or what was done in numbers.
    pub note: String,
    /// Whether undo can still bring back what was there.
    pub undoable: bool,
    /// What undo needs, as the responder wrote it (JSON); empty when there is nothing.
    pub undo: String,
}

impl ActionRecord {
    /// Whether it was done to a process of Davy's own, to see whether it is done. Everything else is done for a finding, but
    /// for what an administrator ordered: a file taken away, an isolation, a ban, ports closed; no canary is.
    #[must_use]
    pub const fn is_canary(&self) -> bool {
        let ordered = matches!(
            self.action,
            Action::Quarantine { .. }
                | Action::Isolate { .. }
                | Action::Ban { .. }
                | Action::ClosePorts { .. }
        );
        self.finding.is_none() && self.incident.is_none() && !ordered
    }
}
