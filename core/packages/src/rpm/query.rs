//! A query format, and the reader of what it makes rpm print.

use crate::fault::Fault;
use crate::package::{FileDigest, Package, PackagedFile};
use crate::path::is_plain;

/// `RPMFILE_CONFIG` and its neighbours, in the field `FILEFLAGS`.
const CONFIG: u32 = 1;
const DOC: u32 = 1 << 1;
const GHOST: u32 = 1 << 6;

/// `RPMTAG_FILEDIGESTALGO`: OpenPGP's numbers of hash algorithms (RFC 4880, 9.4).
const MD5: &str = "1";
const SHA256: &str = "8";
const SHA512: &str = "10";

/// What rpm says became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// It lies there.
    Normal,
    /// Another package's file took its place, or it was left out: of another language, architecture or mount.
    Absent,
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpmFile {
    /// Its path.
    pub path: Vec<u8>,
    /// What its content is to be.
    pub digest: Option<FileDigest>,
    /// `st_mode` as the package brought it.
    pub mode: u32,
    /// Whether it lies there.
    pub state: FileState,
    /// It is configuration.
    pub config: bool,
    /// It is documentation.
    pub doc: bool,
    /// The package only claims the name, and brought no content.
    pub ghost: bool,
}

impl RpmFile {
    /// As a file that the package brought; `None` for folders, links, ghosts and what was not installed.
    pub fn packaged(self) -> Option<PackagedFile> {
        let is_regular = self.mode & 0o170_000 == 0o100_000;
        (is_regular && !self.ghost && self.state == FileState::Normal).then_some(PackagedFile {
            path: self.path,
            digest: self.digest,
            conffile: self.config,
        })
    }
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The files that follow belong to this package.
    Package(Package),
    /// One of them.
    File(RpmFile),
}

/// What to give rpm as `--queryformat`. `mark` begins and ends every line: letters and digits that nobody who makes a
/// package can guess, or a file name with a line end in it could pass for a line of its own.
pub fn query_format(mark: &str) -> String {
    let package = r"\tP\t%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{ARCH}\t%{FILEDIGESTALGO}\t";
    let file = r"\tF\t%{FILEFLAGS}\t%{FILEMODES}\t%{FILESTATES}\t%{FILEDIGESTS}\t%{FILENAMES}\t";
    format!(r"{mark}{package}{mark}\n[{mark}{file}{mark}\n]")
}

/// Reads what rpm prints, line by line.
#[derive(Debug)]
pub struct QueryReader {
    mark: String,
    number: usize,
    /// The algorithm of the package that was begun.
    algorithm: Option<String>,
}

impl QueryReader {
    /// A reader of what rpm prints for [`query_format`] of the same mark.
    pub fn new(mark: &str) -> Self {
        Self { mark: mark.to_owned(), number: 0, algorithm: None }
    }

    /// Reads one line, without its end.
    ///
    /// # Errors
    /// When it is not what the query format makes rpm print. What it would have said is lost; if it began a package, so
    /// are that package's files.
    pub fn line(&mut self, line: &[u8]) -> Result<Item, Fault> {
        self.number += 1;
        let item = self.item(line);
        if item.is_none() && line.starts_with(format!("{}\tP\t", self.mark).as_bytes()) {
            self.algorithm = None;
        }
        item.ok_or_else(|| {
            let mark = self.mark.as_bytes();
            let shown = line.strip_prefix(mark).unwrap_or(line);
            let shown = shown.strip_suffix(mark).unwrap_or(shown);
            Fault::quoting("rpm", self.number, "a package or one of its files", shown)
        })
    }

    fn item(&mut self, line: &[u8]) -> Option<Item> {
        let mark = self.mark.as_bytes();
        let inner = line.strip_prefix(mark)?.strip_prefix(b"\t")?.strip_suffix(mark)?.strip_suffix(b"\t")?;
        if let Some(rest) = inner.strip_prefix(b"P\t") {
            let rest = std::str::from_utf8(rest).ok()?;
            let mut fields = rest.split('\t');
            let mut field = || fields.next().filter(|f| !f.is_empty());
            let (name, version, architecture, algorithm) = (field()?, field()?, field()?, field()?);
            if fields.next().is_some() {
                return None;
            }
            self.algorithm = Some(algorithm.to_owned());
            return Some(Item::Package(Package {
                name: name.to_owned(),
                version: version.to_owned(),
                architecture: if architecture == "(none)" { String::new() } else { architecture.to_owned() },
            }));
        }
        let rest = inner.strip_prefix(b"F\t")?;
        let algorithm = self.algorithm.as_deref()?;
        // The path comes last, so that a tab in it is part of it.
        let mut fields = rest.splitn(5, |b| *b == b'\t');
        let flags: u32 = number(fields.next()?)?;
        // Old versions print the 16 bits of a mode with their sign.
        let mode = (number::<i64>(fields.next()?)? & 0xffff) as u32;
        let state = match fields.next()? {
            // Packages from before there were states, and images whose builder left them out.
            b"0" | b"(none)" | b"" => FileState::Normal,
            _ => FileState::Absent,
        };
        let digest = digest(algorithm, fields.next()?)?;
        let path = fields.next().filter(|path| is_plain(path))?;
        Some(Item::File(RpmFile {
            path: path.to_vec(),
            digest,
            mode,
            state,
            config: flags & CONFIG != 0,
            doc: flags & DOC != 0,
            ghost: flags & GHOST != 0,
        }))
    }
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The digest; the inner option is `None` where there is none, or one of an algorithm that is not known here.
fn digest(algorithm: &str, digits: &[u8]) -> Option<Option<FileDigest>> {
    if digits.is_empty() || digits == b"(none)" {
        return Some(None);
    }
    Some(match algorithm {
        MD5 | "(none)" => Some(FileDigest::Md5(FileDigest::md5(digits)?)),
        SHA256 => Some(FileDigest::Sha256(decoded(digits)?)),
        SHA512 => Some(FileDigest::Sha512(decoded(digits)?)),
        _ => None,
    })
}

fn decoded<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut digest = [0; N];
    hex::decode_to_slice(digits, &mut digest).ok()?;
    Some(digest)
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
