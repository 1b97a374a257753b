//! dpkg's database: `/var/lib/dpkg` (dpkg(1), deb-md5sums(5), dpkg-divert(1), update-alternatives(1)).

mod alternatives;
mod diversions;
mod files;
mod list;
mod md5sums;
mod status;

pub use alternatives::{Alternative, Choice, Mode, read_alternative};
pub use diversions::{Diversion, Diversions, read_diversions};
pub use files::{files_of, files_of_distroless};
pub use list::read_list;
pub use md5sums::{Md5sums, read_md5sums};
pub use status::{Conffile, Installed, State, apply_updates, read_status};
