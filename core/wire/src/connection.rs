use davy_model::Connection;
use serde::{Deserialize, Serialize};

/// A row of the map of who talks to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionEntry {
    /// The talker's user by name, or by number where it has none here; `None` where the process is not known.
    pub user: Option<String>,
    /// The row.
    #[serde(flatten)]
    pub connection: Connection,
}
