//! The worker as the agent holds it: a child, and one end of the socket that it reads questions from.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use davy_model::{Capture, Captured, Confinement, Event, EventKind, ProcessKey, Said, Timestamp};
use davy_wire::worker::{InspectReply, InspectRequest, read_frame, write_frame};

/// How long the worker may take for one batch, and to begin.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a worker is started: the program, its arguments, and what it is told first.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) head_bytes: u32,
    pub(crate) flows: u32,
}

impl Recipe {
    /// This very program, whatever became of its file's name since.
    pub(crate) fn new(head_bytes: u32, flows: u32) -> Self {
        let arguments = ["worker", "inspect"].map(str::to_owned).to_vec();
        Self { program: PathBuf::from("/proc/self/exe"), arguments, head_bytes, flows }
    }
}

/// A running worker.
pub(super) struct Worker {
    child: Child,
    socket: UnixStream,
}

impl Worker {
    pub(super) fn start(recipe: &Recipe) -> Result<(Self, Confinement)> {
        let (socket, theirs) = UnixStream::pair().context("cannot make a pair of sockets")?;
        let output = theirs.try_clone().context("cannot double a socket")?;
        let child = Command::new(&recipe.program)
            .args(&recipe.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(OwnedFd::from(output)))
            // Ctrl-C is the agent's to take; the worker ends when its socket does.
            .process_group(0)
            .spawn()
            .context("cannot start it")?;
        let mut worker = Self { child, socket };
        let first = InspectRequest::Begin { head_bytes: recipe.head_bytes, flows: recipe.flows };
        match worker.exchange(&first) {
            Ok(InspectReply::Ready(confinement)) => Ok((worker, confinement)),
            Ok(_) => Err(anyhow!("it answered before it was asked{}", worker.end())),
            Err(error) => Err(anyhow!("{error:#}{}", worker.end())),
        }
    }

    /// Its pid.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Option<anyhow::Error> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(anyhow!("it ended: {status}"))
    }

    /// Sends captures and gives what they say as events of their time and their process: neither is the worker's to choose.
    pub(super) fn ask(&mut self, batch: Vec<Capture>) -> Result<Vec<Event>> {
        let (about, contents): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|capture| ((capture.time, capture.process), capture.content)).unzip();
        let request = InspectRequest::Read(contents);
        let InspectReply::Said { said, .. } = self.exchange(&request)? else { bail!("it began anew") };
        let InspectRequest::Read(contents) = request else { bail!("the question changed") };
        said.into_iter().map(|(place, said)| event(place as usize, said, &about, &contents)).collect()
    }

    fn exchange(&mut self, request: &InspectRequest) -> Result<InspectReply> {
        let mut socket = Patient { socket: &self.socket, until: Instant::now() + PATIENCE };
        write_frame(&mut socket, request).context("cannot ask it")?;
        read_frame(&mut socket).context("no answer")?.context("it hung up")
    }

    /// Hangs up and waits for it to end by itself, which takes it no time.
    pub(super) fn dismiss(mut self) {
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
    pub(super) fn end(mut self) -> String {
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

fn event(
    place: usize,
    said: Said,
    about: &[(Timestamp, Option<ProcessKey>)],
    contents: &[Captured],
) -> Result<Event> {
    let ((time, process), content) =
        about.get(place).zip(contents.get(place)).context("it answered beside the question")?;
    let kind = match (said, content) {
        (Said::Flow(reading), Captured::Flow { flow, .. }) if reading.flow == *flow => {
            EventKind::FlowRead(Box::new(reading))
        }
        (Said::Name(answer), Captured::NameAnswer { .. }) => EventKind::Name(answer),
        _ => bail!("it spoke of what it was not asked"),
    };
    Ok(Event { time: *time, process: *process, kind })
}

/// A socket whose every reading and writing together end at one time.
struct Patient<'a> {
    socket: &'a UnixStream,
    until: Instant,
}

impl Patient<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(bytes)
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
