//! A page of text for people: lines of spans, each with a role that becomes a colour on a terminal.
//!
//! A [`Span`] escapes its text when it is made, and the only control bytes that [`Page::print`] adds are line ends
//! and its own colours. So nothing that reaches a terminal through a page can speak to the terminal.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::escape::plain;

/// What a span says, from which its colour follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ordinary text.
    #[default]
    Plain,
    /// The words to read first.
    Strong,
    /// Labels and side remarks.
    Quiet,
    /// All is well.
    Good,
    /// Not as it should be.
    Warning,
    /// Someone should act.
    Alarm,
    /// Something to type or to look up.
    Hint,
}

impl Role {
    fn sgr(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Strong => Some("1"),
            Self::Quiet => Some("2"),
            Self::Good => Some("32"),
            Self::Warning => Some("33"),
            Self::Alarm => Some("1;31"),
            Self::Hint => Some("36"),
        }
    }
}

/// Some text of one role, escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    role: Role,
    text: String,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line(Vec<Span>);

impl Line {
    /// An empty line.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A line of ordinary text.
    pub(crate) fn of(text: impl AsRef<str>) -> Self {
        Self::new().and(Role::Plain, text)
    }

    /// A line of text in a role.
    pub(crate) fn in_role(role: Role, text: impl AsRef<str>) -> Self {
        Self::new().and(role, text)
    }

    /// This line, followed by `text`.
    pub(crate) fn and(mut self, role: Role, text: impl AsRef<str>) -> Self {
        let text = plain(text.as_ref()).into_owned();
        if !text.is_empty() {
            self.0.push(Span { role, text });
        }
        self
    }

    /// This line, followed by another.
    pub(crate) fn join(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Columns it takes.
    pub(crate) fn width(&self) -> usize {
        self.0.iter().map(|s| s.text.width()).sum()
    }

    /// This line broken at spaces so that none is wider than `width` columns.
    pub(crate) fn wrap(&self, width: usize) -> Vec<Self> {
        let width = width.max(8);
        if self.width() <= width {
            return vec![self.clone()];
        }
        let mut lines = vec![];
        let mut line = Self::new();
        let mut used = 0;
        for span in &self.0 {
            for word in span.text.split_inclusive(' ') {
                for piece in pieces(word, width) {
                    let bare = piece.trim_end().width();
                    if used > 0 && used + bare > width {
                        lines.push(std::mem::take(&mut line).trimmed());
                        used = 0;
                    }
                    used += piece.width();
                    line = line.and(span.role, piece);
                }
            }
        }
        lines.push(line.trimmed());
        lines
    }

    fn trimmed(mut self) -> Self {
        while let Some(last) = self.0.last_mut() {
            last.text.truncate(last.text.trim_end().len());
            if !last.text.is_empty() {
                break;
            }
            self.0.pop();
        }
        self
    }

    fn print(&self, color: bool, out: &mut String) {
        for span in &self.0 {
            match span.role.sgr() {
                Some(sgr) if color => {
                    out.push_str("\x1b[");
                    out.push_str(sgr);
                    out.push('m');
                    out.push_str(&span.text);
                    out.push_str("\x1b[0m");
                }
                _ => out.push_str(&span.text),
            }
        }
    }
}

/// A word cut into pieces of at most `width` columns, for words that are longer than a line.
fn pieces(word: &str, width: usize) -> Vec<&str> {
    let mut out = vec![];
    let (mut start, mut used) = (0, 0);
    for (at, c) in word.char_indices() {
        let wide = c.width().unwrap_or(0);
        if used + wide > width && c != ' ' {
            out.push(&word[start..at]);
            (start, used) = (at, 0);
        }
        used += wide;
    }
    out.push(&word[start..]);
    out
}

/// Lines for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    lines: Vec<Line>,
}

impl Page {
    /// An empty page.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a line.
    pub(crate) fn push(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// Adds lines.
    pub(crate) fn extend(&mut self, lines: impl IntoIterator<Item = Line>) {
        self.lines.extend(lines);
    }

    /// Adds an empty line, unless the page is empty or ends with one.
    pub(crate) fn gap(&mut self) {
        if self.lines.last().is_some_and(|l| !l.is_empty()) {
            self.lines.push(Line::new());
        }
    }

    /// The page as text, with colours or without.
    pub(crate) fn print(&self, color: bool) -> String {
        let mut out = String::new();
        for line in &self.lines {
            line.print(color, &mut out);
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wraps_at_words_and_breaks_what_is_longer_than_a_line() {
        let line = Line::of("one two ").and(Role::Strong, "three abcdefghijklmnop");
        let printed: Vec<String> = line
            .wrap(10)
            .into_iter()
            .map(|l| {
                let mut text = String::new();
                l.print(false, &mut text);
                text
            })
            .collect();
        assert_eq!(printed, ["one two", "three", "abcdefghij", "klmnop"]);
    }

    proptest! {
        #[test]
        fn only_its_own_colours_reach_the_terminal(texts in proptest::collection::vec(any::<String>(), 0..6), width in 1usize..80) {
            let mut line = Line::new();
            for (n, text) in texts.iter().enumerate() {
                line = line.and(if n % 2 == 0 { Role::Alarm } else { Role::Plain }, text);
            }
            let mut page = Page::new();
            page.extend(line.wrap(width));
            let plain = page.print(false);
            prop_assert!(!plain.chars().any(|c| c.is_control() && c != '\n'));
            let coloured = page.print(true).replace("\x1b[1;31m", "").replace("\x1b[0m", "");
            prop_assert!(!coloured.contains('\x1b'));
            prop_assert_eq!(plain, coloured);
        }

        #[test]
        fn no_wrapped_line_is_too_wide(text in "[a-z矿 ]{0,120}", width in 8usize..60) {
            for line in Line::of(&text).wrap(width) {
                prop_assert!(line.width() <= width);
            }
        }
    }
}
