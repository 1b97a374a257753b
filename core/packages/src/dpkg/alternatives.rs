//! `alternatives/NAME`: links that the administrator or a priority chooses the target of (update-alternatives(1)).

use crate::fault::{Fault, Faults, Read};
use crate::path::is_plain;

/// Who chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The highest priority.
    Auto,
    /// The administrator did.
    Manual,
}

/// What an alternative can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The file.
    pub path: Vec<u8>,
    /// The higher, the sooner it is chosen.
    pub priority: i64,
    /// The files for the links that follow this one, in the order of [`Alternative::followers`]; empty where it has none.
    pub followers: Vec<Vec<u8>>,
}

/// A link with choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Who chooses.
    pub mode: Mode,
    /// The link, such as `/usr/bin/awk`. It points to `/etc/alternatives/NAME`, which points to the choice.
    pub link: Vec<u8>,
    /// Links that change with it ("slaves"), by name: their names and the links.
    pub followers: Vec<(Vec<u8>, Vec<u8>)>,
    /// What it can be.
    pub choices: Vec<Choice>,
}

impl Alternative {
    /// Whether a package or the administrator registered `path` as a target of this link or one that follows it.
    pub fn offers(&self, path: &[u8]) -> bool {
        self.choices.iter().any(|choice| choice.path == path || choice.followers.iter().any(|f| f == path))
    }
}

/// Reads the state of one alternative. `None` when it cannot be made sense of; a fault then says why.
pub fn read_alternative(file: &str, text: &[u8]) -> Read<Option<Alternative>> {
    let mut faults = Faults::default();
    let entries = match alternative(file, text) {
        Ok(alternative) => Some(alternative),
        Err(fault) => {
            faults.push(fault);
            None
        }
    };
    Read { entries, faults }
}

fn alternative(file: &str, text: &[u8]) -> Result<Alternative, Fault> {
    let mut lines = Lines { file, lines: text.split(|b| *b == b'\n'), number: 0 };
    let mode = match lines.next("auto or manual")? {
        b"auto" => Mode::Auto,
        b"manual" => Mode::Manual,
        other => return Err(lines.fault("auto or manual", other)),
    };
    let link = lines.path("the path of a link")?;
    let mut followers = Vec::new();
    loop {
        let name = lines.next("a name or an empty line")?;
        if name.is_empty() {
            break;
        }
        followers.push((name.to_vec(), lines.path("the path of a link")?));
    }
    let mut choices = Vec::new();
    loop {
        // An empty line ends the choices; that the file ends there too is as good.
        let path = lines.next("a path or an empty line").unwrap_or_default();
        if path.is_empty() {
            break;
        }
        if !is_plain(path) {
            return Err(lines.fault("a path or an empty line", path));
        }
        let priority = lines.next("a priority")?;
        let Some(priority) = std::str::from_utf8(priority).ok().and_then(|p| p.parse().ok()) else {
            return Err(lines.fault("a priority", priority));
        };
        let mut files = Vec::new();
        for _ in &followers {
            let file = lines.next("a path or an empty line")?;
            if !file.is_empty() && !is_plain(file) {
                return Err(lines.fault("a path or an empty line", file));
            }
            files.push(file.to_vec());
        }
        choices.push(Choice { path: path.to_vec(), priority, followers: files });
    }
    Ok(Alternative { mode, link, followers, choices })
}

struct Lines<'a, I: Iterator<Item = &'a [u8]>> {
    file: &'a str,
    lines: I,
    number: usize,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Lines<'a, I> {
    fn next(&mut self, expected: &str) -> Result<&'a [u8], Fault> {
        self.number += 1;
        self.lines
            .next()
            .ok_or_else(|| Fault::new(self.file, self.number, format!("expected {expected}, found the end")))
    }

    fn path(&mut self, expected: &str) -> Result<Vec<u8>, Fault> {
        let line = self.next(expected)?;
        if is_plain(line) { Ok(line.to_vec()) } else { Err(self.fault(expected, line)) }
    }

    fn fault(&self, expected: &str, found: &[u8]) -> Fault {
        Fault::quoting(self.file, self.number, expected, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWK: &[u8] = b"auto\n/usr/bin/awk\nawk.1.gz\n/usr/share/man/man1/awk.1.gz\nnawk\n/usr/bin/nawk\n\n\
        /usr/bin/mawk\n5\n/usr/share/man/man1/mawk.1.gz\n/usr/bin/mawk\n\
        /usr/bin/original-awk\n-3\n\n/usr/bin/original-awk\n\n";

    #[test]
    fn links_choices_and_followers_are_read() {
        let awk = read_alternative("awk", AWK).entries.expect("an alternative");
        assert_eq!((awk.mode, awk.link.as_slice()), (Mode::Auto, &b"/usr/bin/awk"[..]));
        assert_eq!(awk.followers[1], (b"nawk".to_vec(), b"/usr/bin/nawk".to_vec()));
        let choices: Vec<_> = awk.choices.iter().map(|c| (c.path.as_slice(), c.priority)).collect();
        assert_eq!(choices, [(&b"/usr/bin/mawk"[..], 5), (b"/usr/bin/original-awk", -3)]);
        assert!(awk.choices[1].followers[0].is_empty());
        assert!(awk.offers(b"/usr/bin/mawk") && awk.offers(b"/usr/share/man/man1/mawk.1.gz"));
        assert!(!awk.offers(b"/tmp/awk"));
    }

    #[test]
    fn a_damaged_state_is_named_and_left_out() {
        for (text, line) in [
            (&b"perhaps\n"[..], 1),
            (b"auto\nrelative\n", 2),
            (b"auto\n/a\nname", 4),
            (b"auto\n/a\n\nrelative\n", 4),
            (b"auto\n/a\n\n/b\nmany\n", 5),
            (b"auto\n/a\nn\n/n\n\n/b\n1\nrel\n", 8),
            (b"", 1),
        ] {
            let read = read_alternative("alternatives/x", text);
            assert_eq!(read.entries, None);
            assert_eq!(read.faults.first()[0].line, line, "{:?}", String::from_utf8_lossy(text));
        }
    }
}
