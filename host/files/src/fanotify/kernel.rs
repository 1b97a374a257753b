//! The system calls that no safe wrapper has, and the one whose safe wrapper keeps the file system's id to itself.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::path::Arg;

/// `MAX_HANDLE_SZ` of include/linux/exportfs.h.
pub(super) const MAX_HANDLE: usize = 128;

/// `struct file_handle` with room for the largest handle.
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    data: [u8; MAX_HANDLE],
}

fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// A notification group that reports folder handles and names.
pub(super) fn init() -> io::Result<OwnedFd> {
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_REPORT_DFID_NAME;
    let event_flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE) as libc::c_uint;
    // SAFETY: the call takes two integers.
    owned(unsafe { libc::fanotify_init(flags, event_flags) })
}

/// A notification group that reports open files, for file systems without handles to be opened again by.
pub(super) fn init_plain() -> io::Result<OwnedFd> {
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    let event_flags =
        (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE | libc::O_NONBLOCK) as libc::c_uint;
    // SAFETY: the call takes two integers.
    owned(unsafe { libc::fanotify_init(flags, event_flags) })
}

/// Takes over the file of a notification of a plain group.
///
/// Must be called once for each notification that was read, with the number in it.
pub(super) fn file_of(fd: i32) -> Option<OwnedFd> {
    // SAFETY: the kernel opened the descriptor for whoever reads the notification, who is the caller and reads it once.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Marks the whole file system that a path lies on.
pub(super) fn mark(group: &OwnedFd, path: &Path, mask: u64) -> io::Result<()> {
    let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
    let result = path.into_with_c_str(|path| {
        // SAFETY: the path is a terminated string that outlives the call.
        Ok(unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, mask, libc::AT_FDCWD, path.as_ptr()) })
    })?;
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The id of the file system a path lies on, as notifications give it (`f_fsid` of statfs(2)).
pub(super) fn fsid(path: &Path) -> io::Result<[i32; 2]> {
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    let result = path.into_with_c_str(|path| {
        // SAFETY: the path is a terminated string and `stat` has room for what is written; both outlive the call.
        Ok(unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) })
    })?;
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeros is a valid statfs, and the call filled it in.
    let stat = unsafe { stat.assume_init() };
    // SAFETY: the kernel's __kernel_fsid_t is two ints and nothing else; libc merely keeps the field private.
    Ok(unsafe { (&raw const stat.f_fsid).cast::<[i32; 2]>().read() })
}

/// Opens what a handle names, for finding its path; `mount` is any open folder of its file system.
pub(super) fn open_handle(mount: impl AsFd, kind: i32, handle: &[u8]) -> io::Result<OwnedFd> {
    if handle.len() > MAX_HANDLE {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut given = FileHandle { bytes: handle.len() as u32, kind, data: [0; MAX_HANDLE] };
    given.data[..handle.len()].copy_from_slice(handle);
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: `given` has the layout of struct file_handle with `bytes` bytes of data behind it, and outlives the call.
    owned(unsafe { libc::open_by_handle_at(mount.as_fd().as_raw_fd(), (&raw mut given).cast(), flags) })
}
