//! Read leases: how a decision on a file's bytes stays one on the bytes that run.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use super::ask::Steadiness;
use super::kernel;

/// Local file systems whose leases see every writer. Overlays are not among them: their files can be written by the layer
/// below or above; and of network file systems and FUSE the other side decides.
const LEASING: [u64; 5] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0xf2f5_2010, // f2fs
];

/// How long a writer may take to be done, and how often that is looked at. Installers close a program and start it.
const PATIENCE: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(2);

/// Takes a lease in the keeper's name, and says what came of it.
pub(super) fn hold(file: &File, keeper: u32) -> Steadiness {
    let leases =
        rustix::fs::fstatfs(file).is_ok_and(|s| LEASING.contains(&(s.f_type.cast_unsigned() & 0xffff_ffff)));
    if !leases {
        return Steadiness::Unknown;
    }
    let until = Instant::now() + PATIENCE;
    loop {
        match kernel::take_lease(file, keeper) {
            Ok(()) => return Steadiness::Held,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Steadiness::Unknown,
            Err(_) if Instant::now() >= until => return Steadiness::Written,
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
