//! A worker as whoever asks holds it: a child, and one end of the socket that it reads questions from.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use davy_wire::worker::{read_frame, write_frame};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A running worker.
#[derive(Debug)]
pub struct WorkerProcess {
    child: Child,
    socket: UnixStream,
    /// When it is set, no answer is waited for any more.
    stop: Option<Arc<AtomicBool>>,
}

/// How long it is waited for before it is looked whether to go on waiting.
const LOOK: Duration = Duration::from_millis(200);

impl WorkerProcess {
    /// Starts `program` with `arguments` as a worker: with an empty environment, and a socket as standard input and output.
    ///
    /// # Errors
    /// When there is no socket to be had, or the program does not start.
    pub fn start(program: &Path, arguments: &[String]) -> Result<Self> {
        let (socket, theirs) = UnixStream::pair().context("cannot make a pair of sockets")?;
        let output = theirs.try_clone().context("cannot double a socket")?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(OwnedFd::from(output)))
            // Ctrl-C is for whoever asks to take; the worker ends when its socket does.
            .process_group(0)
            .spawn()
            .context("cannot start it")?;
        Ok(Self { child, socket, stop: None })
    }

    /// Gives up waiting for an answer when `stop` is set.
    pub fn heed(&mut self, stop: Arc<AtomicBool>) {
        self.stop = Some(stop);
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<anyhow::Error> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(anyhow!("it ended: {status}"))
    }

    /// Tells it something that it does not answer.
    ///
    /// # Errors
    /// When it does not take it in within `patience`.
    pub fn tell<Q: Serialize>(&self, message: &Q, patience: Duration) -> Result<()> {
        let mut socket = self.patient(patience);
        write_frame(&mut socket, message).context("cannot tell it")
    }

    /// Asks it something, with a descriptor where there is one, and waits for the answer.
    ///
    /// # Errors
    /// When it has not answered within `patience`, hung up, or answers what makes no sense.
    pub fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        question: &Q,
        file: Option<BorrowedFd<'_>>,
        patience: Duration,
    ) -> Result<A> {
        let mut socket = self.patient(patience);
        match file {
            None => write_frame(&mut socket, question).context("cannot ask it")?,
            Some(_) => {
                self.socket.set_write_timeout(Some(patience)).context("cannot ask it")?;
                send(&self.socket, question, file).context("cannot ask it")?;
            }
        }
        read_frame(&mut socket).context("no answer")?.context("it hung up")
    }

    fn patient(&self, patience: Duration) -> Patient<'_> {
        Patient { socket: &self.socket, until: Instant::now() + patience, stop: self.stop.as_deref() }
    }

    /// Hangs up and waits for it to end by itself, which takes it no time.
    pub fn dismiss(mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end();
    }

    /// Ends it by force, and says how it had ended if it had.
    pub fn end(mut self) -> String {
        // A worker that was just killed by the kernel hangs up a moment before it can be waited for.
        std::thread::sleep(Duration::from_millis(20));
        if let Ok(Some(status)) = self.child.try_wait() {
            return format!(" ({status})");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        String::new()
    }
}

/// Sends one frame; a descriptor goes with its first bytes.
pub(crate) fn send<Q: Serialize>(
    socket: &UnixStream,
    message: &Q,
    file: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    write_frame(&mut bytes, message)?;
    let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(socket, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL)?;
    let mut socket = socket;
    socket.write_all(&bytes[sent..])
}

/// A socket whose every reading and writing together end at one time.
struct Patient<'a> {
    socket: &'a UnixStream,
    until: Instant,
    stop: Option<&'a AtomicBool>,
}

impl Patient<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.left()?;
            self.socket.set_read_timeout(if self.stop.is_some() { left.min(Some(LOOK)) } else { left })?;
            match self.socket.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
