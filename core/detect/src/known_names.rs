//! The names of well-known programs and the places their files lie in.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

/// One entry of the file of names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    places: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Folders that only root writes to; programs there are what their name says.
    system: Vec<String>,
    /// Beginnings of the names that kernel threads bear.
    kernel_threads: Vec<String>,
    /// Services and daemons that start nothing of their own which computes.
    services: Vec<String>,
    /// Names of miners, lower case.
    miners: Vec<String>,
    name: Vec<Entry>,
}

/// What is known of names.
#[derive(Clone, Debug, Default)]
pub struct KnownNames {
    system: Arc<[String]>,
    kernel_threads: Arc<[String]>,
    services: Arc<[String]>,
    miners: Arc<[String]>,
    names: Arc<HashMap<String, Vec<String>>>,
}

impl KnownNames {
    /// The names that come with Davy.
    #[must_use]
    pub fn builtin() -> Self {
        // A test holds that the built-in file reads; without it nothing would be called a masquerade.
        Self::parse(include_str!("../../../content/names.toml")).unwrap_or_default()
    }

    /// Reads a file of names.
    ///
    /// # Errors
    /// The TOML reader's message with line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
        Ok(Self {
            system: file.system.into(),
            kernel_threads: file.kernel_threads.into(),
            services: file.services.into(),
            miners: file.miners.into(),
            names: Arc::new(file.name.into_iter().map(|e| (e.name, e.places)).collect()),
        })
    }

    /// Whether a path lies where only root installs programs.
    #[must_use]
    pub fn is_system(&self, path: &str) -> bool {
        self.system.iter().any(|folder| path.starts_with(folder.as_str()))
    }

    /// Whether a name is one that kernel threads bear, with or without brackets.
    #[must_use]
    pub fn is_kernel_thread(&self, name: &str) -> bool {
        let bare = name.strip_prefix('[').unwrap_or(name);
        let bare = bare.strip_suffix(']').unwrap_or(bare);
        self.kernel_threads.iter().any(|k| {
            bare.strip_prefix(k.as_str()).is_some_and(|rest| {
                rest.is_empty()
                    || rest.starts_with(['/', '-', ':'])
                    || rest.starts_with(|c: char| c.is_ascii_digit())
            })
        })
    }

    /// Whether a program of this name serves the network or a timer, so that it should not start what computes.
    #[must_use]
    pub fn is_service(&self, name: &str) -> bool {
        self.services.iter().any(|s| s == name)
    }

    /// The miner that a file or process name names.
    #[must_use]
    pub fn miner(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        let stem = name.strip_suffix(".exe").unwrap_or(&name);
        self.miners
            .iter()
            .find(|miner| {
                stem.strip_prefix(miner.as_str())
                    .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic()))
            })
            .map(String::as_str)
    }

    /// Whether a name is well known.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Whether a program of a well-known name lies where it should; `None` for a name that is not known.
    #[must_use]
    pub fn in_place(&self, name: &str, path: &str) -> Option<bool> {
        let places = self.names.get(name)?;
        Some(self.is_system(path) || places.iter().any(|place| path.starts_with(place.as_str())))
    }

    /// The well-known name that differs from `name` by one letter, or only by letters that look alike.
    #[must_use]
    pub fn lookalike(&self, name: &str) -> Option<&str> {
        // Short names are one letter away from too many honest ones.
        if name.chars().count() < 5 || self.names.contains_key(name) {
            return None;
        }
        let plain = plain(name);
        self.names
            .keys()
            .find(|known| known.len() >= 5 && (plain == **known || one_apart(&plain, known)))
            .map(String::as_str)
    }
}

/// Letters that are read as another one.
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '0' | 'о' | 'ο' => 'o',
            '1' | 'ӏ' | 'і' | '|' => 'l',
            'а' => 'a',
            'е' => 'e',
            'с' => 'c',
            'р' => 'p',
            'х' => 'x',
            'у' => 'y',
            'ѕ' => 's',
            'ԁ' => 'd',
            'һ' => 'h',
            'ⅿ' => 'm',
            other => other,
        })
        .collect()
}

/// Whether two names differ by one letter added, left out or replaced, or by two neighbours exchanged. A digit at the end does not
/// count: `nginx2` is a version, not a disguise.
fn one_apart(a: &str, b: &str) -> bool {
    if !a.is_ascii() {
        return false;
    }
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (ra, rb) = (&a[common..], &b[common..]);
    match (ra.len(), rb.len()) {
        (x, y) if x == y => {
            ra.get(1..) == rb.get(1..)
                || (ra.len() >= 2 && ra[0] == rb[1] && ra[1] == rb[0] && ra[2..] == rb[2..])
        }
        (x, y) if x == y + 1 => ra[1..] == *rb && (!rb.is_empty() || ra[0].is_ascii_alphabetic()),
        (x, y) if x + 1 == y => *ra == rb[1..] && !ra.is_empty(),
        _ => false,
    }
}
