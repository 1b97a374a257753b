//! Where answers go: pages for people, documents for programs, failures and hints to standard error.

use std::io::{self, IsTerminal, Write};

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::document;
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::verbs::{Common, When};

/// The width of a page that goes to a file or a pipe.
const WIDTH_OF_FILES: usize = 120;

/// How to answer.
#[derive(Clone, Debug)]
pub(crate) struct Answering {
    /// In JSON, not for people.
    pub(crate) json: bool,
    /// Columns of the terminal.
    pub(crate) width: usize,
    /// Say less.
    pub(crate) quiet: bool,
    /// Say more.
    pub(crate) verbose: u8,
    /// Whether standard output is a terminal.
    pub(crate) terminal: bool,
    /// Whether standard error is a terminal.
    pub(crate) error_terminal: bool,
    /// The clock and zone of the reader.
    pub(crate) clock: Clock,
    color: bool,
    error_color: bool,
}

impl Answering {
    /// As the options and the terminal ask for.
    pub(crate) fn new(common: &Common) -> Self {
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let color = |terminal: bool| match common.color {
            When::Auto => terminal && allowed,
            When::Always => true,
            When::Never => false,
        };
        let width = match io::stdout().is_terminal().then(crossterm::terminal::size) {
            Some(Ok((columns, _))) if columns > 0 => usize::from(columns).clamp(60, 160),
            _ => WIDTH_OF_FILES,
        };
        Self {
            json: common.json,
            width,
            quiet: common.quiet,
            verbose: common.verbose,
            terminal: io::stdout().is_terminal(),
            error_terminal: io::stderr().is_terminal(),
            clock: Clock::system(),
            color: color(io::stdout().is_terminal()),
            error_color: color(io::stderr().is_terminal()),
        }
    }

    /// For people, without colours, by a clock that stands.
    #[cfg(test)]
    pub(crate) fn for_tests(clock: Clock, width: usize) -> Self {
        Self {
            json: false,
            width,
            quiet: false,
            verbose: 0,
            terminal: false,
            error_terminal: false,
            clock,
            color: false,
            error_color: false,
        }
    }

    /// Whether standard output takes colours.
    pub(crate) fn color(&self) -> bool {
        self.color
    }

    /// Whether standard error takes colours.
    pub(crate) fn error_color(&self) -> bool {
        self.error_color
    }

    /// Prints a page for people.
    pub(crate) fn page(&self, page: &Page) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(page.print(self.color).as_bytes())?;
        out.flush()
    }

    /// Prints one JSON document.
    pub(crate) fn document(&self, value: &Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(document::pretty(value).as_bytes())?;
        out.flush()
    }

    /// Prints one JSON document on a line of its own.
    pub(crate) fn document_line(&self, value: &Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(document::line(value).as_bytes())?;
        out.flush()
    }

    /// Prints what was done: a sentence, or one a line.
    pub(crate) fn sentence(&self, text: &str) -> io::Result<()> {
        if self.json {
            return self.document(&json!({ "done": text }));
        }
        let mut page = Page::new();
        for line in text.lines() {
            page.extend(Line::of(line).wrap(self.width));
        }
        self.page(&page)
    }

    /// Says to people what to do next, on standard error, so that it is in no file that the answer is written to.
    pub(crate) fn next(&self, text: &str) {
        if self.quiet || self.json {
            return;
        }
        let mut page = Page::new();
        page.extend(text.lines().map(|line| Line::in_role(Role::Hint, line)));
        // There is nowhere left to report that standard error is closed.
        let _ = io::stderr().lock().write_all(page.print(self.error_color).as_bytes());
    }

    /// Says what went wrong.
    pub(crate) fn failure(&self, failure: &Failure) {
        let text = if self.json {
            document::line(&json!({ "error": {
                "code": failure.exit.name(), "message": failure.message, "hint": failure.hint } }))
        } else {
            let mut page = Page::new();
            page.push(Line::in_role(Role::Alarm, "davy: ").and(Role::Plain, &failure.message));
            if let Some(hint) = failure.hint.as_ref().filter(|_| !self.quiet) {
                page.push(Line::in_role(Role::Quiet, "      ").and(Role::Hint, hint));
            }
            page.print(self.error_color)
        };
        // There is nowhere left to report that standard error is closed.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}
