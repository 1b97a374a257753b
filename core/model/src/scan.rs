use serde::{Deserialize, Serialize};

use crate::{FileId, Severity, Timestamp};

/// What was found in one thing that was looked at: a file, or the memory of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScanReport {
    /// Bytes looked at, what archives hold included.
    pub bytes: u64,
    /// Members of archives looked at.
    pub members: u32,
    /// What matched, the outermost first.
    pub matches: Vec<ScanMatch>,
    /// What could not be looked at and why, a sentence each; bounded.
    pub gaps: Vec<String>,
    /// The program's structure, when it is one and something matched or it was asked for.
    pub program: Option<ProgramFacts>,
    /// Wallet addresses whose checksums hold, when something matched; bounded.
    pub wallets: Vec<Wallet>,
    /// SHA-256 in hexadecimal, when something matched and all of it was read.
    pub sha256: Option<String>,
}

/// A file in which the agent's own scan found something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanHit {
    /// The path for people.
    pub path: String,
    /// What it is.
    pub file: FileId,
    /// When it was made, where the file system tells: a file that is deleted leaves its number to the next one.
    #[serde(default)]
    pub born: Option<Timestamp>,
    /// Why it was looked at.
    pub occasion: ScanOccasion,
    /// SHA-256 in hexadecimal; `None` when not all of it was read.
    pub sha256: Option<String>,
    /// What matched, the worst first; at least one, and bounded.
    pub matches: Vec<ScanMatch>,
}

impl ScanHit {
    /// How bad the worst of it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.matches.iter().map(|found| found.severity).max().unwrap_or(Severity::Info)
    }
}

/// Why the agent looked at a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanOccasion {
    /// A process runs it.
    Executed,
    /// It was written.
    Written,
    /// It is what a web server may run, and it was written.
    WebWritten,
    /// It was time to look through the folders that the policy names.
    Scheduled,
}

/// A rule that matched, an entry of a hash list, or a check of the engine's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanMatch {
    /// The rule's name; `hash_list` or `archive_bomb` where no rule says it.
    pub rule: String,
    /// Where the rule is from: a file's name, or `davy` for what is built in.
    pub origin: String,
    /// How bad.
    pub severity: Severity,
    /// What it means, in plain words.
    pub description: String,
    /// The way to it through archives, outermost first; empty for the file itself.
    pub inside: Vec<String>,
    /// The patterns that spoke for it with the offset of each one's first match; bounded.
    pub patterns: Vec<(String, u64)>,
}

/// The structure of an ELF file: evidence, no verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgramFacts {
    /// The processor it is for, such as `x86_64`.
    pub machine: String,
    /// `executable`, `shared object`, `relocatable` or `core`.
    pub kind: String,
    /// It needs no loader and no library.
    pub static_linked: bool,
    /// It has no symbol table.
    pub stripped: bool,
    /// `Go`, `Rust` or `C`, by what their tools leave behind; `None` when nothing tells.
    pub language: Option<String>,
    /// Libraries it needs.
    pub libraries: Vec<String>,
    /// How many functions and objects it imports.
    pub imports: u32,
    /// `UPX`, `UPX, altered`, or `unknown` for what looks packed otherwise.
    pub packer: Option<String>,
    /// Entropy of its largest executable segment in bits a byte, 0 to 8.
    pub entropy: f32,
    /// Offsets of further ELF files within it.
    pub embedded: Vec<u64>,
    /// What linkers do not do, a phrase each.
    pub oddities: Vec<String>,
}

/// A wallet address whose checksum holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wallet {
    /// The currency, such as `Monero`.
    pub currency: String,
    /// The address as it stands there.
    pub address: String,
}

/// A rule that does not take part, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Its name, or that of its file when it has none.
    pub rule: String,
    /// Where it is from.
    pub origin: String,
    /// Why, as the compiler says it or in plain words.
    pub reason: String,
}
