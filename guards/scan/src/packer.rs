//! Packers, by the structure they leave. UPX writes a loader's record behind the program headers, and a record of the
//! original program behind that; altered copies of UPX remove its name so that it does not unpack them, and keep the rest,
//! because the loader needs it.

use object::elf::PF_X;

use crate::program::{Segment, find, slice};

/// Bits a byte from which on code is compressed or encrypted: machine code has less than seven.
const PACKED_BITS: f32 = 7.2;

/// Names the packer of an ELF file. `after` is the offset of the end of its program headers.
pub(crate) fn packer(
    bytes: &[u8],
    segments: &[Segment],
    after: u64,
    sections: usize,
    entropy: f32,
) -> Option<String> {
    let record = slice(bytes, after, 12 + 12);
    let named = record.get(4..8) == Some(b"UPX!");
    let few = sections == 0 && (1..=4).contains(&segments.len());
    if named || (few && trailer(bytes)) {
        return Some("UPX".to_owned());
    }
    if few && looks_like_upx(bytes, record, segments) && entropy >= PACKED_BITS - 0.5 {
        return Some("UPX, altered".to_owned());
    }
    let code = segments.iter().filter(|s| s.flags & PF_X != 0).map(|s| s.size).max().unwrap_or(0);
    (entropy >= PACKED_BITS && code >= 16 << 10).then(|| "unknown".to_owned())
}

/// The name stands once more in the last bytes of a file that was not altered.
fn trailer(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(64)..];
    find(tail, b"UPX!").is_some()
}

/// The record behind the program headers without its name: checksum, name, size of the loader, version, format; and then
/// the program's identity (zero), its size, and the size of a block, which is the same unless the program is very long.
fn looks_like_upx(bytes: &[u8], record: &[u8], segments: &[Segment]) -> bool {
    let number = |at: usize| record.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (Some(loader), Some(identity), Some(size), Some(block)) =
        (record.get(8..10).map(|b| u16::from_le_bytes([b[0], b[1]])), number(12), number(16), number(20))
    else {
        return false;
    };
    let version = record.get(10).copied().unwrap_or(0);
    let larger =
        u64::from(size) > bytes.len() as u64 && u64::from(size) < (bytes.len() as u64).saturating_mul(64);
    // Altered copies often overwrite the sizes too; then the room that is kept for the program tells.
    let reserved = segments.iter().any(|s| s.memory > s.size.saturating_mul(2).max(1 << 16));
    let sizes = identity == 0 && block != 0 && block <= size && larger;
    (loader != 0 && u64::from(loader) < bytes.len() as u64)
        && (9..=16).contains(&version)
        && (sizes || reserved)
}
