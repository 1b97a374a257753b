//! What of all changes is worth an event.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use davy_model::{Event, EventKind, FileAct, FileChange, FileId, PersistencePlace, Timestamp};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};

use crate::content::{Content, FIRST};
use crate::known::Known;
use crate::place::place_of;
use crate::tally::Tally;
use crate::throttle::Throttle;
use crate::watcher::WatchConfig;

/// At most twice so many files are remembered as programs.
const MAX_PROGRAMS: usize = 8192;

/// Ends of names of data. A file called so is not opened unless it may be executed or lies in a persistence place.
const DATA: &[&str] = &[
    "bak",
    "bin",
    "bz2",
    "c",
    "cc",
    "cfg",
    "class",
    "conf",
    "cpp",
    "css",
    "csv",
    "d",
    "db",
    "dep",
    "dwo",
    "gcda",
    "gcno",
    "gif",
    "gz",
    "h",
    "hpp",
    "htm",
    "html",
    "ibd",
    "ico",
    "ini",
    "jar",
    "java",
    "jpeg",
    "jpg",
    "json",
    "ldb",
    "lock",
    "log",
    "lst",
    "map",
    "md",
    "mp4",
    "myd",
    "o",
    "obj",
    "pack",
    "pdf",
    "png",
    "po",
    "pyc",
    "rcgu",
    "rlib",
    "rmeta",
    "rs",
    "rst",
    "sst",
    "svg",
    "swp",
    "timestamp",
    "tmp",
    "toml",
    "ts",
    "txt",
    "wal",
    "webp",
    "xml",
    "xz",
    "yaml",
    "yml",
    "zip",
    "zst",
];

/// Ends of names that web servers hand to an interpreter.
const WEB: &[&str] = &[
    "ashx", "asmx", "asp", "aspx", "cfm", "cgi", "jsp", "jspf", "jspx", "phar", "php", "php3", "php4",
    "php5", "php7", "php8", "pht", "phtml", "shtml",
];

/// What a notification says was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Written,
    Renamed {
        from: Option<String>,
    },
    Deleted,
    Attributes,
    /// A name was made: for a symbolic or hard link all there is to see.
    Linked,
}

/// A file known to be a program or script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Program {
    file: FileId,
    executable: bool,
    code: bool,
}

/// Decides, and gives what is worth it to the sink.
pub(crate) struct Sieve {
    config: WatchConfig,
    own: u32,
    programs: Known<String, Program>,
    throttle: Throttle,
    tally: Arc<Tally>,
    sink: Box<dyn FnMut(Event) + Send>,
}

impl Sieve {
    pub(crate) fn new(config: WatchConfig, tally: Arc<Tally>, sink: Box<dyn FnMut(Event) + Send>) -> Self {
        let throttle = Throttle::new(config.per_process);
        Self { config, own: std::process::id(), programs: Known::new(MAX_PROGRAMS), throttle, tally, sink }
    }

    /// Davy's own acts are no news to Davy.
    pub(crate) fn ignores(&self, pid: u32) -> bool {
        pid == self.own
    }

    /// Looks at one change; `false` when there was nothing under the path to look at. `pid` is zero where unknown.
    pub(crate) fn take(&mut self, path: &str, act: &Act, pid: u32, now: Instant) -> bool {
        let place = place_of(path);
        if *act == Act::Deleted {
            self.deleted(path, place, pid, now);
            return true;
        }
        let Ok(stat) = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) else { return false };
        match act {
            Act::Written => self.written(path, &stat, place, pid, now, content),
            Act::Renamed { from } => self.renamed(path, from.clone(), &stat, place, pid, now),
            Act::Attributes => self.attributes(path, &stat, place, pid, now),
            Act::Linked | Act::Deleted => self.linked(path, &stat, place, pid, now),
        }
        true
    }

    /// Looks at a file that was written and is open, whatever its path leads to by now.
    pub(crate) fn take_open(&mut self, path: &str, file: &OwnedFd, pid: u32, now: Instant) {
        if let Ok(stat) = rustix::fs::fstat(file) {
            self.written(path, &stat, place_of(path), pid, now, |_| content_of(file));
        }
    }

    fn written(
        &mut self,
        path: &str,
        stat: &Stat,
        place: Option<PersistencePlace>,
        pid: u32,
        now: Instant,
        content: impl Fn(&str) -> Content,
    ) {
        if !is_regular(stat) || (place.is_none() && is_data(path) && !is_executable(stat)) {
            return;
        }
        let content = content(path);
        if place.is_some() || is_program(content, stat, path) {
            self.emit(path, stat, content, FileAct::Written, place, pid, now);
        }
    }

    fn renamed(
        &mut self,
        path: &str,
        from: Option<String>,
        stat: &Stat,
        place: Option<PersistencePlace>,
        pid: u32,
        now: Instant,
    ) {
        if let Some(from) = &from {
            self.programs.remove(from);
        }
        let left = from.as_deref().and_then(place_of);
        if place.is_none() && left.is_none() && (!is_regular(stat) || (is_data(path) && !is_executable(stat)))
        {
            return;
        }
        let content = if is_regular(stat) { content(path) } else { Content::Other };
        let matters = place.or(left);
        if matters.is_some() || is_program(content, stat, path) {
            self.emit(path, stat, content, FileAct::Renamed { from }, matters, pid, now);
        }
    }

    fn attributes(
        &mut self,
        path: &str,
        stat: &Stat,
        place: Option<PersistencePlace>,
        pid: u32,
        now: Instant,
    ) {
        if !is_regular(stat) || (place.is_none() && !is_executable(stat)) {
            return;
        }
        let known = self.programs.get(&path.to_owned());
        if known.is_some_and(|p| p.file == file_id(stat) && p.executable == is_executable(stat)) {
            return;
        }
        let content = content(path);
        if place.is_some() || content.is_code() {
            self.emit(path, stat, content, FileAct::AttributesChanged, place, pid, now);
        }
    }

    /// A plain file that was just made is told when it is closed; a link is not written to.
    fn linked(&mut self, path: &str, stat: &Stat, place: Option<PersistencePlace>, pid: u32, now: Instant) {
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink || stat.st_nlink > 1;
        if place.is_some() && is_link && !is_folder(stat) {
            let content = if is_regular(stat) { content(path) } else { Content::Other };
            self.emit(path, stat, content, FileAct::Renamed { from: None }, place, pid, now);
        }
    }

    fn deleted(&mut self, path: &str, place: Option<PersistencePlace>, pid: u32, now: Instant) {
        let known = self.programs.remove(&path.to_owned());
        if place.is_none() && known.is_none() && !(self.config.is_program)(path) {
            return;
        }
        let change = FileChange {
            path: path.to_owned(),
            file: known.map_or_else(FileId::default, |p| p.file),
            act: FileAct::Deleted,
            executable: known.is_some_and(|p| p.executable),
            code: known.is_some_and(|p| p.code),
            place,
        };
        self.give(change, pid, now);
    }

    #[allow(clippy::too_many_arguments)]
    fn emit(
        &mut self,
        path: &str,
        stat: &Stat,
        content: Content,
        act: FileAct,
        place: Option<PersistencePlace>,
        pid: u32,
        now: Instant,
    ) {
        let program = Program {
            file: file_id(stat),
            executable: is_regular(stat) && is_executable(stat),
            code: content.is_code(),
        };
        self.programs.insert(path.to_owned(), program);
        let Program { file, executable, code } = program;
        self.give(FileChange { path: path.to_owned(), file, act, executable, code, place }, pid, now);
    }

    fn give(&mut self, change: FileChange, pid: u32, now: Instant) {
        if !self.throttle.allows(pid, change.place.is_some(), now) {
            Tally::count(&self.tally.throttled);
            return;
        }
        let process = if pid == 0 { None } else { self.config.key(pid) };
        (self.sink)(Event { time: wall_clock(), process, kind: EventKind::File(change) });
    }
}

fn is_program(content: Content, stat: &Stat, path: &str) -> bool {
    match content {
        Content::Script | Content::Program | Content::Web => true,
        Content::Part => is_executable(stat) || path.ends_with(".ko"),
        Content::Other => (is_executable(stat) || is_web(path)) && stat.st_size > 0,
    }
}

/// Whether web servers are wont to hand a file of this name to an interpreter such as PHP.
#[must_use]
pub fn is_web(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').is_some_and(|(_, end)| WEB.contains(&end.to_ascii_lowercase().as_str()))
}

fn is_data(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').is_some_and(|(_, end)| DATA.binary_search(&end).is_ok())
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_executable(stat: &Stat) -> bool {
    stat.st_mode & 0o111 != 0
}

fn file_id(stat: &Stat) -> FileId {
    FileId { dev: stat.st_dev, ino: stat.st_ino }
}

/// The first bytes of a regular file. It may have been exchanged for a pipe since it was looked at, so the open never
/// waits and never follows a link.
fn content(path: &str) -> Content {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_or(Content::Other, |file| content_of(&file))
}

fn content_of(file: &OwnedFd) -> Content {
    let mut first = [0u8; FIRST];
    let length = rustix::io::pread(file, &mut first[..], 0).unwrap_or(0);
    Content::of(&first[..length])
}

fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_web_files_are_found_by_their_end() {
        assert!(is_web("/srv/a.php") && is_web("x.PhP") && is_web("/srv/img.jpg.phtml"));
        assert!(!is_web("/srv/a.php/b") && !is_web("php") && !is_web("/srv/a.html"));
        assert!(!DATA.iter().any(|end| WEB.contains(end)), "what is data by its name is not opened");
    }

    #[test]
    fn names_of_data_are_found_by_their_end() {
        assert!(DATA.is_sorted());
        assert!(is_data("/x/a.o") && is_data("/x.y/a.rmeta"));
        assert!(!is_data("/x.o/a") && !is_data("/x/a.sh") && !is_data("/x/a.so") && !is_data("o"));
    }
}
