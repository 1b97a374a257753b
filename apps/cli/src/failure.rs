//! What went wrong, what to do about it, and the exit code it ends with.

use std::process::ExitCode;

use davy_wire::ErrorCode;

/// Exit codes, stable and documented in `docs/reference/cli.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line or its values make no sense.
    Usage = 2,
    /// No agent is running.
    NoAgent = 3,
    /// There is no such thing.
    NotFound = 4,
    /// This user may not.
    Forbidden = 5,
    /// The policy has faults.
    PolicyFaults = 6,
    /// Not all drills held.
    NotHeld = 7,
    /// The agent was ordered to stop, and is not to be started again by itself.
    Ordered = 8,
    /// A scan found something.
    Found = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// Every one.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 10] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NoAgent,
        Self::NotFound,
        Self::Forbidden,
        Self::PolicyFaults,
        Self::NotHeld,
        Self::Ordered,
        Self::Found,
    ];

    /// Its name in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NoAgent => "no_agent",
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::PolicyFaults => "policy_faults",
            Self::NotHeld => "not_held",
            Self::Ordered => "ordered",
            Self::Found => "found",
        }
    }

    /// The exit code for an agent's refusal.
    pub(crate) fn of_refusal(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::Forbidden => Self::Forbidden,
            ErrorCode::Invalid => Self::Usage,
            ErrorCode::Malformed | ErrorCode::Version | ErrorCode::Failed => Self::Failed,
        }
    }
}

/// A verb could not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How the command ends.
    pub(crate) exit: Exit,
    /// What went wrong, naming the thing it went wrong with.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure with its message.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// The same with advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::Done } else { Exit::Failed };
        Self::new(exit, format!("cannot write the answer: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_exit_code() {
        let reference = include_str!("../../../docs/reference/cli.md");
        for exit in Exit::ALL {
            let row = format!("| {} | `{}` |", exit as u8, exit.name());
            assert!(reference.contains(&row), "docs/reference/cli.md lacks {row}");
        }
    }
}
