//! The shape of a process's memory, from `/proc/PID/maps` (proc_pid_maps(5)) and the sums in its status.

use std::os::fd::OwnedFd;

use davy_model::{MemoryShape, ProcessKey};

use crate::host::Hardware;
use crate::procfs::ProcFs;
use crate::status::parse_status;

/// At most so many bytes of maps are read: about 80,000 mappings, above the kernel's default bound of 65,530.
const MAX_MAPS: usize = 8 * 1024 * 1024;

const PAGE: u64 = 4096;

/// What RandomX gives every thread to work in (RandomX specification, `RANDOMX_SCRATCHPAD_L3`).
const SCRATCHPAD: u64 = 2 * 1024 * 1024;

impl ProcFs {
    /// The shape of a process's memory; `None` when it is gone or its pid was reused.
    #[must_use]
    pub fn memory_shape(&self, process: &ProcessKey) -> Option<MemoryShape> {
        let folder = self.open(process.pid)?;
        if self.key_of(&folder.stat()?) != *process {
            return None;
        }
        let status = parse_status(&folder.file("status", 16 * 1024)?);
        let maps = folder.file("maps", MAX_MAPS).unwrap_or_default();
        let mut shape = MemoryShape {
            process: *process,
            resident: status.resident.saturating_add(status.hugetlb),
            hugetlb: status.hugetlb,
            largest_anonymous: 0,
            scratchpads: 0,
            anonymous_executable: 0,
            writable_executable: 0,
            nameless_code: 0,
        };
        let cpus = Hardware::host().cpus();
        let pagemap = folder.open("pagemap");
        for mapping in maps.split(|b| *b == b'\n').filter_map(parse_mapping) {
            mapping.add_to(&mut shape, cpus, |start, length| resident(pagemap.as_ref()?, start, length));
        }
        Some(shape)
    }
}

/// One line of maps.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    start: u64,
    length: u64,
    writable: bool,
    executable: bool,
    shared: bool,
    inode: u64,
    name: &'a [u8],
}

fn parse_mapping(line: &[u8]) -> Option<Mapping<'_>> {
    // The name is the sixth field and may hold spaces; the kernel pads in front of it.
    let mut fields = line.splitn(6, |b| *b == b' ');
    let mut field = || fields.next().and_then(|f| std::str::from_utf8(f).ok());
    let (start, end) = field()?.split_once('-')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    let rights = field()?.as_bytes();
    let (_offset, _device) = (field()?, field()?);
    let inode = field()?.parse().ok()?;
    let name = fields.next().unwrap_or(b"").trim_ascii_start();
    Some(Mapping {
        start,
        length: end.checked_sub(start)?,
        writable: rights.get(1) == Some(&b'w'),
        executable: rights.get(2) == Some(&b'x'),
        shared: rights.get(3) == Some(&b's'),
        inode,
        name,
    })
}

impl Mapping<'_> {
    fn add_to(&self, shape: &mut MemoryShape, cpus: u32, resident: impl Fn(u64, u64) -> Option<u64>) {
        let anonymous = self.is_anonymous();
        if anonymous {
            shape.largest_anonymous = shape.largest_anonymous.max(self.length);
            if self.executable {
                shape.anonymous_executable = shape.anonymous_executable.saturating_add(self.length);
            } else if self.writable && !self.is_stack_or_heap() {
                let pads = scratchpads(self.length, cpus);
                // A scratchpad is written from end to end all the time; a thread's stack of the same size hardly.
                let used = |pages: u64| pages.saturating_mul(PAGE) >= self.length / 8 * 7;
                if pads > 0 && resident(self.start, self.length).is_none_or(used) {
                    shape.scratchpads = shape.scratchpads.saturating_add(pads);
                }
            }
        }
        if self.writable && self.executable {
            shape.writable_executable = shape.writable_executable.saturating_add(self.length);
        }
        if self.executable && !anonymous && self.name.ends_with(b" (deleted)") {
            shape.nameless_code = shape.nameless_code.saturating_add(1);
        }
    }

    /// Private memory of no file, plain or in explicit huge pages.
    fn is_anonymous(&self) -> bool {
        let special = self.name.starts_with(b"[v") || self.name == b"[uprobes]";
        let plain = self.inode == 0 && !special && !self.shared && !self.name.starts_with(b"/");
        plain || (!self.shared && self.name.starts_with(b"/anon_hugepage"))
    }

    fn is_stack_or_heap(&self) -> bool {
        self.name == b"[heap]" || self.name.starts_with(b"[stack")
    }
}

/// How many scratchpads a mapping of this length can be. One is 2 MiB, give or take a page. The kernel joins
/// neighbouring anonymous mappings, so a multiple counts too, up to one a CPU; malloc puts a page in front of each.
fn scratchpads(length: u64, cpus: u32) -> u32 {
    if length.abs_diff(SCRATCHPAD) <= PAGE {
        return 1;
    }
    let joined = length / SCRATCHPAD;
    let rest = length % SCRATCHPAD;
    let is_multiple = rest == 0 || rest == joined * PAGE;
    if is_multiple && (2..=u64::from(cpus)).contains(&joined) { joined as u32 } else { 0 }
}

/// How many pages of a range are in memory or swapped out, from `/proc/PID/pagemap`
/// (Documentation/admin-guide/mm/pagemap.rst); `None` where that cannot be read.
fn resident(pagemap: &OwnedFd, start: u64, length: u64) -> Option<u64> {
    const ENTRY: u64 = 8;
    let wanted = usize::try_from(length / PAGE * ENTRY).ok()?;
    let mut entries = vec![0u8; wanted];
    let read = rustix::io::pread(pagemap, &mut entries, start / PAGE * ENTRY).ok()?;
    // The two highest bits: present, swapped. Little-endian and big-endian hosts alike hold them in the native word.
    let words = entries[..read].chunks_exact(ENTRY as usize);
    let held = words.filter(|word| word.first_chunk().is_some_and(|w| u64::from_ne_bytes(*w) >> 62 != 0));
    Some(held.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(maps: &str) -> MemoryShape {
        shape_where(maps, |_, _| None)
    }

    fn shape_where(maps: &str, resident: impl Fn(u64, u64) -> Option<u64>) -> MemoryShape {
        let process = ProcessKey { pid: 1, start_ticks: 1, boot: 1 };
        let mut shape = MemoryShape {
            process,
            resident: 0,
            hugetlb: 0,
            largest_anonymous: 0,
            scratchpads: 0,
            anonymous_executable: 0,
            writable_executable: 0,
            nameless_code: 0,
        };
        let mappings = maps.as_bytes().split(|b| *b == b'\n').filter_map(parse_mapping);
        mappings.for_each(|m| m.add_to(&mut shape, 2, &resident));
        shape
    }

    #[test]
    fn two_randomx_threads_have_two_scratchpads_and_their_stacks_are_none() {
        // Recorded from the reference implementation in light mode; the mappings of 2 MiB sharp are threads' stacks.
        let recorded = "7fbfbffff000-7fbfd0000000 rw-p 00000000 00:00 0 \n\
             7fbfd45fc000-7fbfd47fc000 rw-p 00000000 00:00 0 \n\
             7fbfd47fc000-7fbfd49fd000 rw-p 00000000 00:00 0 \n\
             7fbfd49fe000-7fbfd4bfe000 rw-p 00000000 00:00 0 \n\
             7fbfd4bfe000-7fbfd4dff000 rw-p 00000000 00:00 0 \n\
             7fbfd4e00000-7fbfd5000000 rw-p 00000000 00:00 0 \n";
        let touched = |_, length: u64| Some(if length == SCRATCHPAD { 2 } else { length / PAGE });
        let found = shape_where(recorded, touched);
        assert_eq!((found.scratchpads, found.largest_anonymous), (2, 256 * 1024 * 1024 + PAGE));
    }

    #[test]
    fn a_miner_has_scratchpads_a_dataset_and_generated_code() {
        let found = shape(
            "55d0c0000000-55d0c0200000 rw-p 00000000 00:00 0                          [heap]\n\
             7f0000000000-7f0082000000 rw-p 00000000 00:00 0 \n\
             7f1000000000-7f1000200000 rw-p 00000000 00:00 0 \n\
             7f1000400000-7f1000601000 rw-p 00000000 00:00 0 \n\
             7f1000700000-7f1000900000 rw-p 00000000 00:12 991                        /anon_hugepage (deleted)\n\
             7f1001000000-7f1001402000 rw-p 00000000 00:00 0 \n\
             7f2000000000-7f2000020000 rwxp 00000000 00:00 0 \n\
             7f2000030000-7f2000040000 r-xp 00000000 00:00 0                          [anon:jit code]\n\
             7ffc00000000-7ffc00200000 rw-p 00000000 00:00 0                          [stack]\n",
        );
        assert_eq!(found.scratchpads, 5);
        assert_eq!(found.largest_anonymous, 0x8200_0000);
        assert_eq!((found.anonymous_executable, found.writable_executable), (0x30000, 0x20000));
        assert_eq!(found.nameless_code, 0);
    }

    #[test]
    fn stacks_files_and_the_kernels_own_pages_are_not_taken_for_it() {
        let found = shape(
            "7f1000000000-7f1000800000 rw-p 00000000 00:00 0 \n\
             7f1000000000-7f1000200000 r--p 00000000 fe:00 77                         /usr/lib/a file.so\n\
             7f1000000000-7f1000200000 rw-s 00000000 00:01 77                         /dev/zero (deleted)\n\
             7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0                          [vdso]\n",
        );
        assert_eq!((found.scratchpads, found.anonymous_executable), (0, 0));
    }

    #[test]
    fn neighbours_that_the_kernel_joined_count_each_up_to_one_a_cpu() {
        let mib = 1 << 20;
        assert_eq!(
            (scratchpads(2 * mib, 1), scratchpads(2 * mib + PAGE, 1), scratchpads(2 * mib - PAGE, 1)),
            (1, 1, 1)
        );
        assert_eq!((scratchpads(8 * mib, 4), scratchpads(8 * mib + 4 * PAGE, 4)), (4, 4));
        assert_eq!(
            (scratchpads(8 * mib, 2), scratchpads(8 * mib + PAGE, 4), scratchpads(3 * mib, 4)),
            (0, 0, 0)
        );
        assert_eq!((scratchpads(0, 64), scratchpads(PAGE, 64), scratchpads(u64::MAX, 64)), (0, 0, 0));
    }

    #[test]
    fn code_of_files_without_a_name_is_counted() {
        let found = shape(
            "00400000-00500000 r-xp 00000000 00:01 9                          /memfd:x (deleted)\n\
             00600000-00700000 r-xp 00000000 fe:00 9                          /tmp/y (deleted)\n\
             00800000-00900000 r-xp 00000000 fe:00 9                          /usr/bin/z\n",
        );
        assert_eq!(found.nameless_code, 2);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse_mapping(&bytes);
        }

        #[test]
        fn no_numbers_make_it_panic(a in any::<u64>(), b in any::<u64>(), name in "\\PC{0,20}") {
            let _ = shape(&format!("{a:x}-{b:x} rwxp 0 0:0 0 {name}\n{b:x}-{a:x} rw-p 0 0:0 0\n"));
        }
    }
}
