//! Boots stock Debian kernels under qemu and runs cases inside them.
//!
//! The machine that builds Davy may refuse what Davy is best at (BPF-LSM); the kernels that Debian ships do not.
//! So the cases that need them run in a virtual machine without hardware support (TCG), which is slow and works
//! everywhere: a kernel out of a Debian package, an initramfs with busybox and one static program, and a serial
//! line on which that program says how each case went. `tests/debian.rs` makes ordinary test results of it.
//!
//! `tests/systemd.rs` boots them into small Debians with systemd, side by side: one in which the package goes through its
//! life (installed, enforcing, upgraded, killed, stopped, purged), one with compilers and services that does what servers do
//! under Davy's judging of code, and one that talks to others under Davy's judging of whom it talks to.

mod archive;
pub mod bypasses;
pub mod cases;
pub mod costs;
mod debian_root;
mod emulator;
pub mod everyday;
mod initramfs;
mod kernel;
mod machine;
pub mod network;
pub mod report;
pub mod service_life;
mod systemd_machine;
mod unbooted;
mod userland;

pub use debian_root::{DebianRoot, Recipe};
pub use emulator::Emulator;
pub use initramfs::{Initramfs, pack};
pub use kernel::{Kernel, Series};
pub use machine::{Boot, Clock, Machine};
pub use systemd_machine::{PROGRAM, SystemdMachine, package};
pub use unbooted::{Unbooted, judge};
pub use userland::Userland;

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Where kernels and images are kept between runs: `vm` in the workspace's target folder.
#[must_use]
pub fn store() -> PathBuf {
    target().join("vm")
}

/// Waits until no other run packs its machines into the files in [`store`], and keeps others out while it is held.
///
/// # Errors
/// When the folder or the lock in it cannot be made.
pub fn turn() -> Result<File> {
    let (store, lock) = (store(), store().join("lock"));
    let locked =
        fs::create_dir_all(&store).and_then(|()| File::create(lock)).and_then(|f| f.lock().map(|()| f));
    locked.with_context(|| format!("{} cannot be locked", store.display()))
}

/// The release binary to take into the machine, when one has been built: `DAVY_BIN`, or `target/release/davy`.
#[must_use]
pub fn davy() -> Option<PathBuf> {
    let path = std::env::var_os("DAVY_BIN").map_or_else(|| target().join("release/davy"), PathBuf::from);
    path.is_file().then_some(path)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")), PathBuf::from)
}
