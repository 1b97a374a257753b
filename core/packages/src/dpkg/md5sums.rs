//! `info/PACKAGE.md5sums`: digests of a package's files (deb-md5sums(5)). Configuration files are not among them.

use crate::fault::{Fault, Faults, Read};
use crate::package::FileDigest;
use crate::path::is_plain;

/// Digests by path, before diversions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Md5sums {
    by_path: Vec<(Vec<u8>, [u8; 16])>,
}

impl Md5sums {
    /// The digest of the file of this absolute path.
    pub fn get(&self, path: &[u8]) -> Option<[u8; 16]> {
        let found = self.by_path.binary_search_by(|(known, _)| known.as_slice().cmp(path)).ok()?;
        Some(self.by_path[found].1)
    }

    /// All of them, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], [u8; 16])> {
        self.by_path.iter().map(|(path, md5)| (path.as_slice(), *md5))
    }
}

/// Reads the digests of a package. A path that has two of them has none: nobody can say which one holds.
pub fn read_md5sums(file: &str, text: &[u8]) -> Read<Md5sums> {
    let mut by_path = Vec::new();
    let mut faults = Faults::default();
    for (number, line) in text.split(|b| *b == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        match entry(line) {
            Some((path, md5)) => by_path.push((path, md5, number + 1)),
            None => faults.push(Fault::quoting(file, number + 1, "an MD5 and a path", line)),
        }
    }
    by_path.sort();
    by_path.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1);
    let mut kept: Vec<(Vec<u8>, [u8; 16])> = Vec::with_capacity(by_path.len());
    for same in by_path.chunk_by(|a, b| a.0 == b.0) {
        match same {
            [(path, md5, _)] => kept.push((path.clone(), *md5)),
            _ => {
                let line = same.iter().map(|(_, _, line)| *line).max().unwrap_or(0);
                faults.push(Fault::quoting(file, line, "one MD5 for each path, not another for", &same[0].0));
            }
        }
    }
    Read { entries: Md5sums { by_path: kept }, faults }
}

/// A line as md5sum(1) writes it: digest, a space, a space or `*`, the path. A backslash before the digest says that
/// backslashes and line ends in the path are escaped; debhelper writes backslashes as they are, and no such mark.
fn entry(line: &[u8]) -> Option<(Vec<u8>, [u8; 16])> {
    let (escaped, line) = match line.strip_prefix(b"\\") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (digits, rest) = line.split_at_checked(32)?;
    let md5 = FileDigest::md5(digits)?;
    let path = rest.strip_prefix(b"  ").or_else(|| rest.strip_prefix(b" *"))?;
    let path = path.strip_prefix(b"./").or_else(|| path.strip_prefix(b"/")).unwrap_or(path);
    let mut absolute = vec![b'/'];
    let mut bytes = path.iter();
    while let Some(byte) = bytes.next() {
        absolute.push(match byte {
            b'\\' if escaped => match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b'\\' => b'\\',
                _ => return None,
            },
            byte => *byte,
        });
    }
    is_plain(&absolute).then_some((absolute, md5))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "b80613ace788b72ab2b95926517ca448";
    const B: &str = "6a260d456769adba6fea8e8fdf0e9f5f";

    #[test]
    fn every_form_of_a_path_is_found_by_the_absolute_one() {
        for (line, path) in [
            (format!("{A}  usr/bin/x"), "/usr/bin/x"),
            (format!("{A}  ./usr/bin/x"), "/usr/bin/x"),
            (format!("{A}  /usr/bin/x"), "/usr/bin/x"),
            (format!("{A} *usr/bin/x y"), "/usr/bin/x y"),
            (
                format!("{A}  lib/system-systemd\\x2dcryptsetup.slice"),
                "/lib/system-systemd\\x2dcryptsetup.slice",
            ),
            (format!("\\{A}  a\\\\b\\nc"), "/a\\b\nc"),
        ] {
            let read = read_md5sums("x", line.as_bytes());
            assert_eq!(read.entries.get(path.as_bytes()).map(hex::encode).as_deref(), Some(A), "{line}");
            assert_eq!(read.faults.count(), 0);
        }
    }

    #[test]
    fn a_damaged_line_vouches_for_nothing() {
        let text = format!("{A} usr/bin/x\n{A}  ../x\nzz{A}\n{A}\n\\{A}  a\\q\n\n{B}  good\n{A}  \u{0}\n");
        let read = read_md5sums("info/x.md5sums", text.as_bytes());
        assert_eq!(read.entries.iter().count(), 1);
        let lines: Vec<_> = read.faults.first().iter().map(|f| f.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5, 8]);
    }

    #[test]
    fn a_path_with_two_digests_has_none() {
        let read = read_md5sums("m", format!("{A}  x\n{B}  y\n{B}  x\n{B}  y\n").as_bytes());
        assert_eq!(read.entries.get(b"/x"), None);
        assert_eq!(read.entries.get(b"/y").map(hex::encode).as_deref(), Some(B));
        assert_eq!(read.faults.first()[0].line, 3);
    }
}
