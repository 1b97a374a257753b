//! What in a database does not read as its format says.

use std::fmt;

/// How many faults are kept in full; the rest is counted. A damaged database has as many as it has lines.
const KEPT: usize = 32;

/// Characters of an offending line that a fault quotes.
const QUOTED: usize = 80;

/// One line that does not read as its format says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, as the caller named it.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What was expected, and what is there.
    pub message: String,
}

impl Fault {
    pub(crate) fn new(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, message: message.into() }
    }

    /// A fault that quotes the line: escaped, and cut to a length that fits a log.
    pub(crate) fn quoting(file: &str, line: usize, expected: &str, found: &[u8]) -> Self {
        let found: String = String::from_utf8_lossy(&found[..found.len().min(4 * QUOTED)])
            .chars()
            .take(QUOTED)
            .flat_map(char::escape_debug)
            .collect();
        Self::new(file, line, format!("expected {expected}, found \"{found}\""))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

impl std::error::Error for Fault {}

/// Faults of a whole reading: the first ones in full, the others as a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    kept: Vec<Fault>,
    more: usize,
}

impl Faults {
    /// Adds one.
    pub fn push(&mut self, fault: Fault) {
        if self.kept.len() < KEPT {
            self.kept.push(fault);
        } else {
            self.more += 1;
        }
    }

    /// Adds all of `other`.
    pub fn append(&mut self, other: Self) {
        self.more += other.more;
        other.kept.into_iter().for_each(|fault| self.push(fault));
    }

    /// The first ones, in the order they were found.
    pub fn first(&self) -> &[Fault] {
        &self.kept
    }

    /// How many there were, those that were not kept included.
    pub fn count(&self) -> usize {
        self.kept.len() + self.more
    }
}

/// What a text says, and what in it could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// What it says.
    pub entries: T,
    /// What could not be read, and was left out.
    pub faults: Faults,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_of_any_length_keeps_a_bounded_number_of_faults() {
        let mut faults = Faults::default();
        for line in 1..=1000 {
            faults.push(Fault::new("status", line, "no"));
        }
        let mut all = Faults::default();
        all.append(faults.clone());
        all.append(faults);
        assert_eq!((all.first().len(), all.count()), (KEPT, 2000));
        assert_eq!(all.first()[1].to_string(), "status:2: no");
    }

    #[test]
    fn a_quoted_line_is_one_short_line_of_print() {
        let fault = Fault::quoting("list", 7, "a path", "\u{1b}[31m\nü".repeat(10_000).as_bytes());
        assert!(fault.message.len() < 20 * QUOTED, "{}", fault.message.len());
        assert!(fault.message.chars().all(|c| !c.is_control()), "{}", fault.message);
    }
}
