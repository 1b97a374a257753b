//! Davy's behaviour engine: events and samples in, findings and incidents out.
//!
//! It decides without I/O and without a clock: whoever drives it gives it what the sensors saw and asks it to conclude. Evidence is
//! gathered per unit (a program with everything it forked), each piece with a weight in bits; the weights, the prior and what a
//! verdict needs stand in `weights` and `case`, each signal in a module of its own.
//!
//! ```
//! use davy_detect::{Detector, Lists, Settings};
//! use davy_model::Timestamp;
//!
//! let mut detector = Detector::new(Settings::default(), Lists::builtin());
//! // for each event: detector.observe(&event); each sweep: detector.sample(&batch); about once a second:
//! let conclusions = detector.conclude(Timestamp::from_secs(1));
//! assert!(conclusions.findings.is_empty());
//! ```

mod acts;
mod campaign;
mod case;
mod command_line;
mod compute_shape;
mod conclusions;
mod detector;
mod fileless;
mod findings;
mod flow_table;
mod flow_watch;
mod gpu;
mod incident;
mod interpreters;
mod joins;
mod known_names;
mod lateral;
mod ledger;
mod malware;
mod masquerade;
mod memory_shape;
mod names;
mod noise_handshake;
mod odd_parent;
mod one_liner;
mod persistence;
mod places;
mod pool_contact;
mod pool_list;
mod pool_shape;
mod preparation;
mod process_table;
mod recent;
mod rounding_mode;
mod service;
mod settings;
mod tampering;
mod thread_table;
mod trust;
mod weights;

pub use conclusions::{Conclusions, Slotted, TableSizes, TreeView};
pub use detector::Detector;
pub use flow_table::{Flow, FlowTable, Message};
pub use interpreters::{Given, Interpreters};
pub use known_names::KnownNames;
pub use pool_list::{LineError, ListKind, Lists, Match};
pub use pool_shape::{PoolShape, pool_shape};
pub use process_table::{PastProgram, Process, ProcessTable};
pub use settings::Settings;
