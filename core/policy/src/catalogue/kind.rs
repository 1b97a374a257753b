//! What a value of a policy may be, and how keys and sections are written down.

use super::SECTIONS;
use crate::diagnostic::Code;

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// `off`, `observe` or `enforce`; with `false`, the last is not in this version.
    Mode { enforce: bool },
    /// `off` or `observe`, and what to write instead of `enforce`.
    Observed { instead: &'static str },
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Integer { min: i64, max: i64 },
    /// A number.
    Number { min: f64, max: f64 },
    /// A duration, with bounds in seconds; with `off`, the word `off` too.
    Duration { min: u64, max: u64, off: bool },
    /// A size, with bounds in bytes.
    Size { min: u64, max: u64 },
    /// A text for people, or a name.
    Text,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A cgroup v2 path below the mount.
    Cgroup,
    /// A file below the configuration folder.
    File,
    /// An absolute path of a folder.
    Folder,
    /// 64 hexadecimal digits.
    Digest,
    /// A port, a range of ports, or several of both.
    Ports,
    /// An address or a network.
    Network,
    /// A TOML date, or date with time and offset.
    Date,
    /// Not a value at all: a key that people reach for, and why there is none.
    Refused { code: Code, why: &'static str, help: &'static str },
    /// Several, none twice.
    List(&'static Kind),
}

/// A key of a section.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    pub(crate) doc: &'static str,
}

/// A table. Its path has dots; a repeated one is an array of tables.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) path: &'static str,
    pub(crate) repeated: bool,
    pub(crate) keys: &'static [Key],
    pub(crate) doc: &'static str,
}

impl Section {
    /// The sections right below this one.
    pub(crate) fn children(&self) -> impl Iterator<Item = &'static Section> {
        let path = self.path;
        SECTIONS.iter().filter(move |s| match s.path.rsplit_once('.') {
            Some((parent, _)) => parent == path,
            None => path.is_empty() && !s.path.is_empty(),
        })
    }

    /// The last part of the path.
    pub(crate) fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }
}

/// The section of this path. The root's is empty.
pub(crate) fn section(path: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|s| s.path == path)
}

pub(super) const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: false, doc }
}

pub(super) const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: true, doc }
}

pub(super) const fn table(path: &'static str, doc: &'static str, keys: &'static [Key]) -> Section {
    Section { path, repeated: false, keys, doc }
}

pub(super) const fn tables(path: &'static str, doc: &'static str, keys: &'static [Key]) -> Section {
    Section { path, repeated: true, keys, doc }
}
