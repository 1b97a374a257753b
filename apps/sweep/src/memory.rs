//! The memory of a process, read from /proc and handed on in files without a name.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::unix::fs::FileExt;

use davy_scan::WINDOW;
use rustix::fs::{MemfdFlags, memfd_create};

/// The most that is read of one mapping and of one process, in bytes. Miners keep gigabytes of scratch memory, which says
/// nothing; their code and words lie at the beginning of mappings.
const OF_A_MAPPING: u64 = 64 << 20;
const OF_A_PROCESS: u64 = 1 << 30;

/// Bytes that neighbouring pieces of one mapping share.
const SHARED: u64 = davy_scan::OVERLAP as u64;

/// A stretch of a process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) address: u64,
    pub(crate) length: u64,
}

/// What is to be read of a process.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) stretches: Vec<Stretch>,
    /// Bytes that are left out because a bound was reached.
    pub(crate) left_out: u64,
}

/// Plans what to read of a process.
///
/// # Errors
/// When there is no such process, or this user may not read its memory.
pub(crate) fn layout(pid: u32) -> io::Result<Layout> {
    Ok(plan(&fs::read_to_string(format!("/proc/{pid}/maps"))?))
}

fn plan(maps: &str) -> Layout {
    let mut layout = Layout { stretches: Vec::new(), left_out: 0 };
    let mut room = OF_A_PROCESS;
    for (from, to) in maps.lines().filter_map(readable) {
        let length = to - from;
        let taken = length.min(OF_A_MAPPING).min(room);
        layout.left_out += length - taken;
        room -= taken;
        let mut at = 0;
        while at < taken {
            let length = (taken - at).min(WINDOW as u64);
            layout.stretches.push(Stretch { address: from + at, length });
            if at + length >= taken {
                break;
            }
            at += length - SHARED;
        }
    }
    layout
}

/// The range of a line of maps(5) that can be read and is no device.
fn readable(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    words.next()?.starts_with('r').then_some(())?;
    let path = words.nth(3).unwrap_or("");
    let device =
        path.starts_with("/dev/") && !path.starts_with("/dev/shm/") && !path.starts_with("/dev/zero");
    if device || matches!(path, "[vvar]" | "[vvar_vclock]" | "[vsyscall]") {
        return None;
    }
    let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
    (from < to).then_some((from, to))
}

/// An open memory of a process.
pub(crate) struct Memory {
    from: File,
    buffer: Vec<u8>,
}

impl Memory {
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { from: File::open(format!("/proc/{pid}/mem"))?, buffer: Vec::new() })
    }

    /// Copies a stretch into a file without a name, and says how much of it could be read.
    pub(crate) fn copy(&mut self, stretch: Stretch) -> io::Result<(File, u64)> {
        self.buffer.resize(usize::try_from(stretch.length).unwrap_or(WINDOW).min(WINDOW), 0);
        let mut have = 0;
        while have < self.buffer.len() {
            match self.from.read_at(&mut self.buffer[have..], stretch.address + have as u64) {
                Ok(0) => break,
                Ok(more) => have += more,
                // Unmapped meanwhile, or a hole: what was read is looked at.
                Err(_) => break,
            }
        }
        let mut file = File::from(memfd_create("davy-scan", MemfdFlags::CLOEXEC)?);
        file.write_all(&self.buffer[..have])?;
        file.rewind()?;
        Ok((file, have as u64))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use super::*;

    #[test]
    fn devices_guards_and_what_is_too_long_are_left_out() {
        let maps = "\
00400000-00401000 r-xp 00000000 08:01 7 /usr/bin/x
00500000-00501000 ---p 00000000 00:00 0
7f0000000000-7f0006000000 rw-p 00000000 00:00 0
7f1000000000-7f1000001000 rw-s 00000000 00:05 9 /dev/dri/card0
7f2000000000-7f2000001000 rw-s 00000000 00:05 9 /dev/shm/x (deleted)
7ffd00000000-7ffd00004000 r--p 00000000 00:00 0 [vvar]
";
        let layout = plan(maps);
        assert_eq!(layout.left_out, 32 << 20);
        let from: Vec<u64> = layout.stretches.iter().map(|s| s.address).collect();
        assert_eq!((from[0], from.len(), from[from.len() - 1]), (0x40_0000, 7, 0x7f20_0000_0000));
        assert_eq!(layout.stretches[2].address, 0x7f00_0000_0000 + WINDOW as u64 - SHARED);
    }

    #[test]
    fn ones_own_memory_is_copied() {
        let mark = b"a mark in memory".to_vec();
        let mut memory = Memory::open(std::process::id()).unwrap();
        let stretch = Stretch { address: mark.as_ptr() as u64, length: mark.len() as u64 };
        let (mut file, have) = memory.copy(stretch).unwrap();
        let mut copy = Vec::new();
        file.read_to_end(&mut copy).unwrap();
        assert_eq!((copy, have), (mark.clone(), mark.len() as u64));
        assert!(!layout(std::process::id()).unwrap().stretches.is_empty());
        assert_eq!(memory.copy(Stretch { address: 8, length: 8 }).unwrap().1, 0);
    }
}
