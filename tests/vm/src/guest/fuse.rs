//! A file system of one file, served from user space by the protocol that `/dev/fuse` speaks (linux/fuse.h).

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const ROOT: u64 = 1;
const PROGRAM: u64 = 2;
const DIRECTORY_MODE: u32 = 0o040_755;
const FILE_MODE: u32 = 0o100_755;

/// A mount; unmounted when dropped.
pub(crate) struct Served {
    place: String,
}

impl Served {
    /// Mounts at `place`, where the one file `program` has these bytes.
    pub(crate) fn mount(place: &str, bytes: Vec<u8>) -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = CString::new(options)?;
        mount("fuse", place, "fuse", MountFlags::empty(), &*options)?;
        std::thread::spawn(move || serve(device, &bytes));
        Ok(Self { place: place.to_owned() })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = unmount(&*self.place, UnmountFlags::DETACH);
    }
}

/// Answers until the file system is gone.
fn serve(mut device: File, bytes: &[u8]) {
    let mut request = vec![0; 256 << 10];
    while let Ok(length) = device.read(&mut request) {
        let Some(request) = request.get(..length) else { return };
        let (code, unique, node) = (word(request, 4), long(request, 8), long(request, 16));
        let body = request.get(40..).unwrap_or_default();
        let answer = match code {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            // Version 7.31; nothing is offered, 64 KiB are written at once at most.
            INIT => Ok([words(&[7, 31, 0, 0, 0, 64 << 10, 1, 0]), vec![0; 32]].concat()),
            LOOKUP if node == ROOT && body.starts_with(b"program\0") => {
                Ok([longs(&[PROGRAM, 0, 0, 0, 0]), attributes(PROGRAM, bytes.len())].concat())
            }
            LOOKUP => Err(libc::ENOENT),
            GETATTR => Ok([longs(&[0, 0]), attributes(node, bytes.len())].concat()),
            OPEN => Ok(longs(&[0, 0])),
            READ => {
                let from = usize::try_from(long(body, 8)).unwrap_or(usize::MAX).min(bytes.len());
                let to = from.saturating_add(word(body, 16) as usize).min(bytes.len());
                Ok(bytes[from..to].to_vec())
            }
            RELEASE | FLUSH => Ok(Vec::new()),
            _ => Err(libc::ENOSYS),
        };
        let (error, content) = match answer {
            Ok(content) => (0, content),
            Err(error) => (-error, Vec::new()),
        };
        let head = words(&[16 + content.len() as u32, error as u32]);
        if device.write_all(&[head, longs(&[unique]), content].concat()).is_err() {
            return;
        }
    }
}

/// `struct fuse_attr`.
fn attributes(node: u64, size: usize) -> Vec<u8> {
    let mode = if node == ROOT { DIRECTORY_MODE } else { FILE_MODE };
    [longs(&[node, size as u64, 1, 0, 0, 0]), words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])].concat()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_ne_bytes)
}
