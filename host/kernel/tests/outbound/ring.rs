//! connect(2) by way of io_uring, without a library.
#![allow(unsafe_code)]

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// `IORING_OP_CONNECT` of io_uring(7).
const CONNECT: u8 = 16;

/// `IORING_ENTER_GETEVENTS`.
const WAIT: libc::c_ulong = 1;

/// Where the rings are mapped from, and how large what is mapped is at most for one entry.
const RINGS: [i64; 3] = [0, 0x800_0000, 0x1000_0000];
const LENGTH: usize = 4096;

/// `struct io_uring_params`, as words: offsets of the submission ring begin at word 10, of the completion ring at word 20.
type Params = [u32; 30];

/// Connects and gives what the ring says came of it.
pub(crate) fn connect(socket: &OwnedFd, to: SocketAddr) -> std::io::Result<()> {
    let mut params: Params = [0; 30];
    // SAFETY: the structure is as long as the kernel's (120 bytes) and lives through the call.
    let made = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1 as libc::c_ulong, params.as_mut_ptr()) };
    if made < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel gave a descriptor that nobody else owns.
    let ring = unsafe { OwnedFd::from_raw_fd(made as i32) };
    let map = |offset: i64| -> std::io::Result<*mut u8> {
        // SAFETY: a new mapping, which lives until the process ends.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                LENGTH,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                ring.as_raw_fd(),
                offset,
            )
        };
        if at == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(at.cast()) }
    };
    let [submissions, completions, entries] = [map(RINGS[0])?, map(RINGS[1])?, map(RINGS[2])?];
    let (address, _) = crate::peer::address(to);
    // SAFETY: the entry is the first of the mapped ones and 64 bytes long; its fields lie where io_uring(7) says. The offsets of
    // the rings are the kernel's own and lie within the mappings.
    let result = unsafe {
        entries.write(CONNECT);
        entries.add(4).cast::<i32>().write(socket.as_raw_fd());
        entries.add(8).cast::<u64>().write(size_of_val(&address) as u64);
        entries.add(16).cast::<u64>().write(std::ptr::from_ref(&address) as u64);
        submissions.add(params[16] as usize).cast::<u32>().write(0);
        (*submissions.add(params[11] as usize).cast::<AtomicU32>()).store(1, Ordering::Release);
        let number = libc::c_ulong::from(ring.as_raw_fd().unsigned_abs());
        if libc::syscall(libc::SYS_io_uring_enter, number, 1u64, 1u64, WAIT, 0u64, 0u64) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        completions.add(params[25] as usize + 8).cast::<i32>().read()
    };
    if result < 0 { Err(std::io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
