//! How often somebody was banned, and what that makes of the next time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use davy_model::{Prefix, Timestamp};
use davy_trust::host;
use serde::{Deserialize, Serialize};

use super::MAX_BAN;

/// The most addresses of which it is remembered that they were banned. Whose last time is longest ago is forgotten for the next.
const MAX_KNOWN: usize = 65_536;

/// For how long it is remembered, in seconds: thirty days.
const MEMORY: f64 = 30.0 * 86_400.0;

/// How many times as long as the time before the next one is.
const GROWTH: u32 = 4;

/// Those who were banned before, kept in a file.
#[derive(Debug)]
pub(crate) struct Book {
    file: PathBuf,
    known: BTreeMap<Prefix, Record>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// How often.
    times: u32,
    /// When last.
    last: Timestamp,
}

/// Whom an address stands for when it is banned by a finding. Whoever has an IPv6 address has its whole /64.
pub(crate) fn whole(address: IpAddr) -> Prefix {
    match address.to_canonical() {
        IpAddr::V4(v4) => Prefix::host(v4.into()),
        IpAddr::V6(v6) => Prefix::of(v6.into(), 64),
    }
}

impl Book {
    /// With what was kept; one that cannot be read is begun anew.
    pub(super) fn open(file: PathBuf) -> Self {
        let known = host::load(&file).unwrap_or_else(|error| {
            tracing::error!("who was banned before is lost, so everybody begins anew: {error}");
            BTreeMap::new()
        });
        Self { file, known }
    }

    /// For how many seconds somebody is banned now whose first time is `first` seconds long.
    pub(super) fn length(&self, who: Prefix, first: u32, now: Timestamp) -> u32 {
        let times = self.known.get(&who).filter(|record| record.holds(now)).map_or(0, |record| record.times);
        first.saturating_mul(GROWTH.saturating_pow(times)).clamp(1, MAX_BAN)
    }

    /// Remembers that somebody was banned.
    pub(super) fn note(&mut self, who: Prefix, now: Timestamp) {
        let before = self.known.get(&who).filter(|record| record.holds(now)).map_or(0, |record| record.times);
        self.known.insert(who, Record { times: before.saturating_add(1), last: now });
        if self.known.len() > MAX_KNOWN {
            self.known.retain(|_, record| record.holds(now));
        }
        if self.known.len() > MAX_KNOWN
            && let Some(oldest) = self.known.iter().min_by_key(|(_, record)| record.last).map(|(who, _)| *who)
        {
            self.known.remove(&oldest);
        }
        self.save();
    }

    /// Forgets that exactly this network was ever banned.
    pub(super) fn forgive(&mut self, who: Prefix) {
        if self.known.remove(&who).is_some() {
            self.save();
        }
    }

    fn save(&self) {
        if let Err(error) = host::save(&self.known, &self.file) {
            tracing::warn!("who was banned before cannot be kept: {error}");
        }
    }
}

impl Record {
    fn holds(self, now: Timestamp) -> bool {
        now.secs_since(self.last) < MEMORY
    }
}

/// Whether an agent of these folders ever banned anybody.
pub(super) fn is_kept(file: &Path) -> bool {
    file.exists()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);
    const HOUR: u32 = 3600;

    fn host(n: u32) -> Prefix {
        Prefix::host(Ipv4Addr::from_bits(0xc633_0000 + n).into())
    }

    #[test]
    fn whoever_comes_again_stays_out_longer_up_to_a_week_and_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bans.json");
        let mut book = Book::open(file.clone());
        let mut lengths = Vec::new();
        for _ in 0..6 {
            lengths.push(book.length(host(1), HOUR, NOW) / HOUR);
            book.note(host(1), NOW);
        }
        assert_eq!(lengths, [1, 4, 16, 64, 168, 168]);
        let mut book = Book::open(file);
        assert_eq!(book.length(host(1), HOUR, NOW) / HOUR, 168, "it is kept");
        assert_eq!(book.length(host(2), HOUR, NOW) / HOUR, 1);
        let later = NOW.plus_secs(MEMORY + 1.0);
        assert_eq!(book.length(host(1), HOUR, later) / HOUR, 1, "a month later it is forgotten");
        book.forgive("198.51.0.0/24".parse().unwrap());
        assert_eq!(book.length(host(1), HOUR, NOW) / HOUR, 168, "a network's being let in is not his");
        book.forgive(host(1));
        assert_eq!(book.length(host(1), HOUR, NOW) / HOUR, 1);
    }

    #[test]
    fn an_address_of_ipv6_stands_for_its_network() {
        assert_eq!(whole("2001:db8:1:2:3:4:5:6".parse().unwrap()).to_string(), "2001:db8:1:2::/64");
        assert_eq!(whole("::ffff:192.0.2.1".parse().unwrap()).to_string(), "192.0.2.1");
    }

    #[test]
    fn a_flood_is_remembered_within_bounds_and_what_makes_no_sense_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bans.json");
        let all: BTreeMap<Prefix, Record> = (0..MAX_KNOWN as u32)
            .map(|n| (host(n), Record { times: 1, last: NOW.plus_secs(f64::from(n) / 1e3) }))
            .collect();
        let mut book = Book { file: file.clone(), known: all };
        book.note(host(1_000_000), NOW.plus_secs(1000.0));
        assert!(book.known.len() == MAX_KNOWN && !book.known.contains_key(&host(0)), "the oldest goes");
        std::fs::write(&file, "{\"198.51.100.7\": 3}").unwrap();
        assert!(Book::open(file).known.is_empty());
    }
}
