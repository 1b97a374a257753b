//! Commands, and patterns of them.

/// What is shown and remembered of a command, in characters.
const MAX_SHOWN: usize = 240;

/// A command line as one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    text: String,
    /// Whether all of it is known.
    whole: bool,
}

impl Command {
    /// From the arguments, the first of which is shown by its last name. `cut` says that there were more.
    #[must_use]
    pub fn new(args: &[String], cut: bool) -> Self {
        let mut words = Vec::with_capacity(args.len());
        for (index, arg) in args.iter().enumerate() {
            // Newer C libraries end a shell's options before the command that they give it.
            if arg == "--" && index == 2 && args[1] == "-c" {
                continue;
            }
            words.push(if index == 0 { arg.rsplit('/').next().unwrap_or(arg) } else { arg });
        }
        Self { text: words.join(" "), whole: !cut }
    }

    /// Whether it fits a pattern. In a pattern `*` stands for a run of letters, digits and `_ . / : = , @ % + -`, and so never
    /// for a blank or anything that a shell reads as more than a word: what is appended to a command does not fit. A
    /// command that is not known whole fits nothing.
    #[must_use]
    pub fn fits(&self, pattern: &str) -> bool {
        self.whole && fits(pattern.as_bytes(), self.text.as_bytes())
    }

    /// For people: on one line, and not longer than a page is wide.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text: String =
            self.text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect();
        if !self.whole || self.text.chars().count() > MAX_SHOWN {
            text.push_str("...");
        }
        text
    }

    /// As a pattern for commands that are alike; nothing where it is too long, not known whole, or holds a `*` itself, of which
    /// a pattern cannot say that it is meant.
    #[must_use]
    pub fn shape(&self) -> Option<String> {
        let plain = self.whole && self.text.chars().count() <= MAX_SHOWN && !self.text.contains('*');
        (plain && !self.text.contains(char::is_control)).then(|| shape(&self.text))
    }
}

const fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'_' | b'.' | b'/' | b':' | b'=' | b',' | b'@' | b'%' | b'+' | b'-')
}

/// Both are walked once, with one place to come back to: the last star. That is enough, because a later star takes whatever an
/// earlier one could have.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star
            && plain(text[from])
        {
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The command with each of its words replaced by `*` that has a digit and nothing that a shell reads: numbers, dates and names
/// that were made for once change from one time to the next. Other words are kept, and the first always.
#[must_use]
pub fn shape(command: &str) -> String {
    let word = |(index, word): (usize, &str)| {
        let changes = index > 0 && word.bytes().any(|b| b.is_ascii_digit()) && word.bytes().all(plain);
        if changes { "*".to_owned() } else { word.to_owned() }
    };
    command.split(' ').enumerate().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(args: &[&str]) -> Command {
        Command::new(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>(), false)
    }

    #[test]
    fn a_star_is_a_word_and_never_more_than_one() {
        let table = [
            ("sh -c /usr/sbin/sendmail -t -i", "sh -c /usr/sbin/sendmail -t -i", true),
            ("sh -c /usr/sbin/sendmail -t -i -f*", "sh -c /usr/sbin/sendmail -t -i -fme@example.org", true),
            (
                "sh -c /usr/sbin/sendmail -t -i -f*",
                "sh -c /usr/sbin/sendmail -t -i -fme -X/var/www/a.php",
                false,
            ),
            ("sh -c cp * *", "sh -c cp pg_wal/00000001 /srv/archive/00000001", true),
            ("sh -c cp * *", "sh -c cp a b;id", false),
            ("sh -c cp * *", "sh -c cp a $(id)", false),
            ("sh -c cp * *", "sh -c cp a b\nid", false),
            ("sh -c cp * *", "sh -c cp a b &", false),
            ("sh -c cp * *", "sh -c cp a `id`", false),
            ("sh -c id", "sh -c id x", false),
            ("a*b*c", "axbxbyc", true),
            ("a*b*c", "axb xbyc", false),
            ("*", "", true),
            ("", "x", false),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn commands_are_compared_as_they_were_given() {
        assert!(command(&["/bin/sh", "-c", "id -u"]).fits("sh -c id -u"));
        assert!(command(&["sh", "-c", "--", "id"]).fits("sh -c id"));
        assert!(!command(&["sh", "-x", "--", "id"]).fits("sh -x id"));
        let cut = Command::new(&["sh".to_owned(), "-c".to_owned(), "id".to_owned()], true);
        assert!(!cut.fits("sh -c id") && cut.shape().is_none() && cut.shown().ends_with("..."));
        assert_eq!(command(&["sh", "a\nb"]).shown(), "sh a?b");
        assert!(command(&["sh", "-c", "rm *"]).shape().is_none());
    }

    #[test]
    fn what_changes_from_one_time_to_the_next_is_not_kept() {
        let table = [
            ("sh -c convert /tmp/php4x -resize 10x10 out.png", "sh -c convert * -resize * out.png"),
            ("sh -c id 2>&1", "sh -c id 2>&1"),
            ("gs9 -q", "gs9 -q"),
        ];
        for (text, expected) in table {
            assert_eq!(shape(text), expected);
        }
    }

    proptest! {
        #[test]
        fn a_command_fits_its_own_shape(args in proptest::collection::vec("[ -~]{0,20}", 0..6)) {
            let command = Command::new(&args, false);
            if let Some(shape) = command.shape() {
                prop_assert!(command.fits(&shape), "{shape}");
            }
        }

        #[test]
        fn what_a_shell_reads_as_more_never_fits_a_star(
            before in "[a-z0-9 ]{0,8}", more in "[;&|$`<>(){}\n\\\\'\"]", after in "[a-z ]{0,8}"
        ) {
            let pattern = "sh -c * * *";
            let text = format!("sh -c {before}{more}{after}");
            prop_assert!(!fits(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
