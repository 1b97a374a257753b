use serde::{Deserialize, Serialize};

use crate::ProcessKey;

/// The shape of a process's memory, as `/proc/PID/smaps` (or `maps`) shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryShape {
    /// Which process.
    pub process: ProcessKey,
    /// Resident bytes.
    pub resident: u64,
    /// Bytes of explicit huge pages (hugetlb), private and shared.
    pub hugetlb: u64,
    /// The largest anonymous mapping, in bytes.
    pub largest_anonymous: u64,
    /// Number of private anonymous mappings of 2 MiB, give or take a page, that are nearly all in use:
    /// RandomX scratchpads. Neighbours that the kernel joined into one mapping count each, up to one a CPU.
    pub scratchpads: u32,
    /// Bytes of anonymous memory that is executable: just-in-time code, or unpacked code.
    pub anonymous_executable: u64,
    /// Bytes of memory that is writable and executable at once.
    pub writable_executable: u64,
    /// Executable mappings of files that have no name any more (memfd, deleted).
    pub nameless_code: u32,
}

/// What a process does with a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuUse {
    /// Which process.
    pub process: ProcessKey,
    /// The device: a PCI address or a device node.
    pub device: String,
    /// Thousandths of the last interval in which the device worked for it; `None` where only an open handle is seen.
    pub busy_permille: Option<u16>,
    /// Device memory held, in bytes; zero where unknown.
    pub memory: u64,
}
