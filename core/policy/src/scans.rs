//! What the policy says of who looks for open ports.

use davy_model::{Mode, PortRange, Prefix, Timestamp};

use crate::check::{Node, Value};
use crate::read::Fields;

/// Who looks for open ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scans {
    /// Off or observe: whether packets are looked at.
    pub mode: Mode,
    /// Ports that nobody should touch: one probe there is a scan.
    pub decoy_ports: Vec<PortRange>,
    /// Who may look for ports.
    pub ignore: Vec<ScansIgnore>,
}

impl Default for Scans {
    fn default() -> Self {
        Self { mode: Mode::Observe, decoy_ports: Vec::new(), ignore: Vec::new() }
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
        ignore: ignore.iter().filter_map(entry).collect(),
    }
}
