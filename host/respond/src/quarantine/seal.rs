//! The sealed form: zstd, then XChaCha20-Poly1305 in chunks (the STREAM construction, so that chunks can neither
//! be dropped, repeated nor put in another order), behind a magic word and a random nonce.

use std::io::{self, BufReader, Read, Write};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{
        Payload,
        stream::{DecryptorBE32, EncryptorBE32},
    },
};
use rustix::rand::{GetRandomFlags, getrandom};

const MAGIC: &[u8; 8] = b"DAVYSEA1";
/// 24 bytes of XChaCha nonce less the 5 that STREAM counts with.
const NONCE: usize = 19;
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;
/// A miner packs well at any level; the fast one keeps a busy host's answer quick.
const LEVEL: i32 = 3;

/// The key of one quarantine.
pub(super) type Key = [u8; 32];

/// Random bytes from the kernel.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Seals all of `content` into `sealed`. `number` is bound to it: a sealed file opens under its own number only.
pub(super) fn seal(key: &Key, number: u64, mut content: impl Read, mut sealed: impl Write) -> io::Result<()> {
    let nonce = random::<NONCE>()?;
    sealed.write_all(MAGIC)?;
    sealed.write_all(&nonce)?;
    let cipher = XChaCha20Poly1305::new(key.into());
    let writer = Sealing {
        stream: EncryptorBE32::from_aead(cipher, (&nonce).into()),
        number: number.to_be_bytes(),
        buffer: Vec::with_capacity(CHUNK),
        sealed: &mut sealed,
    };
    let mut packer = zstd::stream::write::Encoder::new(writer, LEVEL)?;
    io::copy(&mut content, &mut packer)?;
    packer.finish()?.finish()?;
    sealed.flush()
}

/// Opens what [`seal`] made.
///
/// # Errors
/// When it was changed in any way, or belongs to another number or key.
pub(super) fn open<R: Read>(key: &Key, number: u64, mut sealed: R) -> io::Result<Unsealed<R>> {
    let mut head = [0; MAGIC.len() + NONCE];
    sealed.read_exact(&mut head)?;
    let (magic, nonce) = head.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(broken("not a sealed file"));
    }
    let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| broken("no nonce"))?;
    let cipher = XChaCha20Poly1305::new(key.into());
    let reader = Opening {
        stream: Some(DecryptorBE32::from_aead(cipher, (&nonce).into())),
        number: number.to_be_bytes(),
        plain: Vec::new(),
        at: 0,
        next: read_chunk(&mut sealed)?,
        sealed,
    };
    zstd::stream::read::Decoder::new(reader)
}

struct Sealing<W> {
    stream: EncryptorBE32<XChaCha20Poly1305>,
    number: [u8; 8],
    buffer: Vec<u8>,
    sealed: W,
}

impl<W: Write> Sealing<W> {
    fn finish(self) -> io::Result<()> {
        let Self { stream, number, buffer, mut sealed } = self;
        let chunk = stream
            .encrypt_last(Payload { msg: &buffer, aad: &number })
            .map_err(|_| broken("the content is too long to seal"))?;
        sealed.write_all(&chunk)
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full buffer is written when more comes, so that the last chunk is never known too late.
        if self.buffer.len() == CHUNK {
            let chunk = self
                .stream
                .encrypt_next(Payload { msg: &self.buffer, aad: &self.number })
                .map_err(|_| broken("the content is too long to seal"))?;
            self.sealed.write_all(&chunk)?;
            self.buffer.clear();
        }
        let taken = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sealed.flush()
    }
}

/// What [`open`] gives: the content as it was sealed.
pub(super) type Unsealed<R> = zstd::stream::read::Decoder<'static, BufReader<Opening<R>>>;

pub(super) struct Opening<R> {
    stream: Option<DecryptorBE32<XChaCha20Poly1305>>,
    number: [u8; 8],
    plain: Vec<u8>,
    at: usize,
    next: Vec<u8>,
    sealed: R,
}

fn read_chunk(sealed: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK + TAG);
    sealed.take((CHUNK + TAG) as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

impl<R: Read> Read for Opening<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() {
            let Some(mut stream) = self.stream.take() else { return Ok(0) };
            let following = read_chunk(&mut self.sealed)?;
            let payload = Payload { msg: &self.next, aad: &self.number };
            let changed = |_| broken("the sealed file was changed or cut");
            if following.is_empty() {
                self.plain = stream.decrypt_last(payload).map_err(changed)?;
            } else {
                self.plain = stream.decrypt_next(payload).map_err(changed)?;
                self.stream = Some(stream);
            }
            self.at = 0;
            self.next = following;
        }
        let taken = into.len().min(self.plain.len() - self.at);
        into[..taken].copy_from_slice(&self.plain[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        seal(&[7; 32], 3, content, &mut bytes).expect("sealing into memory");
        bytes
    }

    fn opened(key: &Key, number: u64, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        open(key, number, bytes)?.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Bytes that do not compress, so that many chunks arise.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn lengths_around_the_chunk_come_back() {
        for length in [0, 1, CHUNK - 14, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5] {
            let content = noise(length);
            assert_eq!(opened(&[7; 32], 3, &sealed(&content)).expect("its own"), content, "{length}");
        }
    }

    #[test]
    fn another_key_number_or_order_does_not_open_it() {
        let content = noise(3 * CHUNK);
        let good = sealed(&content);
        assert!(opened(&[8; 32], 3, &good).is_err());
        assert!(opened(&[7; 32], 4, &good).is_err());
        let head = MAGIC.len() + NONCE;
        let mut swapped = good.clone();
        let (a, b) = swapped[head..head + 2 * (CHUNK + TAG)].split_at_mut(CHUNK + TAG);
        a.swap_with_slice(b);
        assert!(opened(&[7; 32], 3, &swapped).is_err());
        assert!(opened(&[7; 32], 3, &good[..head + 2 * (CHUNK + TAG)]).is_err(), "cut between chunks");
    }

    #[test]
    fn nothing_of_the_content_shows() {
        let content = b"#!/bin/sh\nexec /tmp/.x/xmrig --donate-level 0\n".repeat(50);
        let bytes = sealed(&content);
        assert!(!bytes.windows(5).any(|window| window == b"xmrig"));
    }

    proptest! {
        #[test]
        fn any_change_is_noticed(content in prop::collection::vec(any::<u8>(), 0..3000), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = sealed(&content);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(opened(&[7; 32], 3, &bytes).is_err());
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = opened(&[7; 32], 3, &bytes);
        }
    }
}
