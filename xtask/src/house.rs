//! The workspace as its files say it is: rooms with their manifests, and the text files in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

/// Folders that hold nothing anyone wrote.
const NOT_OURS: [&str; 3] = [".git", "target", "node_modules"];

/// Endings of the files that rules are about.
const READ: [&str; 7] = ["rs", "c", "h", "md", "sh", "toml", "sql"];

/// The layers that rooms lie in. What may depend on what is [`crate::tidy`]'s to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Pure engines.
    Core,
    /// What touches the machine.
    Host,
    /// Protections.
    Guards,
    /// Programs.
    Apps,
    /// Pieces that live in other people's processes.
    Edges,
    /// End-to-end tests and what they need.
    Tests,
    /// Developer tasks.
    Xtask,
}

impl Layer {
    fn of(room: &str) -> Option<Self> {
        match room.split('/').next()? {
            "core" => Some(Self::Core),
            "host" => Some(Self::Host),
            "guards" => Some(Self::Guards),
            "apps" => Some(Self::Apps),
            "edges" => Some(Self::Edges),
            "tests" => Some(Self::Tests),
            "xtask" => Some(Self::Xtask),
            _ => None,
        }
    }
}

/// One package of the workspace.
#[derive(Debug)]
pub(crate) struct Room {
    /// Its folder below the root, such as `host/kernel`.
    pub(crate) path: String,
    /// The layer it lies in; `None` for a folder that no layer knows.
    pub(crate) layer: Option<Layer>,
    /// Its `Cargo.toml`.
    pub(crate) manifest: Table,
}

/// One dependency of a room.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dependency {
    /// The package's name.
    pub(crate) package: String,
    /// Whether only its tests need it.
    pub(crate) only_tests: bool,
}

impl Room {
    /// The package's name.
    pub(crate) fn package(&self) -> &str {
        self.manifest.get("package").and_then(|p| p.get("name")).and_then(Value::as_str).unwrap_or("")
    }

    /// Everything its manifest depends on, for every target.
    pub(crate) fn dependencies(&self) -> BTreeSet<Dependency> {
        let targets = self.manifest.get("target").and_then(Value::as_table);
        let tables = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
        let mut found = BTreeSet::new();
        for table in std::iter::once(&self.manifest).chain(tables) {
            for (key, only_tests) in
                [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
            {
                for (name, value) in table.get(key).and_then(Value::as_table).into_iter().flatten() {
                    let renamed = value.get("package").and_then(Value::as_str);
                    found.insert(Dependency { package: renamed.unwrap_or(name).to_owned(), only_tests });
                }
            }
        }
        found
    }
}

/// One text file.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// Its path below the root.
    pub(crate) path: String,
    /// What it says.
    pub(crate) text: String,
}

impl TextFile {
    /// The ending of its name, without the dot.
    pub(crate) fn ending(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(_, ending)| ending)
    }

    /// Whether it lies in `room`.
    pub(crate) fn lies_in(&self, room: &str) -> bool {
        self.path.strip_prefix(room).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// The whole workspace.
#[derive(Debug)]
pub(crate) struct House {
    /// The packages, in the order of the workspace's member list.
    pub(crate) rooms: Vec<Room>,
    /// The text files, by path.
    pub(crate) files: Vec<TextFile>,
}

impl House {
    /// Reads the workspace whose root is `root`.
    ///
    /// # Errors
    /// When a manifest that the workspace names is missing or no TOML, or a folder cannot be read.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let workspace = read_manifest(&root.join("Cargo.toml"))?;
        let members = workspace
            .get("workspace")
            .and_then(|w| w.get("members"))
            .and_then(Value::as_array)
            .context("Cargo.toml names no workspace members")?;
        let mut rooms = Vec::new();
        for path in members.iter().filter_map(Value::as_str) {
            rooms.push(Room {
                path: path.to_owned(),
                layer: Layer::of(path),
                manifest: read_manifest(&root.join(path).join("Cargo.toml"))?,
            });
        }
        let mut files = Vec::new();
        gather(root, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { rooms, files })
    }

    /// The file of this path.
    pub(crate) fn file(&self, path: &str) -> Option<&TextFile> {
        self.files.binary_search_by(|f| f.path.as_str().cmp(path)).ok().map(|i| &self.files[i])
    }

    /// The room that a file lies in.
    pub(crate) fn room_of(&self, file: &TextFile) -> Option<&Room> {
        self.rooms.iter().find(|room| file.lies_in(&room.path))
    }
}

fn read_manifest(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    text.parse().with_context(|| format!("parsing {}", path.display()))
}

fn gather(root: &Path, below: &str, files: &mut Vec<TextFile>) -> Result<()> {
    let folder = root.join(below);
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() && !NOT_OURS.contains(&name.as_str()) {
            gather(root, &path, files)?;
        } else if kind.is_file() && READ.iter().any(|ending| name.ends_with(&format!(".{ending}"))) {
            // Not everything with these endings must be text; what is not UTF-8 has no lines to judge.
            if let Ok(text) = fs::read_to_string(entry.path()) {
                files.push(TextFile { path, text });
            }
        }
    }
    Ok(())
}
