use std::net::IpAddr;

use davy_model::{Destination, ProcessKey};
use serde::{Deserialize, Serialize};

/// What each action needs to be undone, as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "undo")]
pub(crate) enum Undo {
    /// Let a frozen tree run on.
    Thaw {
        /// The cgroup v2 folder that was frozen, below the mount.
        cgroup: Option<String>,
        /// The processes that were stopped by a signal. Only these get SIGCONT, because somebody else may have
        /// stopped others.
        stopped: Vec<ProcessKey>,
    },
    /// Put a file back.
    Restore {
        /// Its number in the quarantine.
        sealed: u64,
    },
    /// Let traffic through again.
    Unblock {
        /// Where to.
        destination: Destination,
        /// The cgroup v2 subtree that was cut off; `None` for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup: Option<String>,
    },
    /// Let what was isolated back among others.
    Rejoin {
        /// The cgroup v2 subtree below the mount; `None` for the whole host.
        cgroup: Option<String>,
        /// The administrators' sessions that stayed: the other end's address, and this host's port.
        sessions: Vec<(IpAddr, u16)>,
    },
}

impl Undo {
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(crate) fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}
