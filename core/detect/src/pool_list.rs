//! Names and addresses of pools, from lists.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::interpreters::Interpreters;
use crate::known_names::KnownNames;

/// Entries kept of all lists together.
const MAX_ENTRIES: usize = 2_000_000;
/// Faults told of one list.
const MAX_FAULTS: usize = 50;

/// The form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// One domain a line; it stands for itself and everything below it.
    Domains,
    /// A hosts(5) file that sends domains to nowhere; each name stands for itself alone.
    Hosts,
    /// One network a line, in CIDR notation or a single address.
    Networks,
}

/// A line of a list that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// Its number, counted from one.
    pub line: u32,
    /// What was expected.
    pub reason: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

#[derive(Clone, Debug)]
struct Listed {
    list: Arc<str>,
    below: bool,
}

/// An entry that a name or an address was found under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The list's name.
    pub list: Arc<str>,
    /// The entry.
    pub entry: String,
}

/// The lists a detector works with.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    domains: HashMap<String, Listed>,
    networks: BTreeMap<(bool, u8), HashMap<u128, Arc<str>>>,
    pub(crate) names: KnownNames,
    pub(crate) interpreters: Interpreters,
}

impl Lists {
    /// No pools; the names of well-known programs only.
    #[must_use]
    pub fn empty() -> Self {
        Self { names: KnownNames::builtin(), interpreters: Interpreters::builtin(), ..Self::default() }
    }

    /// The lists that come with Davy.
    #[must_use]
    pub fn builtin() -> Self {
        let mut lists = Self::empty();
        // A test holds that the built-in list has no faults.
        let _ = lists.add(ListKind::Domains, "davy", include_str!("../../../content/pools/domains.txt"));
        lists
    }

    /// Adds a list.
    ///
    /// # Errors
    /// The lines that could not be read, at most fifty; all others are taken in.
    pub fn add(&mut self, kind: ListKind, name: &str, text: &str) -> Result<usize, Vec<LineError>> {
        let list: Arc<str> = Arc::from(name);
        let mut faults = Vec::new();
        let mut added = 0;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let outcome = if self.len() >= MAX_ENTRIES {
                Err(format!("the lists are full ({MAX_ENTRIES} entries)"))
            } else {
                match kind {
                    ListKind::Domains => self.domain(line.strip_prefix("*.").unwrap_or(line), &list, true),
                    ListKind::Hosts => self.hosts_line(line, &list),
                    ListKind::Networks => self.network(line, &list),
                }
            };
            match outcome {
                Ok(()) => added += 1,
                Err(reason) if faults.len() < MAX_FAULTS => {
                    faults.push(LineError { line: u32::try_from(number + 1).unwrap_or(u32::MAX), reason });
                }
                Err(_) => {}
            }
        }
        if faults.is_empty() { Ok(added) } else { Err(faults) }
    }

    /// Entries of all lists.
    #[must_use]
    pub fn len(&self) -> usize {
        self.domains.len() + self.networks.values().map(HashMap::len).sum::<usize>()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry a name stands under.
    #[must_use]
    pub fn name(&self, name: &str) -> Option<Match> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let mut rest = name.as_str();
        loop {
            if let Some(listed) = self.domains.get(rest)
                && (listed.below || rest.len() == name.len())
            {
                return Some(Match { list: Arc::clone(&listed.list), entry: rest.to_owned() });
            }
            rest = rest.split_once('.')?.1;
        }
    }

    /// The narrowest network an address stands in.
    #[must_use]
    pub fn address(&self, address: IpAddr) -> Option<Match> {
        let (six, bits) = address_bits(address);
        self.networks.iter().rev().filter(|((v6, _), _)| *v6 == six).find_map(|((_, prefix), networks)| {
            let masked = bits & mask(six, *prefix);
            let list = networks.get(&masked)?;
            Some(Match { list: Arc::clone(list), entry: format!("{}/{prefix}", from_bits(six, masked)) })
        })
    }

    fn domain(&mut self, text: &str, list: &Arc<str>, below: bool) -> Result<(), String> {
        let name = text.trim_start_matches('.').trim_end_matches('.').to_ascii_lowercase();
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.contains('.') || !name.split('.').all(label) {
            return Err(format!("`{text}` is not a domain name; write it like pool.example.org"));
        }
        self.domains.insert(name, Listed { list: Arc::clone(list), below });
        Ok(())
    }

    fn hosts_line(&mut self, line: &str, list: &Arc<str>) -> Result<(), String> {
        let mut words = line.split_whitespace();
        let address = words.next().unwrap_or("");
        if address.parse::<IpAddr>().is_err() {
            return Err(format!(
                "`{address}` is not an address; a hosts line begins with one, such as 0.0.0.0"
            ));
        }
        // Lines such as `127.0.0.1 localhost` are no block-list entries.
        for name in words.filter(|name| name.contains('.') && !name.ends_with(".localdomain")) {
            if name.parse::<IpAddr>().is_err() {
                self.domain(name, list, false)?;
            }
        }
        Ok(())
    }

    fn network(&mut self, text: &str, list: &Arc<str>) -> Result<(), String> {
        let wrong = || format!("`{text}` is not a network; write it like 192.0.2.0/24 or 2001:db8::/32");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let (six, bits) = address_bits(address.parse().map_err(|_| wrong())?);
        let width = if six { 128 } else { 32 };
        let prefix = prefix.unwrap_or(width);
        if prefix > width || prefix < 8 {
            return Err(format!("the prefix of `{text}` must be from 8 to {width}"));
        }
        self.networks.entry((six, prefix)).or_default().insert(bits & mask(six, prefix), Arc::clone(list));
        Ok(())
    }
}

fn address_bits(address: IpAddr) -> (bool, u128) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (false, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (true, v6.to_bits()),
    }
}

fn from_bits(six: bool, bits: u128) -> IpAddr {
    if six { IpAddr::V6(bits.into()) } else { IpAddr::V4(u32::try_from(bits).unwrap_or(0).into()) }
}

fn mask(six: bool, prefix: u8) -> u128 {
    let (width, all) = if six { (128, u128::MAX) } else { (32, u128::from(u32::MAX)) };
    all & all.checked_shl(u32::from(width - prefix.min(width))).unwrap_or(0)
}
