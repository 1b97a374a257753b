use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::archive::Unpacked;
use crate::unbooted::Missing;

/// The version in bookworm's backports whose emulated CPU is good enough. Debian 12's own 7.2 loses a guest in one
/// boot of three (flags come back wrong from an interrupt); 10.0 lost none of twelve.
const WANTED: &str = "10.0";

/// A qemu for x86-64.
#[derive(Clone, Debug)]
pub struct Emulator {
    program: PathBuf,
    firmware: Vec<PathBuf>,
}

impl Emulator {
    /// The installed one when it is recent, else a recent one from Debian's archive, unpacked in `store`. It runs
    /// with the libraries that the installed package brought.
    ///
    /// # Errors
    /// When qemu is not installed, or neither is recent.
    pub fn obtain(store: &Path) -> Result<Self> {
        let installed = Self { program: PathBuf::from("qemu-system-x86_64"), firmware: Vec::new() };
        let version = installed.major().ok_or_else(|| {
            Missing("qemu-system-x86_64 (package qemu-system-x86) is not installed".to_owned())
        })?;
        if version >= 9 {
            return Ok(installed);
        }
        let folder = Unpacked { store, name: "qemu", suite: "bookworm-backports" }.obtain(|apt| {
            let version = apt.field("qemu-system-x86", WANTED, "Version")?;
            let fixed = ["qemu-system-x86", "qemu-system-data"].map(|package| format!("{package}={version}"));
            Ok([&fixed[..], &["seabios".to_owned()]].concat())
        })?;
        let firmware = ["usr/share/qemu", "usr/share/seabios"].map(|place| folder.join(place));
        let unpacked =
            Self { program: folder.join("usr/bin/qemu-system-x86_64"), firmware: firmware.to_vec() };
        ensure!(unpacked.major().is_some(), "qemu {WANTED} from Debian's backports does not start here");
        Ok(unpacked)
    }

    /// The start of a command line: the program, and where its firmware lies.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for place in &self.firmware {
            command.arg("-L").arg(place);
        }
        command
    }

    fn major(&self) -> Option<u32> {
        let output = Command::new(&self.program).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.strip_prefix("QEMU emulator version ")?.split('.').next()?.parse().ok()
    }
}
