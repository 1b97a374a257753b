use std::collections::HashSet;

/// The most inodes that are remembered within one sweep. Names beyond are looked at again.
const MOST: usize = 1 << 20;

/// Inodes with several names that one sweep has looked at already.
#[derive(Debug, Default)]
pub(crate) struct Seen(HashSet<(u64, u64)>);

impl Seen {
    /// Whether this inode was looked at before; from now on it was.
    pub(crate) fn before(&mut self, device: u64, inode: u64, names: u64) -> bool {
        if names < 2 {
            return false;
        }
        if self.0.len() >= MOST {
            return self.0.contains(&(device, inode));
        }
        !self.0.insert((device, inode))
    }
}
