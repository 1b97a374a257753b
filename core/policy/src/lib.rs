//! The policy language: a TOML text becomes a typed [`Policy`], or a list of everything that is wrong with it.
//!
//! The room is pure. It reads no file and no clock: the caller gives the text and the name to show for it, and
//! [`Policy::decide`] takes the moment it decides for. What can be written is laid down once, in `catalogue`;
//! reading, the JSON schema and the commented effective policy all follow it.

mod catalogue;
mod check;
mod decide;
mod diagnostic;
mod inbound;
mod outbound;
mod policy;
mod policy_test;
mod quantity;
mod read;
mod scan;
mod scans;
mod schema;
mod services;
mod trust;
mod wording;
mod write;

pub use davy_model::Sha256 as Digest;
pub use decide::{Circumstances, Decision, Subject};
pub use diagnostic::{Code, Diagnostic, Diagnostics};
pub use inbound::{Inbound, InboundAllow, InboundFrom, InboundGroup, InboundProtocol, MAX_INBOUND};
pub use outbound::{Outbound, OutboundAllow, OutboundGroup, OutboundTo};
pub use policy::{
    ActionKind, Allow, AllowedBy, Drill, Failsafe, Fileless, Lateral, MAX_TEXT, Mining, Origin, Policy,
    PoolLists, Pools, Protection, Scope, Sensors, StoreLimits,
};
pub use policy_test::{Expectation, Given, PolicyTest, TestOutcome, run_tests};
pub use quantity::{format_duration, format_size, parse_duration, parse_size};
pub use scan::{Scan, ScanAllow, ScanTrigger};
pub use scans::{Scans, ScansIgnore};
pub use schema::json_schema;
pub use services::{SERVICES, ServiceAllow, ServiceMode, ServiceProfile, Services};
pub use trust::{BlockedBy, Trust, TrustAllow, TrustBlock, TrustKey, TrustSource, TrustedBy};
