use davy_model::{ActionId, FindingId, IncidentId, Prefix, Timestamp};
use serde::{Deserialize, Serialize};

/// Somebody who may send nothing for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanEntry {
    /// Whose addresses.
    pub who: Prefix,
    /// To which TCP and UDP ports of this host; none for everything that comes from there.
    pub ports: Vec<u16>,
    /// Whether the sender is told, instead of waiting for nothing.
    pub reject: bool,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Timestamp,
    /// The user who ordered it, or the finding that it was decided for, such as f12.
    pub by: String,
    /// The line of the journal, which can be undone.
    pub action: ActionId,
    /// What it was decided for.
    pub finding: Option<FindingId>,
    /// What it was decided for.
    pub incident: Option<IncidentId>,
    /// Packets that came from there since it holds; of a ban from some ports, those to others too.
    pub packets: u64,
    /// Whether the kernel holds it.
    pub held: bool,
}
