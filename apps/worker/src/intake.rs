use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// The most descriptors that wait to be taken. What comes beyond is closed.
const WAITING: usize = 4;

/// A socket that bytes are read from, and the descriptors that come with them.
pub(crate) struct Intake<S> {
    socket: S,
    files: VecDeque<OwnedFd>,
}

impl<S: AsFd> Intake<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, files: VecDeque::new() }
    }

    /// The descriptor that came first and was not taken yet.
    pub(crate) fn file(&mut self) -> Option<OwnedFd> {
        self.files.pop_front()
    }
}

impl<S: AsFd> Read for Intake<S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.socket, &mut [IoSliceMut::new(bytes)], &mut beside, flags)?;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                let room = WAITING.saturating_sub(self.files.len());
                self.files.extend(files.take(room));
            }
        }
        Ok(received.bytes)
    }
}
