//! How people name incidents, findings and actions: `7`, `f12`, `a31`, or in words.

use davy_model::{ActionId, FindingId, IncidentId};

use crate::failure::{Exit, Failure};

/// One thing that has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// An incident: `7` or `incident 7`.
    Incident(IncidentId),
    /// A finding: `f12` or `finding 12`.
    Finding(FindingId),
    /// An action: `a31` or `action 31`.
    Action(ActionId),
}

impl Subject {
    /// What one or two words mean.
    ///
    /// # Errors
    /// Wrong usage, with what would have been understood.
    pub(crate) fn parse(words: &[String]) -> Result<Self, Failure> {
        let (kind, number) = match words {
            [kind, number] => (kind.as_str(), number.as_str()),
            [word] => match word.strip_prefix(['f', 'F']) {
                Some(number) => ("finding", number),
                None => match word.strip_prefix(['a', 'A']) {
                    Some(number) => ("action", number),
                    None => ("incident", word.strip_prefix(['i', 'I']).unwrap_or(word)),
                },
            },
            _ => ("", ""),
        };
        let subject = number.trim_start_matches('#').parse().ok().and_then(|n| match kind {
            "incident" => Some(Self::Incident(IncidentId(n))),
            "finding" => Some(Self::Finding(FindingId(n))),
            "action" => Some(Self::Action(ActionId(n))),
            _ => None,
        });
        subject.ok_or_else(|| {
            Failure::new(Exit::Usage, format!("{:?} names nothing", words.join(" ")))
                .hint("an incident is named by its number (7), a finding f12, an action a31")
        })
    }
}

/// The number of an incident, as clap reads it.
///
/// # Errors
/// A sentence that says what was expected.
pub(crate) fn incident(word: &str) -> Result<u64, String> {
    match Subject::parse(&[word.to_owned()]) {
        Ok(Subject::Incident(IncidentId(n))) => Ok(n),
        _ => Err("expected the number of an incident, such as 7 (davy incidents lists them)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn understands_numbers_letters_and_words() {
        let parse = |text: &str| Subject::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>()).ok();
        assert_eq!(parse("7"), Some(Subject::Incident(IncidentId(7))));
        assert_eq!(parse("f12"), Some(Subject::Finding(FindingId(12))));
        assert_eq!(parse("finding 12"), Some(Subject::Finding(FindingId(12))));
        assert_eq!(parse("a31"), Some(Subject::Action(ActionId(31))));
        assert_eq!(parse("-1"), None);
        assert_eq!(parse("login 3"), None);
        assert!(incident("f3").is_err());
    }

    proptest! {
        #[test]
        fn no_word_panics(words in proptest::collection::vec(any::<String>(), 0..4)) {
            let _ = Subject::parse(&words);
        }
    }
}
