//! What the guest says on the serial line: one JSON text a line, after a mark that the kernel's own messages do
//! not begin with.

use serde::{Deserialize, Serialize};

use crate::costs::Count;

/// Begins every line that is meant for the harness.
pub const MARK: &str = "@davy ";

/// One thing the guest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum Line {
    /// User space runs.
    Up {
        /// The kernel's release.
        kernel: String,
    },
    /// A case begins.
    Begin {
        /// Its name.
        case: String,
    },
    /// A case ended.
    End {
        /// Its name.
        case: String,
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
        /// Milliseconds it took inside the machine.
        ms: u64,
    },
    /// A way to make code run was tried in an enforcing scope.
    Tried {
        /// Which.
        what: String,
        /// What came of it.
        answer: Answer,
    },
    /// The bench counted a load.
    Counted(Count),
    /// All cases ended; the machine goes down.
    Done,
}

/// What came of an attempt to make code run that nobody vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was refused.
    Refused,
    /// It ran: a published limit.
    Runs,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "why")]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Not as it should: the end of what it printed.
    Failed(String),
    /// It could not be tried: the feature that is missing.
    Skipped(String),
}

/// The exit code by which a case says that it could not be tried, as automake has it.
pub const SKIP_CODE: i32 = 77;

impl Line {
    /// The line as it goes over the wire.
    #[must_use]
    pub fn print(&self) -> String {
        // Serialising these types cannot fail: they hold only strings and numbers.
        format!("{MARK}{}", serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads a line of the console; `None` for one that is not meant for the harness.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        // A kernel message may have left the cursor anywhere.
        let start = line.find(MARK)? + MARK.len();
        serde_json::from_str(line[start..].trim_end()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_survives_the_console() {
        let line = Line::End {
            case: "lsm_probe".into(),
            outcome: Outcome::Failed("thread panicked:\n\"quoted\"\tend".into()),
            ms: 12,
        };
        assert_eq!(Line::parse(&format!("[   1.5] noise {}\r", line.print())), Some(line));
        assert_eq!(Line::parse("[    0.0] Linux version 6.1"), None);
        assert_eq!(Line::parse("@davy {\"say\":\"unknown\"}"), None);
    }
}
