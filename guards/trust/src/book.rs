//! What all sources say, by content.

use std::collections::HashMap;

use davy_model::{Sha256, Source, Timestamp, Voucher};

/// The most contents that are kept. A full Debian with every desktop has some 60,000 files of code.
const MAX_CONTENTS: usize = 1 << 19;

/// The most words for one content; the same file in many packages needs no more to be trusted.
const MAX_VOUCHERS: usize = 8;

/// The most contents with the word of a trusted writer, as many as the kernel remembers. Whoever may run a compiler can have
/// as many written as he likes, so they must not take the room of what an administrator says.
const MAX_WRITTEN: usize = 16_384;

/// How many of them are kept when there are more: taking one back at a time would look at all of them each time.
const WRITTEN_KEPT: usize = MAX_WRITTEN / 8 * 7;

/// What all sources say, by content.
#[derive(Clone, Debug)]
pub struct Book {
    entries: HashMap<Sha256, Vec<Voucher>>,
    room: usize,
    /// Contents with the word of a trusted writer.
    written: usize,
    refused: u64,
    forgotten: u64,
}

/// What became of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// Nobody vouched for the content before.
    New,
    /// Somebody did.
    Known,
    /// The book is full, and nothing is known of the content as before.
    Full,
}

/// One content and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'b> {
    /// The content.
    pub digest: Sha256,
    /// Its vouchers.
    pub vouchers: &'b [Voucher],
}

/// How the set of trusted contents changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Contents that somebody vouches for now, and nobody did before.
    pub gained: Vec<Sha256>,
    /// Contents that nobody vouches for any more.
    pub lost: Vec<Sha256>,
}

impl Change {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty()
    }
}

impl Default for Book {
    fn default() -> Self {
        Self::with_room_for(MAX_CONTENTS)
    }
}

impl Book {
    /// Empty, for at most so many contents.
    #[must_use]
    pub fn with_room_for(contents: usize) -> Self {
        Self { entries: HashMap::new(), room: contents, written: 0, refused: 0, forgotten: 0 }
    }

    /// Takes one word. The same source's word for the same content is renewed, not repeated, and so is that of trusted writers,
    /// whichever of them wrote it last.
    pub fn vouch(&mut self, digest: Sha256, voucher: Voucher) -> Taken {
        if !self.entries.contains_key(&digest) && self.entries.len() >= self.room {
            self.refused += 1;
            return Taken::Full;
        }
        let vouchers = self.entries.entry(digest).or_default();
        let taken = if vouchers.is_empty() { Taken::New } else { Taken::Known };
        self.written -= usize::from(has_written(vouchers));
        let same = |v: &Voucher| v.source == voucher.source || (is_written(v) && is_written(&voucher));
        match vouchers.iter().position(same) {
            Some(place) => vouchers[place] = voucher,
            None if vouchers.len() < MAX_VOUCHERS => {
                vouchers.push(voucher);
                vouchers.sort_by_key(|v| v.source.order());
            }
            None => {
                // A word that binds more takes the place of the one that binds least.
                if let Some(last) =
                    vouchers.last_mut().filter(|last| last.source.order() > voucher.source.order())
                {
                    *last = voucher;
                    vouchers.sort_by_key(|v| v.source.order());
                }
            }
        }
        self.written += usize::from(has_written(vouchers));
        taken
    }

    /// Takes back the oldest words of trusted writers when there are more than are kept. Gives the contents that nobody vouches
    /// for any more.
    #[must_use]
    pub fn forget_oldest_written(&mut self) -> Vec<Sha256> {
        if self.written <= MAX_WRITTEN {
            return Vec::new();
        }
        let when = |voucher: &Voucher| match voucher.source {
            Source::Written { time, .. } => Some(time),
            _ => None,
        };
        let times = |(digest, vouchers): (&Sha256, &Vec<Voucher>)| {
            vouchers.iter().find_map(when).map(|time| (time, *digest))
        };
        let mut written: Vec<(Timestamp, Sha256)> = self.entries.iter().filter_map(times).collect();
        written.sort_unstable();
        written.truncate(written.len().saturating_sub(WRITTEN_KEPT));
        self.forgotten += written.len() as u64;
        let theirs = |source: &Source| matches!(source, Source::Written { .. });
        written
            .into_iter()
            .map(|(_, digest)| digest)
            .filter(|digest| self.withdraw(*digest, theirs))
            .collect()
    }

    /// Replaces everything that sources of one kind say.
    pub fn replace(&mut self, of: &str, words: impl IntoIterator<Item = (Sha256, Voucher)>) -> Change {
        let mut before: HashMap<Sha256, ()> = HashMap::new();
        self.entries.retain(|digest, vouchers| {
            let had = vouchers.len();
            vouchers.retain(|v| v.source.name() != of);
            if vouchers.is_empty() && had > 0 {
                before.insert(*digest, ());
            }
            !vouchers.is_empty()
        });
        self.count_written();
        let mut change = Change::default();
        for (digest, voucher) in words {
            if self.vouch(digest, voucher) == Taken::New && before.remove(&digest).is_none() {
                change.gained.push(digest);
            }
        }
        change.lost = before.into_keys().collect();
        change.gained.sort_unstable();
        change.lost.sort_unstable();
        change
    }

    /// Takes back what one source says of one content. Says whether nobody vouches for it any more.
    pub fn withdraw(&mut self, digest: Sha256, wanted: impl Fn(&Source) -> bool) -> bool {
        let Some(vouchers) = self.entries.get_mut(&digest) else { return false };
        self.written -= usize::from(has_written(vouchers));
        vouchers.retain(|v| !wanted(&v.source));
        self.written += usize::from(has_written(vouchers));
        let gone = vouchers.is_empty();
        if gone {
            self.entries.remove(&digest);
        }
        gone
    }

    /// Drops words whose time is over, and gives the contents that nobody vouches for any more.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Sha256> {
        let mut lost = Vec::new();
        self.entries.retain(|digest, vouchers| {
            vouchers.retain(|v| v.holds(now));
            if vouchers.is_empty() {
                lost.push(*digest);
            }
            !vouchers.is_empty()
        });
        self.count_written();
        lost.sort_unstable();
        lost
    }

    /// Who vouches for a content at this moment, most binding first.
    pub fn vouchers(&self, digest: &Sha256, now: Timestamp) -> impl Iterator<Item = &Voucher> {
        self.entries.get(digest).into_iter().flatten().filter(move |v| v.holds(now))
    }

    /// Every content with its vouchers, in no order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries.iter().map(|(digest, vouchers)| Entry { digest: *digest, vouchers })
    }

    /// How many contents are vouched for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many contents there is room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Words that were not taken because the book was full.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Words of trusted writers that were taken back before their time because there were more than are kept.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn count_written(&mut self) {
        self.written = self.entries.values().filter(|vouchers| has_written(vouchers)).count();
    }
}

fn is_written(voucher: &Voucher) -> bool {
    matches!(voucher.source, Source::Written { .. })
}

fn has_written(vouchers: &[Voucher]) -> bool {
    vouchers.iter().any(is_written)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Sha256 = Sha256([1; 32]);
    const B: Sha256 = Sha256([2; 32]);
    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn package(name: &str) -> Voucher {
        Voucher::lasting(Source::Package {
            package: name.to_owned(),
            version: "1".to_owned(),
            path: format!("/usr/bin/{name}"),
        })
    }

    fn learned() -> Voucher {
        Voucher { source: Source::Learned { time: NOW, path: "/opt/a".to_owned() }, until: None }
    }

    #[test]
    fn the_same_word_is_renewed_and_not_repeated() {
        let mut book = Book::default();
        assert_eq!(book.vouch(A, package("a")), Taken::New);
        assert_eq!(book.vouch(A, Voucher { until: Some(NOW), ..package("a") }), Taken::Known);
        assert_eq!(book.vouchers(&A, NOW).count(), 0);
        assert_eq!(book.vouchers(&A, NOW.plus_secs(-1.0)).count(), 1);
    }

    #[test]
    fn replacing_one_source_leaves_the_others_and_names_what_changed() {
        let mut book = Book::default();
        let _ = book.vouch(A, package("a"));
        let _ = book.vouch(B, package("b"));
        let _ = book.vouch(B, learned());
        let change = book.replace("packages", [(Sha256([3; 32]), package("c"))]);
        assert_eq!(change, Change { gained: vec![Sha256([3; 32])], lost: vec![A] });
        assert_eq!(book.vouchers(&B, NOW).map(|v| v.source.name()).collect::<Vec<_>>(), ["learned"]);
        // The same again changes nothing.
        assert!(book.replace("packages", [(Sha256([3; 32]), package("c"))]).is_empty());
    }

    fn written(at: u32) -> Voucher {
        let time = NOW.plus_secs(f64::from(at));
        let source = Source::Written { by: "cc".to_owned(), time, path: format!("/tmp/{at}") };
        Voucher { source, until: Some(time.plus_secs(86_400.0)) }
    }

    fn content(number: u32) -> Sha256 {
        let mut digest = [9; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        Sha256(digest)
    }

    #[test]
    fn a_full_book_says_so_and_still_renews_what_it_knows() {
        let mut book = Book::with_room_for(2);
        assert_eq!(book.vouch(A, package("a")), Taken::New);
        assert_eq!(book.vouch(B, package("b")), Taken::New);
        assert_eq!(book.vouch(content(1), learned()), Taken::Full);
        assert_eq!(book.vouch(B, learned()), Taken::Known);
        assert_eq!((book.len(), book.refused()), (2, 1));
        assert_eq!(book.vouchers(&content(1), NOW).count(), 0);
        assert!(book.replace("packages", [(content(1), package("c"))]).lost.contains(&A));
        assert_eq!(book.len(), 2, "what left made room");
    }

    #[test]
    fn what_writers_write_takes_nobody_elses_room_and_the_oldest_is_forgotten() {
        let mut book = Book::default();
        let _ = book.vouch(content(0), learned());
        for number in 0..=MAX_WRITTEN as u32 {
            assert_eq!(book.forget_oldest_written(), []);
            let _ = book.vouch(content(number), written(number));
        }
        let lost = book.forget_oldest_written();
        assert_eq!(lost.len(), MAX_WRITTEN - WRITTEN_KEPT, "one of them has another's word as well");
        assert_eq!(book.forgotten(), lost.len() as u64 + 1);
        assert!(lost.contains(&content(1)) && !lost.contains(&content(MAX_WRITTEN as u32)));
        assert_eq!(book.len(), WRITTEN_KEPT + 1);
        assert_eq!(book.vouchers(&content(0), NOW).map(|v| v.source.name()).collect::<Vec<_>>(), ["learned"]);
        // Neither what is written over and over nor what is over counts.
        for number in 0..100_000 {
            let _ = book.vouch(content(MAX_WRITTEN as u32), written(number));
            assert_eq!(book.forget_oldest_written(), []);
        }
        book.expire(NOW.plus_secs(1e6));
        for number in 0..MAX_WRITTEN as u32 {
            let _ = book.vouch(content(number), written(number));
        }
        assert_eq!(book.forget_oldest_written(), []);
    }

    #[test]
    fn what_is_written_again_is_trusted_from_then_on() {
        let mut book = Book::default();
        for number in 0..20 {
            let _ = book.vouch(A, written(number));
        }
        assert_eq!(book.vouchers(&A, NOW).count(), 1);
        assert_eq!(book.vouchers(&A, NOW.plus_secs(86_410.0)).count(), 1, "the last writing counts");
    }

    #[test]
    fn what_is_over_is_dropped() {
        let mut book = Book::default();
        let _ = book.vouch(A, Voucher { until: Some(NOW), ..learned() });
        let _ = book.vouch(B, Voucher { until: Some(NOW), ..learned() });
        let _ = book.vouch(B, package("b"));
        assert_eq!(book.expire(NOW.plus_secs(-1.0)), []);
        assert_eq!(book.expire(NOW), [A]);
        assert_eq!(book.len(), 1);
    }

    #[test]
    fn a_word_that_binds_more_finds_room() {
        let mut book = Book::default();
        for n in 0..20 {
            let source = Source::Learned { time: NOW, path: format!("/opt/{n}") };
            let _ = book.vouch(A, Voucher::lasting(source));
        }
        let _ = book.vouch(A, package("a"));
        let names: Vec<_> = book.vouchers(&A, NOW).map(|v| v.source.name()).collect();
        assert_eq!((names.len(), names[0]), (MAX_VOUCHERS, "packages"));
    }
}
