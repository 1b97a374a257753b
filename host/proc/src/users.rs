use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// At most so many accounts are read.
const MAX_ACCOUNTS: usize = 65_536;

/// At most so many bytes of the accounts' file are read.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A file by inode, size, and time of change in seconds and nanoseconds.
type Seen = (u64, u64, i64, i64);

/// Names of users, from `/etc/passwd` (passwd(5)).
///
/// A static glibc program cannot ask the name service switch, so accounts of LDAP and the like have no name here and
/// are shown by number. The file is read again when its inode, size or time of change differs.
#[derive(Debug)]
pub struct Users {
    path: PathBuf,
    seen: Option<Seen>,
    /// What was seen when all names were told last.
    told: Option<Seen>,
    names: HashMap<u32, String>,
}

impl Default for Users {
    fn default() -> Self {
        Self::at(Path::new("/etc/passwd"))
    }
}

impl Users {
    /// Users of this host.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Users of any file in the form of passwd(5).
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: None, told: None, names: HashMap::new() }
    }

    /// The name of a user id; of several, the first in the file.
    pub fn name(&mut self, uid: u32) -> Option<&str> {
        self.refresh();
        self.names.get(&uid).map(String::as_str)
    }

    /// The name of a user id, or the number itself.
    pub fn name_or_number(&mut self, uid: u32) -> String {
        self.name(uid).map_or_else(|| uid.to_string(), str::to_owned)
    }

    /// The user id of a name.
    pub fn uid(&mut self, name: &str) -> Option<u32> {
        self.refresh();
        self.names.iter().find(|(_, n)| *n == name).map(|(uid, _)| *uid)
    }

    /// All names with their ids, when the file is another than at the last call; else nothing.
    pub fn news(&mut self) -> impl Iterator<Item = (u32, &str)> {
        self.refresh();
        let all = if self.told == self.seen { 0 } else { usize::MAX };
        self.told = self.seen;
        self.names.iter().map(|(uid, name)| (*uid, name.as_str())).take(all)
    }

    fn refresh(&mut self) {
        use std::os::unix::fs::MetadataExt;
        let now = std::fs::metadata(&self.path).ok().map(|m| (m.ino(), m.size(), m.ctime(), m.ctime_nsec()));
        if now.is_none() || now == self.seen {
            return;
        }
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&self.path).and_then(|f| f.take(MAX_BYTES).read_to_end(&mut bytes));
        if read.is_ok() {
            self.names = parse(&bytes);
            self.seen = now;
        }
    }
}

fn parse(bytes: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in bytes.split(|b| *b == b'\n').take(MAX_ACCOUNTS) {
        let line = String::from_utf8_lossy(line);
        let mut fields = line.split(':');
        if let (Some(name), Some(_), Some(Ok(uid))) =
            (fields.next(), fields.next(), fields.next().map(str::parse))
            && !name.is_empty()
            && !name.starts_with('#')
        {
            names.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        std::fs::write(&path, "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n#no:x:3:\n:x:4:\nbad:x:-1\n")
            .unwrap();
        let mut users = Users::at(&path);
        assert_eq!(users.name(0), Some("root"));
        assert_eq!(users.uid("root"), Some(0));
        assert_eq!((users.name(3).is_none(), users.name(4).is_none()), (true, true));
        assert_eq!(users.name_or_number(77), "77");
        assert_eq!(users.news().collect::<Vec<_>>(), [(0, "root")]);
        assert_eq!(users.news().count(), 0);
        std::fs::write(&path, "www-data:x:33:33::/:\n").unwrap();
        assert_eq!(users.name(33), Some("www-data"));
        assert_eq!(users.uid("root"), None);
        assert_eq!(users.news().collect::<Vec<_>>(), [(33, "www-data")]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(users.news().count(), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&bytes);
        }
    }
}
