//! `status`: the packages, in deb822 paragraphs.

use deb822_fast::borrowed::{BorrowedParagraph, parse_borrowed};

use crate::fault::{Fault, Faults, Read};
use crate::package::{FileDigest, Package};
use crate::path::is_plain;

/// How far a package is installed: the last word of its `Status` field (dpkg(1), "Package states").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "dpkg(1) names and explains them")]
pub enum State {
    NotInstalled,
    ConfigFiles,
    HalfInstalled,
    Unpacked,
    HalfConfigured,
    TriggersAwaited,
    TriggersPending,
    Installed,
}

impl State {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "not-installed" => Self::NotInstalled,
            "config-files" => Self::ConfigFiles,
            "half-installed" => Self::HalfInstalled,
            "unpacked" => Self::Unpacked,
            "half-configured" => Self::HalfConfigured,
            "triggers-awaited" => Self::TriggersAwaited,
            "triggers-pending" => Self::TriggersPending,
            "installed" => Self::Installed,
            _ => return None,
        })
    }

    /// Whether the package's files lie where its list says. Of one that is half installed some may.
    pub fn has_files(self) -> bool {
        !matches!(self, Self::NotInstalled)
    }
}

/// A configuration file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conffile {
    /// Its path, before diversions.
    pub path: Vec<u8>,
    /// MD5 of it as the package brought it; `None` until the package is configured.
    pub md5: Option<[u8; 16]>,
    /// An earlier version of the package brought it, this one does not.
    pub obsolete: bool,
}

/// A package that dpkg knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Which it is.
    pub package: Package,
    /// How far it is installed.
    pub state: State,
    /// Whether it may be installed once for each architecture (`Multi-Arch: same`). The names of what dpkg keeps of it
    /// then carry the architecture.
    pub per_architecture: bool,
    /// Its configuration files.
    pub conffiles: Vec<Conffile>,
}

impl Installed {
    /// What the names of its files below `info/` can begin with, the likelier first.
    pub fn info_names(&self) -> [String; 2] {
        let plain = self.package.name.clone();
        let qualified = format!("{plain}:{}", self.package.architecture);
        if self.per_architecture { [qualified, plain] } else { [plain, qualified] }
    }
}

/// Reads `status`, or a file of the same format that was called `file`.
pub fn read_status(file: &str, text: &[u8]) -> Read<Vec<Installed>> {
    let mut entries = Vec::new();
    let mut faults = Faults::default();
    for (line, paragraph) in paragraphs(text) {
        // A maintainer's name in another encoding must not hide the package.
        let paragraph = String::from_utf8_lossy(paragraph);
        match parse_borrowed(&paragraph) {
            Ok(parsed) => {
                for fields in parsed {
                    match package(file, line, &fields, &mut faults) {
                        Ok(installed) => entries.push(installed),
                        Err(fault) => faults.push(fault),
                    }
                }
            }
            Err(error) => faults.push(Fault::new(file, line, format!("no paragraph of fields: {error}"))),
        }
    }
    Read { entries, faults }
}

/// Puts what the journal below `updates/` says of a package in place of what `status` said. dpkg writes there first.
pub fn apply_updates(status: &mut Vec<Installed>, updates: Vec<Installed>) {
    for update in updates {
        let same = |old: &&mut Installed| {
            old.package.name == update.package.name
                && (old.package.architecture == update.package.architecture
                    || !(old.per_architecture && update.per_architecture))
        };
        match status.iter_mut().find(same) {
            Some(old) => *old = update,
            None => status.push(update),
        }
    }
}

/// The paragraphs, each with the number of its first line.
fn paragraphs(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut lines = text.split_inclusive(|b| *b == b'\n').peekable();
    let mut at = 0;
    let mut number = 1;
    std::iter::from_fn(move || {
        let is_blank = |line: &[u8]| line.iter().all(u8::is_ascii_whitespace);
        while let Some(blank) = lines.next_if(|line| is_blank(line)) {
            at += blank.len();
            number += 1;
        }
        let (start, first) = (at, number);
        while let Some(line) = lines.next_if(|line| !is_blank(line)) {
            at += line.len();
            number += 1;
        }
        (at > start).then(|| (first, &text[start..at]))
    })
}

fn package(
    file: &str,
    line: usize,
    fields: &BorrowedParagraph<'_>,
    faults: &mut Faults,
) -> Result<Installed, Fault> {
    let field = |name: &str| fields.get_single(name).map(str::trim).filter(|value| !value.is_empty());
    let Some(name) = field("Package").filter(|name| is_name(name)) else {
        return Err(Fault::new(file, line, "a paragraph without a package's name"));
    };
    let status = field("Status").unwrap_or("");
    // Images without a shell keep paragraphs as they were in the package, without a state.
    let state = match status.split_ascii_whitespace().nth(2) {
        Some(word) => State::of(word),
        None if status.is_empty() => Some(State::Installed),
        None => None,
    };
    let Some(state) = state else {
        return Err(Fault::new(file, line, format!("package {name} has the unknown status {status:?}")));
    };
    let architecture = field("Architecture").unwrap_or("");
    if !architecture.is_empty() && !is_name(architecture) {
        return Err(Fault::new(file, line, format!("package {name} has no plain architecture")));
    }
    let mut conffiles = Vec::new();
    for entry in
        fields.get("Conffiles").unwrap_or_default().iter().map(|l| l.trim()).filter(|l| !l.is_empty())
    {
        match conffile(entry) {
            Some(conffile) => conffiles.extend(conffile),
            None => faults.push(Fault::quoting(file, line, "a conffile and its MD5", entry.as_bytes())),
        }
    }
    Ok(Installed {
        package: Package {
            name: name.to_owned(),
            version: field("Version").unwrap_or("").to_owned(),
            architecture: architecture.to_owned(),
        },
        state,
        per_architecture: field("Multi-Arch") == Some("same"),
        conffiles,
    })
}

/// Whether it can be part of the name of a file below `info/` and of nothing else.
fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b)) && !text.starts_with('.')
}

/// A line of `Conffiles`: path, digest and flags. Paths may have spaces in them, so it is read from its end. The inner
/// option is `None` for one that the next upgrade removes: the package does not bring it.
fn conffile(entry: &str) -> Option<Option<Conffile>> {
    let mut rest = entry;
    let mut obsolete = false;
    loop {
        let (before, word) = rest.rsplit_once(' ')?;
        rest = before;
        match word {
            "obsolete" => obsolete = true,
            "remove-on-upgrade" => return Some(None),
            _ => {
                let md5 = FileDigest::md5(word.as_bytes());
                if (md5.is_none() && word != "newconffile") || !is_plain(before.as_bytes()) {
                    return None;
                }
                return Some(Some(Conffile { path: before.as_bytes().to_vec(), md5, obsolete }));
            }
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
