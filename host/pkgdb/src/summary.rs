//! What learning found, in numbers.

use davy_packages::Faults;

/// How many failures to read a file are kept in full.
const KEPT: usize = 16;

/// What learning found, in numbers.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Packages in the database.
    pub packages: usize,
    /// Of these, those whose files were looked at this time.
    pub packages_read: usize,
    /// Paths that the packages read brought.
    pub listed: usize,
    /// Files hashed.
    pub hashed: usize,
    /// Bytes hashed.
    pub bytes: u64,
    /// Packaged files that are not there.
    pub missing: usize,
    /// Files that changed while they were read, twice: nothing was learned of them.
    pub unsettled: usize,
    /// Files that could not be read: nothing was learned of them.
    pub unreadable: usize,
    /// Files that found no room in the trust database: nothing was learned of them.
    pub left_out: usize,
    /// The first failures to read a file, with their paths.
    pub failures: Vec<String>,
    /// What in the database does not read as its format says.
    pub faults: Faults,
}

impl Summary {
    pub(crate) fn failed(&mut self, path: &[u8], error: rustix::io::Errno) {
        self.unreadable += 1;
        if self.failures.len() < KEPT {
            self.failures.push(format!("reading {}: {error}", String::from_utf8_lossy(path)));
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.packages += other.packages;
        self.packages_read += other.packages_read;
        self.listed += other.listed;
        self.hashed += other.hashed;
        self.bytes += other.bytes;
        self.missing += other.missing;
        self.unsettled += other.unsettled;
        self.unreadable += other.unreadable;
        self.left_out += other.left_out;
        let room = KEPT.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
        self.faults.append(other.faults);
    }
}
