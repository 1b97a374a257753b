//! What the policy says of who looks for open ports.

use std::time::Duration;

use davy_model::{Mode, PortRange, Prefix, Timestamp};

use crate::check::{Node, Value};
use crate::read::Fields;

/// Who looks for open ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scans {
    /// Whether packets are looked at, and whether whoever is proven to scan is banned.
    pub mode: Mode,
    /// Ports that nobody should touch: one probe there is a scan.
    pub decoy_ports: Vec<PortRange>,
    /// For how long whoever is proven to scan is banned the first time.
    pub ban_for: Duration,
    /// Who may look for ports.
    pub ignore: Vec<ScansIgnore>,
}

impl Default for Scans {
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            decoy_ports: Vec::new(),
            ban_for: Duration::from_secs(3600),
            ignore: Vec::new(),
        }
    }
}

/// A network that may look for ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScansIgnore {
    /// Which.
    pub network: Prefix,
    /// Why, for whoever reads the policy later.
    pub reason: String,
    /// The first moment the entry no longer holds; `None` means for ever.
    pub until: Option<Timestamp>,
}

impl Scans {
    /// The networks that may look for ports at this moment.
    pub fn ignored(&self, now: Timestamp) -> impl Iterator<Item = Prefix> {
        let holds = move |entry: &&ScansIgnore| entry.until.is_none_or(|until| now < until);
        self.ignore.iter().filter(holds).map(|entry| entry.network)
    }
}

/// The section `[scans]` and its list.
pub(crate) fn scans(root: &mut Node) -> Scans {
    let ignore = Fields::all(root.child("scans"), "ignore");
    let section = Fields::only(root, "scans");
    let entry = |fields: &Fields| {
        let Some(Value::Network(network)) = fields.get("network") else { return None };
        Some(ScansIgnore { network: *network, reason: fields.text("reason")?, until: fields.until("until") })
    };
    let decoy_ports = match section.get("decoy_ports") {
        Some(Value::Ports(ports)) => ports.clone(),
        _ => Vec::new(),
    };
    Scans {
        mode: section.mode("mode", Scans::default().mode),
        decoy_ports,
        ban_for: section.duration("ban_for", Scans::default().ban_for),
        ignore: ignore.iter().filter_map(entry).collect(),
    }
}
