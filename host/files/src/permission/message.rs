//! What the gate and its keeper say to each other: small packets, with an open file where one belongs to it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::config::GateCounts;

const WORDS: usize = 10;
const BYTES: usize = WORDS * 8;

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Gate to keeper, first of all: whom to let through, the bounds and the deadlines in milliseconds.
    Setup { agent: u32, exec_ms: u64, open_ms: u64, silence_ms: u64, late_allows: bool },
    /// Keeper to gate: the group stands, or the error number why not.
    Ready { errno: u64 },
    /// Gate to keeper, with the open folder: mark its mount or its file system.
    Mark { file_system: bool, opens: bool },
    /// Keeper to gate: it is marked, or the error number why not.
    Marked { errno: u64 },
    /// Gate to keeper: no verdict holds any longer.
    Forget,
    /// Keeper to gate: are you there?
    Ping,
    /// Gate to keeper: yes.
    Pong,
    /// Keeper to gate, with the open file: may this be opened? `since` is when it was asked, by [`monotonic`].
    Ask { number: u64, pid: u32, exec: bool, since: u64 },
    /// Gate to keeper: it may, or may not, and whether that holds whoever asks while its bytes are the same.
    Verdict { number: u64, allow: bool, keep: bool },
    /// Keeper to gate: what was counted so far.
    Counts(GateCounts),
}

impl Message {
    fn words(self) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        let said: &[u64] = match self {
            Self::Setup { agent, exec_ms, open_ms, silence_ms, late_allows } => {
                &[1, agent.into(), exec_ms, open_ms, silence_ms, late_allows.into()]
            }
            Self::Ready { errno } => &[2, errno],
            Self::Mark { file_system, opens } => &[3, file_system.into(), opens.into()],
            Self::Marked { errno } => &[4, errno],
            Self::Forget => &[5],
            Self::Ping => &[6],
            Self::Pong => &[7],
            Self::Ask { number, pid, exec, since } => &[8, number, pid.into(), exec.into(), since],
            Self::Verdict { number, allow, keep } => &[9, number, allow.into(), keep.into()],
            Self::Counts(c) => {
                &[10, c.asked, c.judged, c.remembered, c.late, c.absent, c.crowded, c.overflows, c.own]
            }
        };
        words[..said.len()].copy_from_slice(said);
        words
    }

    fn of(words: [u64; WORDS]) -> Option<Self> {
        let [kind, a, b, c, d, e, f, g, h, _] = words;
        let pid = |word: u64| u32::try_from(word).ok();
        Some(match kind {
            1 => Self::Setup { agent: pid(a)?, exec_ms: b, open_ms: c, silence_ms: d, late_allows: e != 0 },
            2 => Self::Ready { errno: a },
            3 => Self::Mark { file_system: a != 0, opens: b != 0 },
            4 => Self::Marked { errno: a },
            5 => Self::Forget,
            6 => Self::Ping,
            7 => Self::Pong,
            8 => Self::Ask { number: a, pid: pid(b)?, exec: c != 0, since: d },
            9 => Self::Verdict { number: a, allow: b != 0, keep: c != 0 },
            10 => Self::Counts(GateCounts {
                asked: a,
                judged: b,
                remembered: c,
                late: d,
                absent: e,
                crowded: f,
                overflows: g,
                own: h,
                ..GateCounts::default()
            }),
            _ => return None,
        })
    }
}

/// Nanoseconds of the clock that both processes have in common (CLOCK_MONOTONIC).
pub(super) fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned().saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.cast_unsigned())
}

/// Two ends that keep packets apart.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends a packet; without `wait` it fails with `WouldBlock` when there is no room.
pub(super) fn send(
    socket: impl AsFd,
    message: Message,
    file: Option<BorrowedFd<'_>>,
    wait: bool,
) -> io::Result<()> {
    let mut bytes = [0; BYTES];
    for (place, word) in bytes.chunks_exact_mut(8).zip(message.words()) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let files = file.map(|file| [file]);
    if let Some(files) = &files {
        beside.push(SendAncillaryMessage::ScmRights(files));
    }
    let flags = SendFlags::NOSIGNAL | if wait { SendFlags::empty() } else { SendFlags::DONTWAIT };
    sendmsg(socket, &[io::IoSlice::new(&bytes)], &mut beside, flags)?;
    Ok(())
}

/// The next packet; `None` when the other end is closed. Without `wait` it fails with `WouldBlock` when there is none.
pub(super) fn receive(socket: impl AsFd, wait: bool) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
    let mut bytes = [0; BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let got = recvmsg(socket, &mut [io::IoSliceMut::new(&mut bytes)], &mut beside, flags)?;
    if got.bytes == 0 {
        return Ok(None);
    }
    let file = beside.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    if got.bytes != BYTES || got.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut words = [0; WORDS];
    for (word, place) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(place.try_into().unwrap_or_default());
    }
    Message::of(words).map(|message| Some((message, file))).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn packets_come_as_they_were_sent_with_their_files() {
        let (here, there) = pair().unwrap();
        let counts =
            GateCounts { asked: 1, judged: 2, remembered: 3, late: 4, absent: 5, ..GateCounts::default() };
        let said = [
            Message::Setup { agent: 7, exec_ms: 2000, open_ms: 1000, silence_ms: 500, late_allows: true },
            Message::Mark { file_system: true, opens: false },
            Message::Verdict { number: u64::MAX, allow: false, keep: true },
            Message::Counts(counts),
        ];
        for message in said {
            send(&here, message, None, false).unwrap();
        }
        let file = tempfile::tempfile().unwrap();
        let ask = Message::Ask { number: 9, pid: 4_194_304, exec: true, since: u64::MAX };
        send(&here, ask, Some(file.as_fd()), false).unwrap();
        drop(here);
        for message in said {
            assert_eq!(receive(&there, false).unwrap().unwrap().0, message);
        }
        let (got, with) = receive(&there, false).unwrap().unwrap();
        assert_eq!(got, ask);
        let id = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_eq!(id(&with.unwrap()), id(&file.into()));
        assert!(receive(&there, false).unwrap().is_none());
    }

    #[test]
    fn what_is_no_packet_is_an_error() {
        let (here, there) = pair().unwrap();
        rustix::io::write(&here, b"short").unwrap();
        assert_eq!(receive(&there, false).unwrap_err().kind(), io::ErrorKind::InvalidData);
        rustix::io::write(&here, &[0xff; BYTES]).unwrap();
        assert_eq!(receive(&there, false).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(receive(&there, false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
