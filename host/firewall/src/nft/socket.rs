use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::batch::header;
use super::{Attributes, Batch, FAMILY, SUBSYSTEM, message};
use crate::Error;

const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;

/// `NLM_F_DUMP_INTR`: what is listed changed in between.
const INTERRUPTED: u16 = 0x10;

/// How often a list is asked for until nothing changes in between.
const TRIES: usize = 10;

/// Kinds of netlink's own messages.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// The kernel fills at most 32 KiB a datagram.
const BUFFER: usize = 64 * 1024;

/// A conversation with the kernel's packet filter, in the network namespace of the thread that began it.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Begins one.
    pub(crate) fn open() -> Result<Self, Error> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        );
        match socket {
            Ok(socket) => Ok(Self(socket)),
            Err(Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT) => Err(Error::Absent),
            Err(error) => {
                Err(Error::Netlink { act: "a netlink socket could not be opened", source: error.into() })
            }
        }
    }

    /// Carries out changes.
    ///
    /// # Errors
    /// The first part that the kernel refused; nothing is changed then.
    pub(crate) fn commit(&self, batch: Batch) -> Result<(), Error> {
        let (bytes, acts) = batch.finish();
        // The whole change is one datagram. What the kernel keeps beside it is a few hundred bytes.
        let room = bytes.len() + 4096;
        if sockopt::set_socket_send_buffer_size_force(&self.0, room).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(&self.0, room);
        }
        self.send(&bytes)?;
        // The kernel has answered by now: it carries out a batch within the call that sends it.
        let (mut refused, mut acknowledged) = (None, false);
        let last = u32::try_from(acts.len().saturating_sub(2)).unwrap_or(0);
        while self.receive(RecvFlags::DONTWAIT, |message| {
            if message.kind == ERROR {
                match message.error() {
                    0 => acknowledged |= message.sequence == last,
                    code => drop(refused.get_or_insert((message.sequence, code))),
                }
            }
            Ok(())
        })? {}
        match refused {
            None if acknowledged => Ok(()),
            None => Err(Error::Netlink {
                act: "a change of nftables was not answered",
                source: Errno::NOBUFS.into(),
            }),
            Some((sequence, code)) => Err(refusal(sequence, code, &acts)),
        }
    }

    /// Asks for a list and gives the attributes of each message of the answer. The kernel answers in several datagrams, and what is
    /// changed between two of them makes others be left out, so that a list counts only when nothing was.
    ///
    /// # Errors
    /// When the kernel refuses, or rules change all the time.
    pub(crate) fn dump(&self, kind: u16, fill: impl FnOnce(&mut Attributes)) -> Result<Vec<Vec<u8>>, Error> {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        let request = header(SUBSYSTEM << 8 | kind, REQUEST | DUMP, 1, FAMILY, 0, attributes.written());
        let mut before = self.generation()?;
        for _ in 0..TRIES {
            let listed = self.listed(&request)?;
            let after = self.generation()?;
            match listed {
                Some(all) if before == after => return Ok(all),
                _ => before = after,
            }
        }
        let source = io::ErrorKind::Interrupted.into();
        Err(Error::Netlink { act: "somebody changed nftables all the while it was listed", source })
    }

    /// One answer; `None` where the kernel says itself that something changed in between.
    fn listed(&self, request: &[u8]) -> Result<Option<Vec<Vec<u8>>>, Error> {
        self.send(request)?;
        let (mut all, mut done, mut whole) = (Vec::new(), false, true);
        while !done {
            self.receive(RecvFlags::empty(), |message| {
                whole &= !message.is_interrupted();
                match message.kind {
                    DONE => done = true,
                    ERROR => return Err(asked(message.error())),
                    _ => all.push(message.attributes().to_vec()),
                }
                Ok(())
            })?;
        }
        Ok(whole.then_some(all))
    }

    /// Whether there is such a table.
    pub(crate) fn has(&self, table: &str) -> Result<bool, Error> {
        let tables = self.dump(message::GET_TABLE, |_| {})?;
        let name = |attributes: &Vec<u8>| {
            super::find(attributes, 1).and_then(|name| name.strip_suffix(b"\0")) == Some(table.as_bytes())
        };
        Ok(tables.iter().any(name))
    }

    /// How often the rules of this network namespace were changed, by anybody.
    pub(crate) fn generation(&self) -> Result<u32, Error> {
        self.send(&header(SUBSYSTEM << 8 | message::GET_GENERATION, REQUEST, 1, 0, 0, &[]))?;
        let mut generation = None;
        self.receive(RecvFlags::empty(), |found| {
            match found.kind {
                ERROR => return Err(asked(found.error())),
                kind if kind == SUBSYSTEM << 8 | message::NEW_GENERATION => {
                    let value = super::attributes::find(found.attributes(), 1);
                    generation = value.and_then(|v| Some(u32::from_be_bytes(*v.first_chunk()?)));
                }
                _ => {}
            }
            Ok(())
        })?;
        generation.ok_or(Error::Netlink {
            act: "nftables told no generation",
            source: io::ErrorKind::InvalidData.into(),
        })
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        match rustix::net::sendto(&self.0, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)) {
            Ok(_) => Ok(()),
            Err(Errno::PERM) => Err(Error::Forbidden),
            Err(error) => {
                Err(Error::Netlink { act: "nftables could not be spoken to", source: error.into() })
            }
        }
    }

    /// Takes one datagram apart; false when none waits.
    fn receive(
        &self,
        flags: RecvFlags,
        mut each: impl FnMut(&Received<'_>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let mut buffer = vec![0u8; BUFFER];
        let length = match rustix::net::recv(&self.0, &mut buffer, flags) {
            Ok((length, _)) => length.min(BUFFER),
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => {
                return Err(Error::Netlink { act: "nftables could not be heard", source: error.into() });
            }
        };
        for message in messages(&buffer[..length]) {
            each(&message)?;
        }
        Ok(length > 0)
    }
}

/// One message of a datagram.
struct Received<'b> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'b [u8],
}

impl<'b> Received<'b> {
    /// The error number of an error message; zero is an acknowledgement.
    fn error(&self) -> i32 {
        self.body.first_chunk().map_or(i32::MAX, |code| i32::from_ne_bytes(*code).saturating_neg())
    }

    /// Whether what is listed changed before this message.
    const fn is_interrupted(&self) -> bool {
        self.flags & INTERRUPTED != 0
    }

    /// What follows on `struct nfgenmsg`.
    fn attributes(&self) -> &'b [u8] {
        self.body.get(4..).unwrap_or_default()
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let message = bytes.get(..length).filter(|_| length >= 16)?;
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some(Received {
            kind: u16::from_ne_bytes([message[4], message[5]]),
            flags: u16::from_ne_bytes([message[6], message[7]]),
            sequence: u32::from_ne_bytes([message[8], message[9], message[10], message[11]]),
            body: &message[16..],
        })
    })
}

fn refusal(sequence: u32, code: i32, acts: &[(String, &'static str)]) -> Error {
    match (sequence, Errno::from_raw_os_error(code)) {
        (_, Errno::PERM) => Error::Forbidden,
        // Nobody is there to take the change.
        (0, Errno::OPNOTSUPP | Errno::INVAL) | (1, Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => Error::Absent,
        (sequence, _) => {
            let (act, hint) = acts.get(sequence as usize).cloned().unwrap_or_default();
            Error::Refused { act, source: io::Error::from_raw_os_error(code), hint }
        }
    }
}

fn asked(code: i32) -> Error {
    match Errno::from_raw_os_error(code) {
        Errno::PERM => Error::Forbidden,
        Errno::OPNOTSUPP | Errno::AFNOSUPPORT => Error::Absent,
        error => Error::Refused { act: "list what it holds".to_owned(), source: error.into(), hint: "" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_that_was_interrupted_is_known() {
        let said = |flags| {
            let bytes = header(message::GET_RULE, flags, 1, FAMILY, 0, &[]);
            messages(&bytes).map(|message| message.is_interrupted()).collect::<Vec<_>>()
        };
        assert_eq!((said(2), said(2 | INTERRUPTED)), (vec![false], vec![true]));
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0u32..200) {
            if let Some(first) = bytes.first_chunk_mut::<4>() {
                *first = length.to_ne_bytes();
            }
            for message in messages(&bytes) {
                let _ = (message.error(), message.attributes(), message.is_interrupted());
            }
        }
    }
}
