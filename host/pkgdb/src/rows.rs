//! What was learned of files, in the order it was learned.

use davy_model::FileId;
use davy_packages::CodeKind;

/// How many files are learned at most, some 130 bytes each. A large Debian has a fifth of it.
pub(crate) const MAX_FILES: usize = 500_000;

/// What the database says of the content of a file it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It is what was packaged.
    Matches,
    /// It is listed, and the database has no digest of it. Nothing vouches for its content: only its path is known.
    NoDigest,
    /// It is not what was packaged. Of configuration, an administrator's edit; of anything else, nothing good.
    Changed,
}

/// One file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) sha256: [u8; 32],
    pub(crate) file: FileId,
    pub(crate) path_at: u32,
    pub(crate) path_len: u16,
    pub(crate) verdict: Verdict,
    pub(crate) kind: CodeKind,
    pub(crate) conffile: bool,
    pub(crate) package: u32,
}

/// Files and their paths, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<Row>,
    pub(crate) paths: Vec<u8>,
}

impl Rows {
    /// Adds a file. `path_at` and `path_len` of the row are set here. False when there is no room for it.
    pub(crate) fn push(&mut self, mut row: Row, path: &[u8]) -> bool {
        let (Ok(at), Ok(len)) = (u32::try_from(self.paths.len()), u16::try_from(path.len())) else {
            return false;
        };
        if self.rows.len() >= MAX_FILES {
            return false;
        }
        (row.path_at, row.path_len) = (at, len);
        self.paths.extend_from_slice(path);
        self.rows.push(row);
        true
    }

    pub(crate) fn path(&self, row: &Row) -> &[u8] {
        let at = row.path_at as usize;
        &self.paths[at..at + usize::from(row.path_len)]
    }

    /// Adds all of `other` that there is room for; says how many there was none for.
    pub(crate) fn append(&mut self, other: &Self) -> usize {
        other.rows.iter().filter(|row| !self.push(**row, other.path(row))).count()
    }
}
