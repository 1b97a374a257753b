//! A file copied by an io_uring: opened and written by the kernel's own threads.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::{self, Error};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

const OPENAT: u8 = 18;
const WRITE: u8 = 23;
/// Every request goes to a worker thread at once.
const ASYNC: u8 = 1 << 4;
const GET_EVENTS: u32 = 1;

/// `struct io_uring_params`, in words: sizes and flags, then the offsets of both rings.
type Parameters = [u32; 30];

struct Ring {
    descriptor: OwnedFd,
    submissions: *mut u8,
    completions: *mut u8,
    entries: *mut u8,
    parameters: Parameters,
}

/// Copies `from` over `to` with one open and one write.
pub(crate) fn copy(from: &str, to: &str) -> io::Result<()> {
    let bytes = std::fs::read(from)?;
    let path = CString::new(to)?;
    let ring = Ring::new()?;
    let flags = (libc::O_WRONLY | libc::O_CREAT) as u32;
    let file = ring.request(OPENAT, libc::AT_FDCWD, path.as_ptr() as u64, 0o755, 0, flags)?;
    // SAFETY: the descriptor is new, and nobody else's.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    let length = u32::try_from(bytes.len()).map_err(Error::other)?;
    let written = ring.request(WRITE, file.as_raw_fd(), bytes.as_ptr() as u64, length, 0, 0)?;
    if u32::try_from(written) == Ok(length) { Ok(()) } else { Err(Error::other("a short write")) }
}

impl Ring {
    fn new() -> io::Result<Self> {
        let mut parameters: Parameters = [0; 30];
        // SAFETY: the parameters are as large as the kernel's; the descriptor is new; the mappings are new, and of the ring
        // and at the places that io_uring_setup(2) names, larger than anything that is used of them.
        unsafe {
            let made = libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr());
            if made < 0 {
                return Err(Error::last_os_error());
            }
            let descriptor = OwnedFd::from_raw_fd(made as i32);
            let map = |place: i64| {
                let found = libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_POPULATE,
                    descriptor.as_raw_fd(),
                    place,
                );
                if found == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(found.cast::<u8>()) }
            };
            let (submissions, completions, entries) = (map(0)?, map(0x800_0000)?, map(0x1000_0000)?);
            Ok(Self { descriptor, submissions, completions, entries, parameters })
        }
    }

    fn request(
        &self,
        operation: u8,
        file: i32,
        address: u64,
        length: u32,
        offset: u64,
        flags: u32,
    ) -> io::Result<i32> {
        // `struct io_sqring_offsets` begins at word 10, `struct io_cqring_offsets` at word 20.
        let [tail, array] = [self.parameters[11], self.parameters[16]];
        let [head, results] = [self.parameters[20], self.parameters[25]];
        // SAFETY: the offsets are the kernel's own within its rings; one request is made at a time, so the entry and the
        // result at the place are free to be written and read; heads and tails are shared with the kernel as atomics.
        unsafe {
            let tail = &*self.submissions.add(tail as usize).cast::<AtomicU32>();
            let at = tail.load(Ordering::Acquire) & 1;
            let entry = self.entries.add(at as usize * 64);
            entry.write_bytes(0, 64);
            entry.write(operation);
            entry.add(1).write(ASYNC);
            entry.add(4).cast::<i32>().write(file);
            entry.add(8).cast::<u64>().write(offset);
            entry.add(16).cast::<u64>().write(address);
            entry.add(24).cast::<u32>().write(length);
            entry.add(28).cast::<u32>().write(flags);
            self.submissions.add(array as usize).cast::<u32>().add(at as usize).write(at);
            tail.fetch_add(1, Ordering::Release);
            let descriptor = self.descriptor.as_raw_fd();
            let nothing = std::ptr::null::<u8>();
            if libc::syscall(libc::SYS_io_uring_enter, descriptor, 1, 1, GET_EVENTS, nothing, 0) < 0 {
                return Err(Error::last_os_error());
            }
            let head = &*self.completions.add(head as usize).cast::<AtomicU32>();
            let at = head.load(Ordering::Acquire) & 3;
            let result = self.completions.add(results as usize + at as usize * 16 + 8).cast::<i32>().read();
            head.fetch_add(1, Ordering::Release);
            if result < 0 { Err(Error::from_raw_os_error(-result)) } else { Ok(result) }
        }
    }
}
