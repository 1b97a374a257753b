//! Who sits at a terminal where code was refused is told why, there.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use davy_model::{CodeKind, CodeReason, PendingId};
use rustix::fs::{CWD, Mode, OFlags};

/// One terminal is told so many lines in so long; what is refused beyond that is not told there.
const LINES: u32 = 5;
const WHILE: Duration = Duration::from_secs(60);

/// Terminals remembered; when full, all are forgotten.
const MAX_TERMINALS: usize = 256;

/// Characters of a path that are told.
const MAX_PATH: usize = 160;

/// The terminal of a process, and who else may still see it when that process is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// Below /dev, such as `pts/3`.
    pub(super) tty: String,
    /// The process, then its parents: through their root folder it is opened, because containers have terminals of the
    /// same name.
    pub(super) pids: Vec<u32>,
}

/// What was told where.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// By the terminal's name, whichever container it is in.
    told: HashMap<String, (Instant, u32)>,
}

impl Notices {
    /// Writes one line. A terminal that is gone, or takes nothing now, is not waited for.
    pub(super) fn tell(&mut self, seat: &Seat, line: &str) {
        if !self.may_tell(&seat.tty, Instant::now()) {
            return;
        }
        if let Some(mut terminal) = seat.pids.iter().find_map(|pid| open(*pid, &seat.tty)) {
            // It may be full, or its other end closed: then nobody reads it.
            let _ = terminal.write_all(format!("{line}\r\n").as_bytes());
        }
    }

    fn may_tell(&mut self, tty: &str, now: Instant) -> bool {
        if self.told.len() >= MAX_TERMINALS && !self.told.contains_key(tty) {
            self.told.clear();
        }
        let (since, lines) = self.told.entry(tty.to_owned()).or_insert((now, 0));
        if now.duration_since(*since) >= WHILE {
            (*since, *lines) = (now, 0);
        }
        *lines += 1;
        *lines <= LINES
    }
}

/// The terminal of that name as a process sees it. What else lies there under that name is not opened.
fn open(pid: u32, tty: &str) -> Option<File> {
    let simple = |part: &str| !part.is_empty() && !part.starts_with('.');
    if !tty.split('/').all(simple) {
        return None;
    }
    let path = PathBuf::from(format!("/proc/{pid}/root/dev/{tty}"));
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = File::from(rustix::fs::openat(CWD, &path, flags, Mode::empty()).ok()?);
    place.metadata().ok().filter(|found| found.file_type().is_char_device())?;
    let again = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let terminal = rustix::fs::openat(CWD, again, flags, Mode::empty()).ok()?;
    rustix::termios::isatty(&terminal).then(|| File::from(terminal))
}

/// What is told of code that was refused. `waits` is its number among what waits for the administrator.
pub(super) fn line(kind: CodeKind, reason: CodeReason, path: &str, waits: Option<PendingId>) -> String {
    let what = match kind {
        CodeKind::Nameless => "a program without a file".to_owned(),
        CodeKind::Memory => "memory that a program wrote".to_owned(),
        CodeKind::Trace => "an act on another process".to_owned(),
        _ if path.is_empty() => "code".to_owned(),
        _ => plain(path),
    };
    let why = match reason {
        CodeReason::Blocked => "it is on the block-list",
        CodeReason::Nameless => "no list can vouch for it",
        CodeReason::OpenForWriting | CodeReason::InUse => "somebody has it open for writing; try again",
        CodeReason::NotAllowed => "this program may not",
        CodeReason::Unreadable => "it cannot be read, or not in the time there is",
        _ => "nobody vouches for it",
    };
    let waits = waits.filter(|_| reason != CodeReason::Blocked);
    let then = waits.map(|id| format!(" Administrator: davy trust approve {}", id.0)).unwrap_or_default();
    format!("davy: {what} was not run: {why}.{then}")
}

/// A path as a terminal may show it: its author chose it, and must not write to the terminal.
fn plain(path: &str) -> String {
    let shown: String = path.chars().take(MAX_PATH).flat_map(char::escape_debug).collect();
    if path.chars().count() > MAX_PATH { format!("{shown}…") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_why_and_what_then() {
        let said = |kind, reason, id| line(kind, reason, "/tmp/x", id);
        assert_eq!(
            said(CodeKind::Exec, CodeReason::Unknown, Some(PendingId(12))),
            "davy: /tmp/x was not run: nobody vouches for it. Administrator: davy trust approve 12"
        );
        assert_eq!(
            said(CodeKind::Exec, CodeReason::Blocked, Some(PendingId(12))),
            "davy: /tmp/x was not run: it is on the block-list."
        );
        let nameless = said(CodeKind::Nameless, CodeReason::Nameless, None);
        assert_eq!(nameless, "davy: a program without a file was not run: no list can vouch for it.");
    }

    #[test]
    fn a_path_cannot_write_to_the_terminal() {
        let said = line(CodeKind::Exec, CodeReason::Unknown, "/tmp/\u{1b}[2J\u{9b}\n\u{202e}x", None);
        assert!(said.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{said:?}");
        let long = line(CodeKind::Exec, CodeReason::Unknown, &"x".repeat(100_000), None);
        assert!(long.len() < 300);
    }

    #[test]
    fn a_terminal_is_not_flooded_and_another_is_told() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        let told = (0..100).filter(|_| notices.may_tell("pts/1", now)).count();
        assert_eq!(told, 5);
        assert!(notices.may_tell("pts/2", now));
        assert!(notices.may_tell("pts/1", now + WHILE));
        for terminal in 0..10_000 {
            notices.may_tell(&format!("pts/{terminal}"), now);
        }
        assert!(notices.told.len() <= MAX_TERMINALS);
    }

    #[test]
    fn only_a_terminal_is_opened() {
        let own = std::process::id();
        for name in ["null", "", "../etc/passwd", "pts/../null", "no-such", "pts"] {
            assert!(open(own, name).is_none(), "{name}");
        }
    }
}
