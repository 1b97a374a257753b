//! The bytes that fanotify(7) gives, taken apart without trusting their lengths.

/// `struct fanotify_event_metadata`.
const METADATA: usize = 24;
const VERSION: u8 = 3;

/// Kinds of information records that hold a folder's handle and a name.
const FOLDER_NAME: u8 = libc::FAN_EVENT_INFO_TYPE_DFID_NAME;
const OLD_FOLDER_NAME: u8 = libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME;
const NEW_FOLDER_NAME: u8 = libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME;

/// A name in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// The file system, as statfs(2) identifies it.
    pub(super) fsid: [i32; 2],
    /// The folder's handle: its type and its bytes.
    pub(super) kind: i32,
    pub(super) handle: &'a [u8],
    /// The name in the folder.
    pub(super) name: &'a [u8],
}

/// One notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Notification<'a> {
    pub(super) mask: u64,
    /// Whose; zero where it cannot be named in this pid namespace.
    pub(super) pid: u32,
    /// The open file, in groups that report files; negative in others.
    pub(super) fd: i32,
    /// Where; `None` for an overflow.
    pub(super) entry: Option<Entry<'a>>,
    /// From where, for renames.
    pub(super) from: Option<Entry<'a>>,
}

/// Hands out the notifications in a buffer; whether all of it was of the documented form.
pub(super) fn each<'a>(mut buffer: &'a [u8], mut take: impl FnMut(Notification<'a>)) -> bool {
    while !buffer.is_empty() {
        let Some(length) = word(buffer, 0).map(|l| l as usize) else { return false };
        if length < METADATA || length > buffer.len() || buffer[4] != VERSION {
            return false;
        }
        let (event, rest) = buffer.split_at(length);
        let header = usize::from(u16::from_ne_bytes([event[6], event[7]]));
        let mask = event[8..16].first_chunk().map_or(0, |m| u64::from_ne_bytes(*m));
        let pid = word(event, 20).map_or(0, |p| u32::try_from(p.cast_signed()).unwrap_or(0));
        let fd = word(event, 16).map_or(-1, u32::cast_signed);
        let mut notification = Notification { mask, pid, fd, entry: None, from: None };
        let Some(records) = event.get(header.max(METADATA)..) else { return false };
        if !each_record(records, &mut notification) {
            return false;
        }
        take(notification);
        buffer = rest;
    }
    true
}

fn each_record<'a>(mut records: &'a [u8], notification: &mut Notification<'a>) -> bool {
    while records.len() >= 4 {
        let kind = records[0];
        let length = usize::from(u16::from_ne_bytes([records[2], records[3]]));
        if length < 4 || length > records.len() {
            return false;
        }
        let (record, rest) = records.split_at(length);
        match kind {
            FOLDER_NAME | NEW_FOLDER_NAME => notification.entry = entry(record),
            OLD_FOLDER_NAME => notification.from = entry(record),
            _ => {}
        }
        records = rest;
    }
    true
}

fn entry(record: &[u8]) -> Option<Entry<'_>> {
    let number = |at| word(record, at).map(u32::cast_signed);
    let fsid = [number(4)?, number(8)?];
    let length = word(record, 12)? as usize;
    let kind = number(16)?;
    let handle = record.get(20..20usize.checked_add(length)?)?;
    let name = &record[20 + length..];
    let name = &name[..name.iter().position(|b| *b == 0)?];
    Some(Entry { fsid, kind, handle, name })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|w| u32::from_ne_bytes(*w))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for word in [7u32, 8, handle.len() as u32, 129] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(handle);
        body.extend(name);
        body.push(0);
        body.resize(body.len().next_multiple_of(4), 0);
        let mut record = vec![kind, 0];
        record.extend((body.len() as u16 + 4).to_ne_bytes());
        record.extend(body);
        record
    }

    fn event(mask: u64, pid: i32, records: &[Vec<u8>]) -> Vec<u8> {
        let records = records.concat();
        let mut event = ((METADATA + records.len()) as u32).to_ne_bytes().to_vec();
        event.extend([VERSION, 0, METADATA as u8, 0]);
        event.extend(mask.to_ne_bytes());
        event.extend((-1i32).to_ne_bytes());
        event.extend(pid.to_ne_bytes());
        event.extend(records);
        event
    }

    #[test]
    fn notifications_are_taken_apart() {
        let buffer = [
            event(8, 4711, &[record(FOLDER_NAME, b"handle", b"a b")]),
            event(0x4000, 0, &[]),
            event(
                0x1000_0000,
                9,
                &[record(OLD_FOLDER_NAME, b"h1", b"x"), record(NEW_FOLDER_NAME, b"h2", b"y")],
            ),
        ]
        .concat();
        let mut found = Vec::new();
        assert!(each(&buffer, |n| found.push(n)));
        let first = found[0].entry.expect("an entry");
        assert_eq!((found[0].mask, found[0].pid, found[0].fd), (8, 4711, -1));
        assert_eq!(
            (first.fsid, first.kind, first.handle, first.name),
            ([7, 8], 129, &b"handle"[..], &b"a b"[..])
        );
        assert_eq!((found[1].mask, found[1].entry), (0x4000, None));
        assert_eq!(found[2].from.map(|e| e.name), Some(&b"x"[..]));
        assert_eq!(found[2].entry.map(|e| e.name), Some(&b"y"[..]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = each(&bytes, |_| {});
        }

        #[test]
        fn no_change_of_a_good_buffer_makes_it_panic(at in 0usize..80, byte: u8, cut in 0usize..100) {
            let mut buffer = event(8, 1, &[record(FOLDER_NAME, b"handle", b"name"), record(OLD_FOLDER_NAME, b"", b"")]);
            let at = at % buffer.len();
            buffer[at] = byte;
            buffer.truncate(cut.max(1));
            let _ = each(&buffer, |_| {});
        }
    }
}
