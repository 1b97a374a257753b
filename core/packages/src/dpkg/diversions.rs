//! `diversions`: files of packages that lie elsewhere, because another package or the administrator brings one of that
//! name (dpkg-divert(1)).

use crate::fault::{Fault, Faults, Read};
use crate::path::is_plain;

/// One diversion.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diversion {
    /// The name that packages know.
    pub from: Vec<u8>,
    /// Where the file lies instead.
    pub to: Vec<u8>,
    /// The package that asked for it, whose own file of that name stays; `None` for the administrator.
    pub by: Option<String>,
}

/// All diversions of a system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diversions {
    by_name: Vec<Diversion>,
}

impl Diversions {
    /// Where the file that `package` calls `path` lies.
    pub fn resolve<'a>(&'a self, path: &'a [u8], package: &str) -> &'a [u8] {
        match self.get(path) {
            Some(diversion) if diversion.by.as_deref() != Some(package) => &diversion.to,
            _ => path,
        }
    }

    /// The diversion of this name.
    pub fn get(&self, path: &[u8]) -> Option<&Diversion> {
        let found = self.by_name.binary_search_by(|d| d.from.as_slice().cmp(path)).ok()?;
        Some(&self.by_name[found])
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Diversion> {
        self.by_name.iter()
    }
}

/// Reads `diversions`: three lines for each one. dpkg allows one for a name; of several the first holds.
pub fn read_diversions(file: &str, text: &[u8]) -> Read<Diversions> {
    let mut by_name: Vec<Diversion> = Vec::new();
    let mut faults = Faults::default();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() {
        return Read { entries: Diversions::default(), faults };
    }
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
    for (index, three) in lines.chunks(3).enumerate() {
        let number = 3 * index + 1;
        let [from, to, by] = three else {
            faults.push(Fault::quoting(file, number, "three lines: a path, another, a package", three[0]));
            continue;
        };
        let by = match std::str::from_utf8(by) {
            Ok(":") => Some(None),
            Ok(name) if !name.is_empty() => Some(Some(name.to_owned())),
            _ => None,
        };
        match by {
            _ if !is_plain(from) => faults.push(Fault::quoting(file, number, "a path", from)),
            _ if !is_plain(to) => faults.push(Fault::quoting(file, number + 1, "a path", to)),
            None => faults.push(Fault::quoting(file, number + 2, "a package's name or a colon", three[2])),
            Some(by) => by_name.push(Diversion { from: from.to_vec(), to: to.to_vec(), by }),
        }
    }
    by_name.sort_by(|a, b| a.from.cmp(&b.from));
    by_name.dedup_by(|later, first| later.from == first.from);
    Read { entries: Diversions { by_name }, faults }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"/usr/bin/perf\n/usr/bin/perf.wrapper\nlinux-perf\n/bin/sh\n/bin/sh.distrib\n:\n";

    #[test]
    fn a_diverted_file_lies_elsewhere_except_for_who_diverted_it() {
        let read = read_diversions("diversions", TEXT);
        let at = |path: &str, package| {
            String::from_utf8_lossy(read.entries.resolve(path.as_bytes(), package)).into_owned()
        };
        assert_eq!(at("/usr/bin/perf", "linux-base"), "/usr/bin/perf.wrapper");
        assert_eq!(at("/usr/bin/perf", "linux-perf"), "/usr/bin/perf");
        assert_eq!(at("/bin/sh", "dash"), "/bin/sh.distrib");
        assert_eq!(at("/usr/bin/ls", "coreutils"), "/usr/bin/ls");
        // dpkg does not know that the two names are one folder, and diverts the one it was told.
        assert_eq!(at("/usr/bin/sh", "dash"), "/usr/bin/sh");
        assert_eq!((read.entries.iter().count(), read.faults.count()), (2, 0));
    }

    #[test]
    fn damaged_diversions_are_named_and_divert_nothing() {
        let text = b"/a\nb\np\nc\n/d\np\n/e\n/f\n\n/g\n/h\np\n/g\n/i\nq\n/left\n/over\n";
        let read = read_diversions("diversions", text);
        let kept: Vec<_> = read.entries.iter().map(|d| (d.from.as_slice(), d.to.as_slice())).collect();
        assert_eq!(kept, [(&b"/g"[..], &b"/h"[..])]);
        let lines: Vec<_> = read.faults.first().iter().map(|f| f.line).collect();
        assert_eq!(lines, [2, 4, 9, 16]);
        assert_eq!(read_diversions("diversions", b"").faults.count(), 0);
    }
}
