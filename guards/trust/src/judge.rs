//! The order in which rules decide.

use davy_model::{Rank, Ruling, Sha256, Source, Timestamp, Voucher};

use crate::Config;

/// What is to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question<'q> {
    /// Its content; `None` when it could not be read.
    pub digest: Option<Sha256>,
    /// Its path for people. Only folders that are allowed as a whole look at it.
    pub path: &'q str,
    /// Whether it has no name any more, or never had one: a memfd, a deleted file.
    pub nameless: bool,
    /// Why it must run whatever the lists say, if it must.
    pub failsafe: Option<&'q str>,
}

/// Ranks what is known: the block-list beats everything, then failsafes, then what is allowed, then the default, which is to
/// deny. `vouchers` is what sources say of the content, in any order.
#[must_use]
pub fn judge(question: &Question<'_>, mut vouchers: Vec<Voucher>, config: &Config, now: Timestamp) -> Ruling {
    vouchers.retain(|voucher| voucher.holds(now));
    vouchers.extend(config.directory_of(question.path, now).filter(|_| !question.nameless));
    vouchers.sort_by_key(|voucher| voucher.source.order());
    let ruling = |allowed, rank, because| Ruling { allowed, rank, because, vouchers: vouchers.clone() };
    if let Some(why) = question.digest.and_then(|digest| config.blocked(&digest, now)) {
        return ruling(false, Rank::Blocked, why);
    }
    if let Some(why) = vouchers.iter().find_map(|v| match &v.source {
        Source::Manifest { signer, .. } => config.signer_blocked(signer),
        _ => None,
    }) {
        return ruling(false, Rank::Blocked, why);
    }
    if let Some(why) = question.failsafe {
        return ruling(true, Rank::Failsafe, why.to_owned());
    }
    let vouched = vouchers.first();
    if question.nameless && vouched.is_none_or(|v| v.source.order() > 1) {
        let because = "it has no file: only an entry of the allow-list or an approval lets such code run";
        return ruling(false, Rank::Nameless, because.to_owned());
    }
    match vouched {
        Some(voucher) => ruling(true, Rank::Allowed, voucher.source.to_string()),
        None if question.digest.is_none() => {
            ruling(false, Rank::Default, "its content could not be read".to_owned())
        }
        None => ruling(false, Rank::Default, "nobody vouches for this content".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Book;

    const A: Sha256 = Sha256([1; 32]);
    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn config(text: &str) -> Config {
        let policy = davy_policy::Policy::parse("p.toml", text).unwrap_or_else(|faults| panic!("{faults}"));
        Config::new(&policy).unwrap()
    }

    fn judge(question: &Question<'_>, book: &Book, config: &Config, now: Timestamp) -> Ruling {
        let said = question.digest.iter().flat_map(|digest| book.vouchers(digest, now)).cloned().collect();
        super::judge(question, said, config, now)
    }

    fn ask(digest: Option<Sha256>) -> Question<'static> {
        Question { digest, path: "/opt/app/run", nameless: false, failsafe: None }
    }

    fn book() -> Book {
        let mut book = Book::default();
        let source = Source::Manifest { signer: "ops".to_owned(), manifest: "app".to_owned() };
        let _ = book.vouch(A, Voucher::lasting(source));
        book
    }

    #[test]
    fn nobody_vouches_for_what_is_unknown() {
        let ruling = judge(&ask(Some(Sha256([9; 32]))), &book(), &config(""), NOW);
        assert_eq!((ruling.allowed, ruling.rank), (false, Rank::Default));
        let ruling = judge(&ask(None), &book(), &config(""), NOW);
        assert_eq!((ruling.allowed, ruling.rank), (false, Rank::Default));
        assert!(ruling.because.contains("could not be read"));
    }

    #[test]
    fn ranks_decide_in_their_order() {
        let allowed = judge(&ask(Some(A)), &book(), &config(""), NOW);
        assert_eq!((allowed.allowed, allowed.rank), (true, Rank::Allowed));
        assert!(allowed.because.contains("ops"), "{}", allowed.because);
        // Code without a file is not vouched for by a manifest, but by the administrator's own list.
        let nameless = Question { nameless: true, ..ask(Some(A)) };
        assert_eq!(judge(&nameless, &book(), &config(""), NOW).rank, Rank::Nameless);
        let listed = format!("[[trust.allow]]\nsha256 = \"{A}\"\nreason = \"ours\"\n");
        assert_eq!(
            judge(&nameless, &listed_book(&config(&listed)), &config(&listed), NOW).rank,
            Rank::Allowed
        );
        // A failsafe lets it run all the same, and the block-list beats even that.
        let spared = Question { failsafe: Some("it is Davy"), ..nameless };
        assert_eq!(judge(&spared, &book(), &config(""), NOW).rank, Rank::Failsafe);
        let blocked = config(&format!("[[trust.block]]\nsha256 = \"{A}\"\nreason = \"seen mining\"\n"));
        let ruling = judge(&spared, &book(), &blocked, NOW);
        assert_eq!((ruling.allowed, ruling.rank), (false, Rank::Blocked));
        assert!(ruling.because.contains("seen mining (p.toml:1)"), "{}", ruling.because);
        let key = minisign::KeyPair::generate_unencrypted_keypair().unwrap().pk.to_base64();
        let signer = config(&format!(
            "[[trust.block]]\nsigner = \"ops\"\nreason = \"it leaked\"\n[[trust.key]]\nname = \"ops\"\nminisign = \"{key}\"\n"
        ));
        assert_eq!(judge(&spared, &book(), &signer, NOW).rank, Rank::Blocked);
    }

    fn listed_book(config: &Config) -> Book {
        let mut book = Book::default();
        config.allow_list().for_each(|(digest, voucher)| {
            let _ = book.vouch(digest, voucher);
        });
        book
    }

    #[test]
    fn a_folder_vouches_for_what_lies_in_it_and_not_beside() {
        let config =
            config("[[trust.allow]]\ndirectory = \"/opt/app\"\nreason = \"built by the vendor's updater\"\n");
        assert!(judge(&ask(Some(Sha256([9; 32]))), &Book::default(), &config, NOW).allowed);
        for path in ["/opt/apple/run", "/opt/app", "/opt/app/../x", "/tmp/opt/app/run"] {
            let ruling = judge(&Question { path, ..ask(None) }, &Book::default(), &config, NOW);
            assert!(!ruling.allowed, "{path}");
        }
    }
}
