//! What goes between the agent and its unprivileged workers: length-prefixed binary frames, a question and then its answer.
//!
//! Both ends are the same program, so there is no version. The agent trusts nothing that comes back: answers are bounded, and
//! name what they are about by its place in the question.

use std::io::{self, Read, Write};

use davy_model::{Captured, Confinement, Said, ScanReport, SetAside};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest frame, in bytes.
pub const MAX_FRAME: usize = 16 << 20;

/// From the agent to its `inspect` worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum InspectRequest {
    /// The first one: how many bytes to keep of each direction of a flow, and how many flows.
    Begin {
        /// Bytes.
        head_bytes: u32,
        /// Flows.
        flows: u32,
    },
    /// Captures to be read, in the order of time.
    Read(Vec<Captured>),
}

/// From the `inspect` worker to the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum InspectReply {
    /// Answer to [`InspectRequest::Begin`], given once the worker is confined.
    Ready(Confinement),
    /// Answer to [`InspectRequest::Read`].
    Said {
        /// What was said, each with the place of its capture in the question.
        said: Vec<(u32, Said)>,
        /// Flows given up since the beginning because a bound was reached.
        given_up: u64,
    },
}

/// To the `scan` worker, from whoever has files to be looked at. First come rules and hash lists, then `Begin`, then one
/// thing after another, each with its descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanRequest {
    /// Rules in YARA's language. Not answered.
    Rules {
        /// Where they are from, for people.
        origin: String,
        /// The rules.
        text: String,
    },
    /// SHA-256 digests of bad files, one a line. Not answered.
    Hashes(String),
    /// Begin to work with what came before.
    Begin {
        /// Whether archives are opened.
        archives: bool,
        /// Whether the structure of every program is told, not only of those that matched.
        programs: bool,
    },
    /// Look at a file, whose descriptor comes with this.
    File {
        /// Its length in bytes when it was opened.
        length: u64,
    },
    /// Look at pieces of a process's memory, which lie one after the other in the file whose descriptor comes with this.
    Memory {
        /// Each piece's address and length.
        pieces: Vec<(u64, u64)>,
        /// Whether these are the last of this process.
        last: bool,
    },
}

/// From the `scan` worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)]
pub enum ScanReply {
    /// Answer to [`ScanRequest::Begin`].
    Ready {
        /// What it has given up; rules are compiled after that.
        confinement: Confinement,
        /// How many rules take part.
        rules: u32,
        /// How many digests.
        hashes: u32,
        /// Rules that do not take part.
        aside: Vec<SetAside>,
    },
    /// Answer to [`ScanRequest::Memory`] when more is to come.
    Next,
    /// What was found.
    Report(ScanReport),
    /// It could not be read, a sentence.
    Unreadable(String),
}

/// Writes one frame.
///
/// # Errors
/// When the message is longer than [`MAX_FRAME`] or the writer fails.
pub fn write_frame<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    // The length goes first, so room is left for it.
    let bytes = postcard::to_extend(message, vec![0; 4]).map_err(malformed)?;
    write_whole(to, bytes)
}

fn write_whole(to: &mut impl Write, mut bytes: Vec<u8>) -> io::Result<()> {
    let length = bytes.len() - 4;
    if length > MAX_FRAME {
        return Err(malformed(format!("a frame of {length} bytes is too long")));
    }
    bytes[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    to.write_all(&bytes)?;
    to.flush()
}

/// Reads one frame; `None` at the end of the stream.
///
/// # Errors
/// When the frame is longer than [`MAX_FRAME`], cut, or no such message, or the reader fails.
pub fn read_frame<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read(&mut length[..1])? {
        0 => return Ok(None),
        _ => from.read_exact(&mut length[1..])?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(malformed(format!("a frame of {length} bytes is too long")));
    }
    // Memory grows with what comes, not with what is announced.
    let mut bytes = Vec::new();
    from.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    postcard::from_bytes(&bytes).map(Some).map_err(malformed)
}

fn malformed(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use davy_model::{Direction, FlowKey};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let bytes = vec![0xff; 3000];
        let captured =
            Captured::Flow { flow: FlowKey(1 << 40), direction: Direction::Received, offset: 7, bytes };
        let question = InspectRequest::Read(vec![captured, Captured::FlowEnd { flow: FlowKey(2) }]);
        let mut stream = Vec::new();
        write_frame(&mut stream, &question).unwrap();
        write_frame(&mut stream, &InspectRequest::Begin { head_bytes: 1, flows: 2 }).unwrap();
        let mut stream = &stream[..];
        assert_eq!(read_frame(&mut stream).unwrap(), Some(question));
        assert_eq!(read_frame(&mut stream).unwrap(), Some(InspectRequest::Begin { head_bytes: 1, flows: 2 }));
        assert_eq!(read_frame::<InspectRequest>(&mut stream).unwrap(), None);
    }

    #[test]
    fn a_frame_that_is_too_long_is_not_written() {
        let captured = Captured::NameAnswer { bytes: vec![0; MAX_FRAME] };
        assert!(write_frame(&mut Vec::new(), &InspectRequest::Read(vec![captured])).is_err());
    }

    proptest! {
        #[test]
        fn no_stream_is_fatal(bytes in proptest::collection::vec(any::<u8>(), 0..400), length in 0u32..400) {
            let _ = read_frame::<InspectReply>(&mut &bytes[..]);
            let framed = [&length.to_le_bytes()[..], &bytes].concat();
            let _ = read_frame::<InspectReply>(&mut &framed[..]);
        }
    }
}
