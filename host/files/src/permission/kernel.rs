//! The system calls of permission groups, leases and the timer, which have no safe wrapper.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// `struct fanotify_event_metadata` of fanotify(7), without what is not used.
pub(super) const METADATA: usize = 24;

/// Sent when the holder of a lease has to give it back: a real-time signal that nothing else here uses.
pub(super) const LEASE_BREAKS: libc::c_int = 41;

/// Of include/uapi/asm-generic/fcntl.h; the libc crate has it for other systems only.
const F_SETSIG: libc::c_int = 10;

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    checked(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A group that is asked for permission. Its queue is bounded by the kernel, which allows what does not fit.
///
/// The events' descriptors are opened without waiting, or a FIFO would hold up whoever reads events.
pub(super) fn permission_group() -> io::Result<OwnedFd> {
    let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    let event_flags =
        libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE | libc::O_NOATIME | libc::O_NONBLOCK;
    // SAFETY: the call takes two integers.
    owned(unsafe { libc::fanotify_init(flags, event_flags as libc::c_uint) })
}

/// Marks the mount that an open folder lies in, or its whole file system.
pub(super) fn mark(
    group: &OwnedFd,
    folder: BorrowedFd<'_>,
    file_system: bool,
    opens: bool,
) -> io::Result<()> {
    let scope = if file_system { libc::FAN_MARK_FILESYSTEM } else { libc::FAN_MARK_MOUNT };
    let mask = libc::FAN_OPEN_EXEC_PERM | if opens { libc::FAN_OPEN_PERM } else { 0 };
    let flags = libc::FAN_MARK_ADD | scope;
    // SAFETY: without a path the call marks what the descriptor refers to, which outlives it.
    checked(unsafe {
        libc::fanotify_mark(group.as_raw_fd(), flags, mask, folder.as_raw_fd(), std::ptr::null())
    })
    .map(drop)
}

/// One thing that the group was told.
pub(super) struct Event {
    pub(super) mask: u64,
    /// None when the kernel tells that events were lost.
    pub(super) file: Option<OwnedFd>,
    pub(super) pid: u32,
}

/// Takes apart what was read of a permission group. Must be called once for the bytes of one reading, because it takes
/// over the descriptors in them.
pub(super) fn events(bytes: &[u8]) -> impl Iterator<Item = Event> {
    bytes.chunks_exact(METADATA).map(|event| {
        let number = |at: usize| i32::from_ne_bytes([event[at], event[at + 1], event[at + 2], event[at + 3]]);
        let mask = u64::from_ne_bytes(event[8..16].try_into().unwrap_or_default());
        // SAFETY: the kernel opened the descriptor for whoever reads the event, who is the caller and reads it once.
        let file = (number(16) >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number(16)) });
        Event { mask, file, pid: number(20).unsigned_abs() }
    })
}

/// The bytes of the answer to an event.
pub(super) fn response(event: &OwnedFd, allow: bool) -> [u8; 8] {
    let answer = if allow { libc::FAN_ALLOW } else { libc::FAN_DENY };
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&event.as_raw_fd().to_ne_bytes());
    bytes[4..].copy_from_slice(&answer.to_ne_bytes());
    bytes
}

/// Takes a read lease for another process, who is told by [`LEASE_BREAKS`] that it has to be given back.
///
/// # Errors
/// `EAGAIN` while somebody has the file open for writing.
pub(super) fn take_lease(file: impl AsFd, keeper: u32) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    let keeper = libc::c_int::try_from(keeper).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // The owner first: a lease without one is its taker's, whom the signal would end.
    // SAFETY: the calls take integers, and the descriptor outlives them.
    unsafe {
        checked(libc::fcntl(fd, libc::F_SETOWN, keeper))?;
        checked(libc::fcntl(fd, F_SETSIG, LEASE_BREAKS))?;
        checked(libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK))?;
    }
    Ok(())
}

/// Whether this open file holds a read lease that nobody waits for.
pub(super) fn holds_lease(file: impl AsFd) -> bool {
    // SAFETY: the call takes integers, and the descriptor outlives it.
    unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETLEASE) == libc::F_RDLCK }
}

/// Gives a lease back. Closing the file would too, but somebody else may have it open still.
pub(super) fn drop_lease(file: impl AsFd) {
    // SAFETY: the call takes integers, and the descriptor outlives it.
    unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
}

/// Blocks the signals of leases in this thread and gives a descriptor to read them from. SIGIO comes in their place when
/// the kernel has no room for another real-time signal.
pub(super) fn lease_signals() -> io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is emptied before anything else reads it, and outlives the calls.
    unsafe {
        checked(libc::sigemptyset(set.as_mut_ptr()))?;
        checked(libc::sigaddset(set.as_mut_ptr(), LEASE_BREAKS))?;
        checked(libc::sigaddset(set.as_mut_ptr(), libc::SIGIO))?;
        checked(libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()))?;
        owned(libc::signalfd(-1, set.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC))
    }
}

/// Keeps in memory what this process has touched and will touch.
pub(super) fn lock_memory() -> io::Result<()> {
    // SAFETY: the call takes an integer.
    checked(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) }).map(drop)
}

/// Ends this process by SIGKILL unless it is pushed forward in time: whether it runs or is stopped, traced or frozen.
pub(super) struct DeadMansSwitch(libc::timer_t);

impl DeadMansSwitch {
    /// Made without a time, so that nothing happens yet.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: all zeros is a valid sigevent.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut timer = std::ptr::null_mut();
        // SAFETY: both structures outlive the call, which writes the second.
        checked(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) })?;
        Ok(Self(timer))
    }

    /// From now it is this long.
    pub(super) fn push(&self, time: Duration) -> io::Result<()> {
        let value = libc::timespec {
            tv_sec: time.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(time.subsec_nanos().cast_signed()),
        };
        let until =
            libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // SAFETY: the timer is this object's, and the structure outlives the call.
        checked(unsafe { libc::timer_settime(self.0, 0, &raw const until, std::ptr::null_mut()) }).map(drop)
    }
}

impl Drop for DeadMansSwitch {
    fn drop(&mut self) {
        // SAFETY: the timer is this object's, and nobody uses it afterwards.
        unsafe { libc::timer_delete(self.0) };
    }
}
