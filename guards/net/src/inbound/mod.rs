//! Who may reach which port of this host: what the policy says becomes a [`Plan`], and the plan decides of each connection and says
//! which doors a firewall has to leave open. What was seen at each port is counted in [`Usage`].

mod lists;
mod plan;
mod told;
mod usage;

pub use lists::{MAX_NETWORKS, read_networks};
pub use plan::{Entry, Listener, MAX_PLAN_NETWORKS, Plan, Verdict};
pub use told::Told;
pub use usage::{PortKey, PortUse, SourceUse, Usage};
