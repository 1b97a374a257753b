//! A network namespace of one's own (network_namespaces(7)).
#![allow(unsafe_code)]

use std::path::Path;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Leaves the network behind: from here on this process has a stack with nothing but a loopback that is down.
///
/// # Errors
/// Without CAP_SYS_ADMIN, or where the kernel has no network namespaces.
pub(crate) fn leave_network() -> anyhow::Result<()> {
    // SAFETY: only unsharing the file table or the signal mask could break what Rust relies on; this does neither.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.context("make a network namespace")
}

/// Enters the network namespace that this path stands for.
///
/// # Errors
/// Without CAP_SYS_ADMIN, or when the path is no namespace.
pub(crate) fn enter_network(path: &Path) -> anyhow::Result<()> {
    let what = || format!("enter the network namespace {}", path.display());
    let namespace =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).with_context(what)?;
    let kind = LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(kind))
        .with_context(what)
}
