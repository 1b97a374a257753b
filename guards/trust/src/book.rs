//! What all sources say, by content.

use std::collections::HashMap;

use davy_model::{Sha256, Source, Timestamp, Voucher};

/// The most contents that are kept. A full Debian with every desktop has some 60,000 files of code.
const MAX_CONTENTS: usize = 1 << 19;

/// The most words for one content; the same file in many packages needs no more to be trusted.
const MAX_VOUCHERS: usize = 8;

/// What all sources say, by content.
#[derive(Clone, Debug, Default)]
pub struct Book {
    entries: HashMap<Sha256, Vec<Voucher>>,
    refused: u64,
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

impl Book {
    /// Takes one word. The same source's word for the same content is renewed, not repeated. Says whether the content
    /// was unknown before.
    pub fn vouch(&mut self, digest: Sha256, voucher: Voucher) -> bool {
        if !self.entries.contains_key(&digest) && self.entries.len() >= MAX_CONTENTS {
            self.refused += 1;
            return false;
        }
        let vouchers = self.entries.entry(digest).or_default();
        let new = vouchers.is_empty();
        match vouchers.iter().position(|v| v.source == voucher.source) {
            Some(place) => vouchers[place].until = voucher.until,
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
        new
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
        let mut change = Change::default();
        for (digest, voucher) in words {
            if self.vouch(digest, voucher) && before.remove(&digest).is_none() {
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
        vouchers.retain(|v| !wanted(&v.source));
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

    /// Words that were not taken because the book was full.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
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
        assert!(book.vouch(A, package("a")));
        assert!(!book.vouch(A, Voucher { until: Some(NOW), ..package("a") }));
        assert_eq!(book.vouchers(&A, NOW).count(), 0);
        assert_eq!(book.vouchers(&A, NOW.plus_secs(-1.0)).count(), 1);
    }

    #[test]
    fn replacing_one_source_leaves_the_others_and_names_what_changed() {
        let mut book = Book::default();
        book.vouch(A, package("a"));
        book.vouch(B, package("b"));
        book.vouch(B, learned());
        let change = book.replace("packages", [(Sha256([3; 32]), package("c"))]);
        assert_eq!(change, Change { gained: vec![Sha256([3; 32])], lost: vec![A] });
        assert_eq!(book.vouchers(&B, NOW).map(|v| v.source.name()).collect::<Vec<_>>(), ["learned"]);
        // The same again changes nothing.
        assert!(book.replace("packages", [(Sha256([3; 32]), package("c"))]).is_empty());
    }

    #[test]
    fn what_is_over_is_dropped() {
        let mut book = Book::default();
        book.vouch(A, Voucher { until: Some(NOW), ..learned() });
        book.vouch(B, Voucher { until: Some(NOW), ..learned() });
        book.vouch(B, package("b"));
        assert_eq!(book.expire(NOW.plus_secs(-1.0)), []);
        assert_eq!(book.expire(NOW), [A]);
        assert_eq!(book.len(), 1);
    }

    #[test]
    fn a_word_that_binds_more_finds_room() {
        let mut book = Book::default();
        for n in 0..20 {
            let source = Source::Learned { time: NOW, path: format!("/opt/{n}") };
            book.vouch(A, Voucher::lasting(source));
        }
        book.vouch(A, package("a"));
        let names: Vec<_> = book.vouchers(&A, NOW).map(|v| v.source.name()).collect();
        assert_eq!((names.len(), names[0]), (MAX_VOUCHERS, "packages"));
    }
}
