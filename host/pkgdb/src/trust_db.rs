//! What was learned, in as little memory as it takes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use davy_model::FileId;
use davy_packages::dpkg::Diversions;
use davy_packages::{Aliases, CodeKind, Package, is_named_as_script};

use crate::db::{Fingerprint, Known};
use crate::root::Stamp;
use crate::rows::{Row, Rows, Verdict};

/// Files of a package database that can be code: found by digest, by inode and by path. Rows in one array, paths in one
/// string, packages named once; no allocation for each file.
#[derive(Debug)]
pub struct TrustDb {
    pub(crate) packages: Vec<(Package, Fingerprint)>,
    /// By digest, and of one digest those that match first.
    pub(crate) rows: Rows,
    by_file: Vec<u32>,
    by_path: Vec<u32>,
    pub(crate) stamp: Vec<Option<Stamp>>,
    pub(crate) diversions: Diversions,
    pub(crate) aliases: Aliases,
}

/// What was learned of a file.
#[derive(Clone, Copy, Debug)]
pub struct Learned<'a> {
    /// The file, as it was when it was learned.
    pub file: FileId,
    /// Where it lay, below the root of the database.
    pub path: &'a Path,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
    /// The package that lists it.
    pub package: &'a Package,
    /// What the package's database says of the content.
    pub verdict: Verdict,
    /// Whether it is configuration, which administrators change.
    pub conffile: bool,
    /// Why it can be code.
    pub kind: CodeKind,
}

impl Learned<'_> {
    /// Whether an interpreter may be given it as what to run.
    #[must_use]
    pub fn is_script(&self) -> bool {
        self.kind == CodeKind::Script || is_named_as_script(self.path.as_os_str().as_bytes())
    }
}

impl TrustDb {
    pub(crate) fn new(
        packages: Vec<(Package, Fingerprint)>,
        mut rows: Rows,
        stamp: Vec<Option<Stamp>>,
        diversions: Diversions,
        aliases: Aliases,
    ) -> Self {
        rows.rows.sort_unstable_by_key(|row| (row.sha256, row.verdict, row.file));
        rows.rows.shrink_to_fit();
        rows.paths.shrink_to_fit();
        let all = 0..u32::try_from(rows.rows.len()).unwrap_or(u32::MAX);
        let at = |index: &u32| &rows.rows[*index as usize];
        let mut by_file: Vec<u32> = all.clone().collect();
        by_file.sort_unstable_by_key(|i| (at(i).file, at(i).verdict));
        let mut by_path: Vec<u32> = all.collect();
        by_path.sort_unstable_by_key(|i| (rows.path(at(i)), at(i).verdict));
        Self { packages, rows, by_file, by_path, stamp, diversions, aliases }
    }

    /// How many files it knows.
    pub fn len(&self) -> usize {
        self.rows.rows.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.rows.rows.is_empty()
    }

    /// The packaged file of this content, if a package's digest says that this is what was packaged.
    pub fn vouched(&self, sha256: &[u8; 32]) -> Option<Learned<'_>> {
        let rows = &self.rows.rows;
        let first = rows.partition_point(|row| row.sha256 < *sha256);
        let row = rows.get(first).filter(|row| row.sha256 == *sha256 && row.verdict == Verdict::Matches)?;
        Some(self.learned(row))
    }

    /// The digests that a package vouches for, each once, in order.
    pub fn vouched_digests(&self) -> impl Iterator<Item = &[u8; 32]> {
        let matches = self.rows.rows.iter().filter(|row| row.verdict == Verdict::Matches);
        let mut last: Option<&[u8; 32]> = None;
        matches.map(|row| &row.sha256).filter(move |digest| last.replace(digest) != Some(*digest))
    }

    /// What was learned of this inode; the best of it when packages share the file. It says what the content was then.
    pub fn by_file(&self, file: FileId) -> Option<Learned<'_>> {
        let first = self.by_file.partition_point(|i| self.rows.rows[*i as usize].file < file);
        let row = &self.rows.rows[*self.by_file.get(first)? as usize];
        (row.file == file).then(|| self.learned(row))
    }

    /// What was learned of the file of this path, which may be given as it was before folders were merged.
    pub fn by_path(&self, path: &Path) -> Option<Learned<'_>> {
        let path = self.aliases.resolve(path.as_os_str().as_bytes());
        let first = self.by_path.partition_point(|i| self.rows.path(&self.rows.rows[*i as usize]) < &*path);
        let row = &self.rows.rows[*self.by_path.get(first)? as usize];
        (self.rows.path(row) == &*path).then(|| self.learned(row))
    }

    /// All files, by path.
    pub fn iter(&self) -> impl Iterator<Item = Learned<'_>> {
        self.by_path.iter().map(|i| self.learned(&self.rows.rows[*i as usize]))
    }

    /// How many bytes of memory it takes.
    pub fn memory(&self) -> usize {
        let strings = |(p, _): &(Package, _)| p.name.len() + p.version.len() + p.architecture.len();
        self.rows.rows.capacity() * size_of::<Row>()
            + self.rows.paths.capacity()
            + (self.by_file.capacity() + self.by_path.capacity()) * size_of::<u32>()
            + self.packages.capacity() * size_of::<(Package, Fingerprint)>()
            + self.packages.iter().map(strings).sum::<usize>()
    }

    fn learned(&self, row: &Row) -> Learned<'_> {
        Learned {
            file: row.file,
            path: Path::new(OsStr::from_bytes(self.rows.path(row))),
            sha256: row.sha256,
            package: &self.packages[row.package as usize].0,
            verdict: row.verdict,
            conffile: row.conffile,
            kind: row.kind,
        }
    }

    pub(crate) fn known(&self) -> Known<'_> {
        Known {
            packages: self
                .packages
                .iter()
                .map(|(package, print)| (package, *print))
                .collect::<HashMap<_, _>>(),
            diversions: &self.diversions,
        }
    }
}
