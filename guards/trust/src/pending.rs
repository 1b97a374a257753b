//! Code that was, or would have been, refused: by content, counted, until the administrator has seen to it.

use std::collections::HashMap;

use davy_model::{CodeKind, Oddity, Pending, PendingId, Sha256, Timestamp};
use serde::{Deserialize, Serialize};

/// The most contents that wait at once; beyond it the one that was seen longest ago gives way.
const MAX_WAITING: usize = 4096;

/// The most users and programs that are named for one content.
const MAX_NAMES: usize = 8;

/// Once that a content ran, or was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When.
    pub time: Timestamp,
    /// Its content.
    pub digest: Sha256,
    /// Under which path, for people.
    pub path: String,
    /// As what.
    pub kind: CodeKind,
    /// By which user.
    pub user: Option<String>,
    /// By which program.
    pub by: Option<String>,
    /// Whether it was refused, and not only would have been.
    pub refused: bool,
    /// What is odd about it.
    pub odd: Vec<Oddity>,
    /// Why nobody lets it run.
    pub because: String,
}

/// Everything that waits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pendings {
    next: u64,
    waiting: HashMap<Sha256, Pending>,
}

impl Pendings {
    /// Takes a sighting down. Says whether this content was not waiting before.
    pub fn see(&mut self, sighting: Sighting) -> bool {
        let sha256 = sighting.digest;
        let new = !self.waiting.contains_key(&sha256);
        if new && self.waiting.len() >= MAX_WAITING {
            let longest_ago = self.waiting.values().min_by_key(|p| p.last).map(|p| p.sha256);
            longest_ago.and_then(|sha256| self.waiting.remove(&sha256));
        }
        let next = &mut self.next;
        let pending = self.waiting.entry(sha256).or_insert_with(|| {
            *next += 1;
            Pending {
                id: PendingId(*next),
                sha256,
                path: String::new(),
                kinds: Vec::new(),
                first: sighting.time,
                last: sighting.time,
                would: 0,
                refused: 0,
                users: Vec::new(),
                by: Vec::new(),
                odd: Vec::new(),
                because: String::new(),
            }
        });
        pending.last = pending.last.max(sighting.time);
        pending.path = sighting.path;
        pending.because = sighting.because;
        pending.refused += u64::from(sighting.refused);
        pending.would += u64::from(!sighting.refused);
        add(&mut pending.kinds, sighting.kind, MAX_NAMES);
        sighting.odd.into_iter().for_each(|odd| add(&mut pending.odd, odd, MAX_NAMES));
        sighting.user.into_iter().for_each(|user| add(&mut pending.users, user, MAX_NAMES));
        sighting.by.into_iter().for_each(|by| add(&mut pending.by, by, MAX_NAMES));
        new
    }

    /// What waits under this number.
    #[must_use]
    pub fn get(&self, id: PendingId) -> Option<&Pending> {
        self.waiting.values().find(|p| p.id == id)
    }

    /// What waits with this content.
    #[must_use]
    pub fn of(&self, digest: &Sha256) -> Option<&Pending> {
        self.waiting.get(digest)
    }

    /// Forgets a content, because somebody vouches for it now.
    pub fn settle(&mut self, digest: &Sha256) -> Option<Pending> {
        self.waiting.remove(digest)
    }

    /// Everything that waits: the oddest first, then the newest.
    #[must_use]
    pub fn all(&self) -> Vec<&Pending> {
        let mut all: Vec<_> = self.waiting.values().collect();
        all.sort_by_key(|p| (std::cmp::Reverse(p.odd.len()), std::cmp::Reverse(p.first), p.id));
        all
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T, most: usize) {
    if list.len() < most && !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn sighting(n: u32, secs: f64) -> Sighting {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&n.to_le_bytes());
        Sighting {
            time: NOW.plus_secs(secs),
            digest: Sha256(digest),
            path: format!("/opt/{n}"),
            kind: CodeKind::Exec,
            user: Some("app".to_owned()),
            by: Some("sh".to_owned()),
            refused: false,
            odd: Vec::new(),
            because: "nobody vouches for this content".to_owned(),
        }
    }

    #[test]
    fn a_content_is_counted_and_keeps_its_number() {
        let mut pendings = Pendings::default();
        assert!(pendings.see(sighting(1, 0.0)));
        let again = Sighting { kind: CodeKind::Library, refused: true, ..sighting(1, 5.0) };
        assert!(!pendings.see(again));
        let p = pendings.get(PendingId(1)).unwrap();
        assert_eq!((p.would, p.refused, p.first, p.last), (1, 1, NOW, NOW.plus_secs(5.0)));
        assert_eq!(p.kinds, [CodeKind::Exec, CodeKind::Library]);
        assert_eq!(p.users, ["app"]);
        pendings.settle(&sighting(1, 0.0).digest).unwrap();
        pendings.see(sighting(1, 9.0));
        assert!(pendings.get(PendingId(1)).is_none() && pendings.get(PendingId(2)).is_some());
    }

    #[test]
    fn the_oddest_comes_first_and_the_number_of_those_that_wait_is_bounded() {
        let mut pendings = Pendings::default();
        for n in 0..5000 {
            pendings.see(sighting(n, f64::from(n)));
        }
        assert_eq!(pendings.len(), MAX_WAITING);
        assert!(pendings.of(&sighting(0, 0.0).digest).is_none());
        let odd = vec![Oddity::Hidden, Oddity::WorldWritable];
        pendings.see(Sighting { odd, ..sighting(1200, 0.0) });
        assert_eq!(pendings.all()[0].path, "/opt/1200");
        assert_eq!(pendings.all()[1].path, "/opt/4999");
    }

    #[test]
    fn what_waits_survives_being_written_down() {
        let mut pendings = Pendings::default();
        pendings.see(sighting(1, 0.0));
        let text = serde_json::to_string(&pendings).unwrap();
        let mut read: Pendings = serde_json::from_str(&text).unwrap();
        assert_eq!(read.all(), pendings.all());
        read.see(sighting(2, 0.0));
        assert!(read.get(PendingId(2)).is_some());
    }
}
