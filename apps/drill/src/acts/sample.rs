//! Writes what a scan must find, and waits: a script that does nothing, with a mark in it that a rule of Davy's own looks for.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use anyhow::Context;

use super::steady;

/// The sample's name, beside the act's program.
pub(crate) const NAME: &str = "davy-drill-sample.sh";

/// The mark in its parts: as a whole it would have scans find Davy.
const MARK: [&str; 5] = ["davy", "drill", "inert", "sample", "5b1e0a3f9c7d4e62"];

/// Writes it and lives on, so that it is seen to be left alone.
pub(super) fn run(until: Instant) -> anyhow::Result<()> {
    let sample = super::own_copy()?.with_file_name(NAME);
    let text = format!("#!/bin/sh\n# {}\nexit 0\n", MARK.join("-"));
    fs::write(&sample, text).with_context(|| format!("write {}", sample.display()))?;
    fs::set_permissions(&sample, Permissions::from_mode(0o755)).context("make the sample executable")?;
    steady();
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
    Ok(())
}
