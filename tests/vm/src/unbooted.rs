//! Why there was no machine: something that it needs is not here, and its tests are skipped; or it cannot be made, and they
//! fail.

use std::error::Error;
use std::fmt;
use std::io;

use libtest_mimic::{Completion, Failed};

use crate::Boot;
use crate::report::Outcome;

/// What a machine needs and this host lacks, which no change to Davy brings: a program that is not installed, a network to
/// Debian's archive, root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Missing {}

/// Why a program did not start: it is [`Missing`], or else something is wrong with it.
pub(crate) fn not_started(program: &str, error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::NotFound {
        return Missing(format!("{program} is not installed")).into();
    }
    anyhow::Error::new(error).context(format!("{program} cannot be started"))
}

/// Why there was no boot.
#[derive(Clone, Debug)]
pub enum Unbooted {
    /// Something that it needs is not here.
    Missing(String),
    /// The machine cannot be made.
    Broken(String),
}

impl From<anyhow::Error> for Unbooted {
    /// Only what was told to be missing is; everything else is somebody's fault.
    fn from(error: anyhow::Error) -> Self {
        let text = format!("{error:#}");
        if error.downcast_ref::<Missing>().is_some() { Self::Missing(text) } else { Self::Broken(text) }
    }
}

/// A step or case as a test result; that it is skipped is printed.
///
/// # Errors
/// When it failed, or the machine could not be made.
pub fn judge(step: &str, booted: Result<&Boot, &Unbooted>) -> Result<Completion, Failed> {
    let judged = outcome(step, booted)?;
    if let Completion::Ignored { reason: Some(why) } = &judged {
        println!("SKIPPED: {step}: {why}");
    }
    Ok(judged)
}

fn outcome(step: &str, booted: Result<&Boot, &Unbooted>) -> Result<Completion, Failed> {
    match booted {
        Err(Unbooted::Missing(missing)) => Ok(Completion::ignored_with(missing)),
        Err(Unbooted::Broken(why)) => Err(why.into()),
        Ok(boot) => match boot.outcome(step) {
            Outcome::Passed => Ok(Completion::Completed),
            Outcome::Skipped(why) => Ok(Completion::ignored_with(why)),
            Outcome::Failed(why) => Err(why.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Result, anyhow};

    use super::*;

    fn unbooted(error: anyhow::Error) -> Result<Completion, Failed> {
        outcome("a case", Err(&Unbooted::from(error)))
    }

    #[test]
    fn what_is_missing_skips_and_what_is_broken_fails() {
        let missing: Result<()> = Err(Missing("qemu is not installed".to_owned()).into());
        let missing = missing.context("the emulator").context("the machine").expect_err("it is missing");
        let skipped = unbooted(missing).expect("it is skipped");
        let Completion::Ignored { reason: Some(reason) } = skipped else { panic!("a skip has its reason") };
        assert_eq!(reason, "the machine: the emulator: qemu is not installed");
        for broken in [
            anyhow!("dpkg-deb: exit status: 2: not a Debian package"),
            io::Error::from(io::ErrorKind::NotFound).into(),
            io::Error::from(io::ErrorKind::StorageFull).into(),
        ] {
            assert!(unbooted(broken).is_err());
        }
    }

    #[test]
    fn only_a_program_that_is_not_there_is_missing() {
        let started = |kind: io::ErrorKind| unbooted(not_started("cpio", kind.into()));
        assert!(started(io::ErrorKind::NotFound).is_ok());
        assert!(started(io::ErrorKind::PermissionDenied).is_err());
    }
}
