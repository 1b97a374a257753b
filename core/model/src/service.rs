use serde::{Deserialize, Serialize};

use crate::{ProcessKey, Technique};

/// A kind of program that an intruder starts from a service, and that the service by itself has no use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramClass {
    /// Runs commands.
    Shell,
    /// Runs programs that are given as text.
    Interpreter,
    /// Fetches files from elsewhere.
    Downloader,
    /// Makes programs.
    Compiler,
    /// Talks to, listens for, or looks for other hosts.
    NetworkTool,
    /// Arranges that something runs again, or that somebody gets in.
    PersistenceTool,
}

impl ProgramClass {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Shell,
        Self::Interpreter,
        Self::Downloader,
        Self::Compiler,
        Self::NetworkTool,
        Self::PersistenceTool,
    ];

    /// Its name in a policy and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Interpreter => "interpreter",
            Self::Downloader => "downloader",
            Self::Compiler => "compiler",
            Self::NetworkTool => "network_tool",
            Self::PersistenceTool => "persistence_tool",
        }
    }

    /// With its article, for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Shell => "a shell",
            Self::Interpreter => "an interpreter",
            Self::Downloader => "a downloader",
            Self::Compiler => "a compiler",
            Self::NetworkTool => "a network tool",
            Self::PersistenceTool => "a tool to stay",
        }
    }

    /// The class of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Classes of programs, as one bit each in the order of [`ProgramClass::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClassSet(u8);

impl ClassSet {
    /// No class.
    pub const NONE: Self = Self(0);

    /// As the kernel's programs have it.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a class is among them.
    #[must_use]
    pub const fn has(self, class: ProgramClass) -> bool {
        self.0 & class.bit() != 0
    }

    /// With one more.
    #[must_use]
    pub const fn with(self, class: ProgramClass) -> Self {
        Self(self.0 | class.bit())
    }

    /// Without one.
    #[must_use]
    pub const fn without(self, class: ProgramClass) -> Self {
        Self(self.0 & !class.bit())
    }

    /// Those in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Each of them, in order.
    pub fn iter(self) -> impl Iterator<Item = ProgramClass> {
        ProgramClass::ALL.into_iter().filter(move |class| self.has(*class))
    }
}

impl FromIterator<ProgramClass> for ClassSet {
    fn from_iter<I: IntoIterator<Item = ProgramClass>>(classes: I) -> Self {
        classes.into_iter().fold(Self::NONE, Self::with)
    }
}

/// What came from a service started a program of a class that the service's profile does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceBreach {
    /// The name of the service's profile.
    pub service: String,
    /// The service's process.
    pub root: ProcessKey,
    /// What the program is.
    pub class: ProgramClass,
    /// The program's path, for people.
    pub path: String,
    /// Its command line, for people; bounded.
    pub command: String,
    /// The short names of the processes from the service down to the one that started it; bounded.
    pub chain: Vec<String>,
    /// Whether the kernel refused it.
    pub refused: bool,
    /// The technique that it belongs to.
    pub technique: Technique,
}

/// Something that a service started and its profile does not have: what waits for the administrator, by service and command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStart {
    /// The name of the service's profile.
    pub service: String,
    /// What the program is.
    pub class: ProgramClass,
    /// The program's path where it was seen last, for people.
    pub path: String,
    /// The command with what changes from one time to the next replaced by `*`.
    pub command: String,
    /// When it was first seen.
    pub first: crate::Timestamp,
    /// When it was last seen.
    pub last: crate::Timestamp,
    /// How often.
    pub count: u64,
    /// Users that it ran as.
    pub users: Vec<String>,
    /// What is odd about it.
    pub odd: Vec<crate::Oddity>,
}
