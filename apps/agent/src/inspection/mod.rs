//! The agent's side of the `inspect` worker: hostile bytes go to a process without privileges, and what they say comes back.
//!
//! One thread asks and waits for the answer, batch after batch. A worker that dies, hangs or talks nonsense is ended and another
//! one started; what it had at hand is counted as lost, and nothing waits for it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use davy_kernel::CaptureSink;
use davy_model::{Capture, Captured, Event, EventKind, Said};
use davy_wire::WorkerStatus;
use davy_wire::worker::{InspectReply, InspectRequest, read_frame, write_frame};

use crate::shared::{Counters, Intake, lock};

/// Batches that may wait, and bytes in them. What comes beyond is counted and not read.
const BATCHES: usize = 64;
const WAITING_BYTES: usize = 16 << 20;

/// How long the worker may take for one batch, and to begin.
const PATIENCE: Duration = Duration::from_secs(3);

/// Pauses before it is started again: the first, and the longest. Each failure doubles it, a good answer ends it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// How often it is looked after when nothing is to be read.
const IDLE: Duration = Duration::from_secs(5);

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

/// What is known of the worker, for everyone.
pub(crate) type Standing = Arc<Mutex<WorkerStatus>>;

/// Starts the worker's thread. It ends when the sink is dropped.
pub(crate) fn start(recipe: Recipe, intake: Intake) -> Result<(CaptureSink, Standing, JoinHandle<()>)> {
    let standing =
        Standing::new(Mutex::new(WorkerStatus { name: "inspect".to_owned(), ..WorkerStatus::default() }));
    let (send, batches) = sync_channel(BATCHES);
    let waiting = Arc::new(AtomicUsize::new(0));
    let sink = sink(send, Arc::clone(&waiting), intake.clone());
    let inspection = Inspection {
        recipe,
        intake,
        standing: Arc::clone(&standing),
        waiting,
        worker: None,
        pause: FIRST_PAUSE,
        next_start: Instant::now(),
    };
    let thread = std::thread::Builder::new()
        .name("davy-inspect".to_owned())
        .spawn(move || inspection.run(&batches))
        .context("cannot start the thread that asks the inspect worker")?;
    Ok((sink, standing, thread))
}

/// The sensors' end: it never waits.
fn sink(send: SyncSender<Vec<Capture>>, waiting: Arc<AtomicUsize>, intake: Intake) -> CaptureSink {
    Box::new(move |batch| {
        let (bytes, count) = (bytes_of(&batch), batch.len());
        let room = waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= WAITING_BYTES;
        if !room || matches!(send.try_send(batch), Err(TrySendError::Full(_))) {
            waiting.fetch_sub(bytes, Ordering::Relaxed);
            count_lost(&intake.shared().counters, count);
        }
    })
}

fn bytes_of(batch: &[Capture]) -> usize {
    let of = |capture: &Capture| match &capture.content {
        Captured::Flow { bytes, .. } | Captured::NameAnswer { bytes } => bytes.len(),
        Captured::FlowEnd { .. } => 0,
    };
    batch.iter().map(of).sum()
}

fn count_lost(counters: &Counters, captures: usize) {
    counters.captures_lost.fetch_add(captures as u64, Ordering::Relaxed);
}

struct Inspection {
    recipe: Recipe,
    intake: Intake,
    standing: Standing,
    waiting: Arc<AtomicUsize>,
    worker: Option<Worker>,
    pause: Duration,
    next_start: Instant,
}

impl Inspection {
    fn run(mut self, batches: &Receiver<Vec<Capture>>) {
        self.begin();
        loop {
            match batches.recv_timeout(IDLE) {
                Ok(batch) => {
                    self.waiting.fetch_sub(bytes_of(&batch), Ordering::Relaxed);
                    self.read(batch);
                }
                Err(RecvTimeoutError::Timeout) => self.look_after(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(worker) = self.worker.take() {
            worker.dismiss();
        }
    }

    /// Has a batch read, and gives what it says to the engine.
    fn read(&mut self, batch: Vec<Capture>) {
        self.begin();
        let count = batch.len();
        let Some(worker) = &mut self.worker else {
            return count_lost(&self.intake.shared().counters, count);
        };
        match worker.ask(batch) {
            Ok(events) => {
                self.pause = FIRST_PAUSE;
                events.into_iter().for_each(|event| self.intake.event(event));
            }
            Err(error) => {
                count_lost(&self.intake.shared().counters, count);
                self.failed(&error);
            }
        }
    }

    /// Notices a worker that ended while nothing was asked of it.
    fn look_after(&mut self) {
        if let Some(worker) = &mut self.worker
            && let Ok(Some(status)) = worker.child.try_wait()
        {
            self.failed(&anyhow!("it ended: {status}"));
        }
        self.begin();
    }

    fn begin(&mut self) {
        if self.worker.is_some() || Instant::now() < self.next_start {
            return;
        }
        match Worker::start(&self.recipe) {
            Ok((worker, confinement)) => {
                for missing in &confinement.missing {
                    tracing::warn!("the inspect worker: {missing}");
                }
                let mut standing = lock(&self.standing);
                standing.pid = Some(worker.child.id());
                standing.confinement = Some(confinement);
                standing.fault = None;
                self.worker = Some(worker);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &anyhow::Error) {
        let how = self.worker.take().map(Worker::end).unwrap_or_default();
        let fault = format!("{error:#}{how}");
        tracing::error!("the inspect worker failed, another is started in {:?}: {fault}", self.pause);
        self.next_start = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        let mut standing = lock(&self.standing);
        standing.pid = None;
        standing.restarts += 1;
        standing.fault = Some(fault);
    }
}

/// A running worker.
struct Worker {
    child: Child,
    socket: UnixStream,
}

impl Worker {
    fn start(recipe: &Recipe) -> Result<(Self, davy_model::Confinement)> {
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

    /// Sends captures and gives what they say as events of their time and their process: neither is the worker's to choose.
    fn ask(&mut self, batch: Vec<Capture>) -> Result<Vec<Event>> {
        let (about, contents): (VecDeque<_>, Vec<_>) =
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
    fn dismiss(mut self) {
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
    fn end(mut self) -> String {
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
    about: &VecDeque<(davy_model::Timestamp, Option<davy_model::ProcessKey>)>,
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
