//! One compressed stream: gzip, xz, zstd, bzip2. What it holds is often a tar archive, which is then gone through as it
//! is unpacked, however long it is.

use std::io::{self, BufReader, Read};

use super::{Account, HEAD, Meter, is_tar, member, tape};
use crate::Engine;
use crate::engine::Visit;
use crate::source::{Cursor, Source};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Xz,
    Zstd,
    Bzip2,
}

impl Coding {
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Some(Self::Bzip2),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
        }
    }
}

pub(super) fn open(
    engine: &mut Engine<'_>,
    coding: Coding,
    source: &dyn Source,
    head: &[u8],
    visit: &mut Visit,
) -> io::Result<()> {
    let limit = engine.bounds().dictionary;
    let packed = BufReader::new(Cursor::new(source));
    let unpacked: Box<dyn Read + '_> = match coding {
        Coding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Coding::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.window_log_max(limit.ilog2())?;
            Box::new(decoder)
        }
        Coding::Xz => {
            if xz_dictionary(head).is_some_and(|bytes| bytes > u64::from(limit)) {
                return Err(io::Error::other(format!(
                    "unpacking it takes more than {limit} bytes of memory"
                )));
            }
            Box::new(lzma_rust2::XzReader::new(packed, true))
        }
    };
    let account = Account::new(source.len());
    let mut unpacked = Meter::of_stream(unpacked, &account, &visit.spent);
    let mut first = Vec::with_capacity(HEAD);
    unpacked.by_ref().take(HEAD as u64).read_to_end(&mut first)?;
    let tar = is_tar(&first);
    let mut whole = io::Cursor::new(first).chain(unpacked);
    if tar {
        return tape::open(engine, whole, visit);
    }
    member(engine, coding.name(), &Account::new(u64::MAX), &mut whole, visit)
}

/// The memory that the first block of an xz file asks for, in bytes: the dictionary of its last filter.
fn xz_dictionary(head: &[u8]) -> Option<u64> {
    const STREAM_HEADER: usize = 12;
    const LZMA2: u64 = 0x21;
    let block = head.get(STREAM_HEADER..)?;
    let (filters, sizes) = (block.get(1)? & 3, block[1] >> 6);
    let mut rest = block.get(2..)?;
    for _ in 0..sizes.count_ones() {
        number(&mut rest)?;
    }
    let mut dictionary = None;
    for _ in 0..=filters {
        let (filter, length) = (number(&mut rest)?, usize::try_from(number(&mut rest)?).ok()?);
        let properties = rest.get(..length)?;
        rest = &rest[length..];
        if filter == LZMA2 {
            let bits = u32::from(properties.first()? & 0x3f);
            dictionary = Some((2 | u64::from(bits & 1)) << (bits / 2 + 11).min(40));
        }
    }
    dictionary
}

/// A number in xz's variable-length form.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..9 {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
