//! The mount table, as `/proc/PID/mountinfo` writes it (proc_pid_mountinfo(5)).

/// At most so many mounts are read from one table; a longer one is cut.
pub const MAX_MOUNTS: usize = 16_384;

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Mount id.
    pub id: u64,
    /// `st_dev` of files on it, as major and minor number.
    pub device: (u32, u32),
    /// The folder of the file system that is mounted.
    pub root: String,
    /// Where it is mounted.
    pub point: String,
    /// Type, such as `ext4`.
    pub kind: String,
    /// Source, such as `/dev/vda`.
    pub source: String,
    /// Options of the superblock, by commas.
    pub options: String,
}

/// Reads a mount table. Lines that are not of the documented form are left out; bytes that are not UTF-8 are replaced.
#[must_use]
pub fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n').take(MAX_MOUNTS).filter_map(mount).collect()
}

fn mount(line: &[u8]) -> Option<Mount> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let id = words.next()?.parse().ok()?;
    let _parent: u64 = words.next()?.parse().ok()?;
    let (major, minor) = words.next()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let root = unescape(words.next()?);
    let point = unescape(words.next()?);
    // Optional fields of any number stand before the lone hyphen.
    words.find(|w| *w == "-")?;
    let kind = unescape(words.next()?);
    let source = unescape(words.next()?);
    let options = words.next().unwrap_or("").to_owned();
    Some(Mount { id, device, root, point, kind, source, options })
}

/// Undoes the kernel's `\040` (three octal digits) for space, tab, newline and backslash.
fn unescape(word: &str) -> String {
    if !word.contains('\\') {
        return word.to_owned();
    }
    let bytes = word.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 4).filter(|d| d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match digits {
            Some(d) if bytes[at] == b'\\' && d[0] <= b'3' => {
                plain.push((d[0] - b'0') << 6 | (d[1] - b'0') << 3 | (d[2] - b'0'));
                at += 4;
            }
            _ => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::parse_mountinfo;
    use proptest::prelude::*;

    #[test]
    fn a_table_is_read_with_odd_lines_left_out() {
        let table = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
            36 35 98:0 /mnt1 /my\\040disk rw shared:1 master:2 - tmpfs a\\134b rw,size=4k\n\
            nonsense\n41 31 0:38 / /x rw - \n\xff\xfe 1 2:3 / / - a b c\n";
        let mounts = parse_mountinfo(table);
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].id, mounts[0].device), (27, (254, 0)));
        assert_eq!((mounts[1].point.as_str(), mounts[1].root.as_str()), ("/my disk", "/mnt1"));
        assert_eq!((mounts[1].kind.as_str(), mounts[1].source.as_str()), ("tmpfs", "a\\b"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_mountinfo(&bytes);
        }

        #[test]
        fn no_line_of_the_form_makes_it_panic(point in "[/a-z\\\\0-9]{0,20}", kind in "\\PC{0,5}") {
            let table = format!("1 2 3:4 / {point} rw x:1 - {kind} s o\n");
            prop_assert!(parse_mountinfo(table.as_bytes()).len() <= 1);
        }
    }
}
