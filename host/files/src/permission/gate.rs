use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{Shutdown, shutdown};

use super::ask::Answer;
use super::config::{Deadlines, GateConfig, GateCounts, GateError, Marked};
use super::judge::Judge;
use super::keeper::SWITCH;
use super::message::{Message, pair, receive, send};

/// How long a keeper may take to begin and to mark, and to end when it is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause before a keeper that ended is started again, which doubles up to the second figure while they keep ending.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// A keeper that runs.
struct Running {
    child: Child,
    control: Arc<OwnedFd>,
    asks: Arc<OwnedFd>,
}

struct Shared {
    config: Arc<GateConfig>,
    marks: Mutex<Vec<Marked>>,
    running: Mutex<Option<Running>>,
    /// Of keepers that ended, and of the one that runs.
    counts: Mutex<(GateCounts, GateCounts)>,
    panics: Arc<AtomicU64>,
    restarts: AtomicU64,
    stopping: AtomicBool,
}

/// Asks a judge before code runs from what is marked. When this is dropped nothing is asked any more.
pub struct PermissionGate {
    shared: Arc<Shared>,
    replies: Mutex<Receiver<u64>>,
    supervisor: Option<JoinHandle<()>>,
}

impl fmt::Debug for PermissionGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PermissionGate").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl PermissionGate {
    /// Starts a keeper; every mark stands when this returns.
    ///
    /// # Errors
    /// When the kernel has no permission events for us, or one of the marks is refused. Then nothing is left.
    pub fn start(config: GateConfig, marks: Vec<Marked>) -> Result<Self, GateError> {
        let shared = Arc::new(Shared {
            config: Arc::new(config),
            marks: Mutex::new(marks),
            running: Mutex::new(None),
            counts: Mutex::default(),
            panics: Arc::default(),
            restarts: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        });
        let control = shared.begin()?;
        let (tell, replies) = channel();
        let supervised = shared.clone();
        let supervisor = std::thread::Builder::new()
            .name("davy-gate".into())
            .spawn(move || supervised.supervise(control, &tell))
            .map_err(|error| {
                shared.hang_up();
                shared.reap();
                GateError::Start(error)
            })?;
        Ok(Self { shared, replies: Mutex::new(replies), supervisor: Some(supervisor) })
    }

    /// Asks about one more mount or file system; also after the keeper was started again.
    ///
    /// # Errors
    /// When it cannot be marked.
    pub fn mark(&self, mark: Marked) -> Result<(), GateError> {
        let path = mark.path().clone();
        let failed = |source| GateError::Mark { path: path.clone(), source };
        let replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        while replies.try_recv().is_ok() {}
        let control = lock(&self.shared.running).as_ref().map(|running| running.control.clone());
        let control = control.ok_or_else(|| failed(io::ErrorKind::NotConnected.into()))?;
        self.shared.ask_to_mark(&control, &mark).map_err(failed)?;
        let errno = replies.recv_timeout(PATIENCE).map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
        done(errno).map_err(failed)?;
        lock(&self.shared.marks).push(mark);
        Ok(())
    }

    /// Asks about the mount that this open file or folder lies in, for as long as the keeper that runs now: when
    /// [`GateCounts::restarts`] says that there is another, it has to be said again. What is mounted is not held.
    ///
    /// # Errors
    /// When it cannot be marked.
    pub fn mark_opened(&self, opened: impl AsFd) -> Result<(), GateError> {
        let failed = |source| GateError::Mark { path: opened_path(&opened), source };
        let replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        while replies.try_recv().is_ok() {}
        let control = lock(&self.shared.running).as_ref().map(|running| running.control.clone());
        let control = control.ok_or_else(|| failed(io::ErrorKind::NotConnected.into()))?;
        let order = Message::Mark { file_system: false, opens: self.shared.config.opens };
        send(&control, order, Some(opened.as_fd()), false).map_err(failed)?;
        let errno = replies.recv_timeout(PATIENCE).map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
        done(errno).map_err(failed)
    }

    /// Whether opens are asked about too.
    #[must_use]
    pub fn asks_about_opens(&self) -> bool {
        self.shared.config.opens
    }

    /// Forgets every verdict that holds for anyone, because what the judge goes by has changed.
    pub fn forget(&self) {
        if let Some(running) = lock(&self.shared.running).as_ref() {
            // A keeper that takes no orders is gone or about to be, and its verdicts with it.
            let _ = send(&running.control, Message::Forget, None, false);
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> GateCounts {
        let (before, now) = *lock(&self.shared.counts);
        let panics = self.shared.panics.load(Ordering::Relaxed);
        GateCounts { panics, restarts: self.shared.restarts.load(Ordering::Relaxed), ..before + now }
    }

    /// The pid of the keeper that runs now.
    #[must_use]
    pub fn keeper(&self) -> Option<u32> {
        lock(&self.shared.running).as_ref().map(|running| running.child.id())
    }

    /// Stops; when it returns nothing is asked any more and what waited was let through.
    pub fn stop(mut self) -> GateCounts {
        self.end();
        self.counts()
    }

    fn end(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.hang_up();
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

impl Drop for PermissionGate {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    /// Starts a keeper with its marks and its judges; gives the socket to listen to.
    fn begin(&self) -> Result<Arc<OwnedFd>, GateError> {
        let (asks, their_asks) = pair().map_err(GateError::Start)?;
        let (control, their_control) = pair().map_err(GateError::Start)?;
        let mut command = (self.config.keeper)();
        command.current_dir("/").stdin(Stdio::from(their_asks)).stdout(Stdio::from(their_control));
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(GateError::Start)?;
        // The command has kept their ends, without which the keeper's end would not show.
        drop(command);
        let (keeper, control, asks) = (child.id(), Arc::new(control), Arc::new(asks));
        *lock(&self.running) = Some(Running { child, control: control.clone(), asks: asks.clone() });
        let begun =
            self.set_up(&control).and_then(|()| self.appoint(keeper, &asks).map_err(GateError::Start));
        if begun.is_err() {
            self.hang_up();
            self.reap();
        }
        begun.map(|()| control)
    }

    fn set_up(&self, control: &OwnedFd) -> Result<(), GateError> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let Deadlines { exec, open, silence } = self.config.deadlines;
        let setup = Message::Setup {
            agent: std::process::id(),
            exec_ms: millis(exec),
            open_ms: millis(open),
            silence_ms: millis(silence),
            late_allows: self.config.late != Answer::Deny,
        };
        send(control, setup, None, false).map_err(GateError::Start)?;
        match answer(control).map_err(GateError::Start)? {
            Message::Ready { errno } => done(errno).map_err(GateError::Group)?,
            _ => return Err(GateError::Start(io::ErrorKind::InvalidData.into())),
        }
        for mark in lock(&self.marks).iter() {
            let failed = |source| GateError::Mark { path: mark.path().clone(), source };
            self.ask_to_mark(control, mark).map_err(failed)?;
            loop {
                match answer(control).map_err(failed)? {
                    Message::Marked { errno } => break done(errno).map_err(failed)?,
                    Message::Ping => send(control, Message::Pong, None, false).map_err(failed)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn ask_to_mark(&self, control: &OwnedFd, mark: &Marked) -> io::Result<()> {
        // Named while the gate stands: what the agent opens is let through.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, mark.path(), flags, Mode::empty())?;
        let file_system = matches!(mark, Marked::FileSystem(_));
        let order = Message::Mark { file_system, opens: self.config.opens };
        send(control, order, Some(folder.as_fd()), false)
    }

    fn appoint(&self, keeper: u32, asks: &Arc<OwnedFd>) -> io::Result<()> {
        let (config, panics) = (self.config.clone(), self.panics.clone());
        Judge { config, asks: asks.clone(), keeper, panics }.start()
    }

    /// Answers the keeper that it is heard, and starts another when it ends.
    fn supervise(&self, mut control: Arc<OwnedFd>, tell: &Sender<u64>) {
        let mut pause = PAUSE.0;
        loop {
            let begun = Instant::now();
            while let Ok(Some((message, _))) = receive(&control, true) {
                match message {
                    Message::Ping => drop(send(&control, Message::Pong, None, true)),
                    Message::Counts(counts) => lock(&self.counts).1 = counts,
                    Message::Marked { errno } => drop(tell.send(errno)),
                    _ => {}
                }
            }
            self.hang_up();
            self.reap();
            let mut counts = lock(&self.counts);
            *counts = (counts.0 + counts.1, GateCounts::default());
            drop(counts);
            pause = if begun.elapsed() > PAUSE.1 { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            loop {
                if self.rest(pause) {
                    return;
                }
                self.restarts.fetch_add(1, Ordering::Relaxed);
                match self.begin() {
                    Ok(again) => {
                        control = again;
                        // It may have been told to stop while there was no keeper to hang up on.
                        if self.stopping.load(Ordering::Acquire) {
                            self.hang_up();
                        }
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the permission gate stands open: its keeper cannot be started");
                        pause = (pause * 2).min(PAUSE.1);
                    }
                }
            }
        }
    }

    /// Waits unless the gate is to stop; says whether it is.
    fn rest(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stopping.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.stopping.load(Ordering::Acquire)
    }

    fn hang_up(&self) {
        if let Some(running) = lock(&self.running).as_ref() {
            let _ = shutdown(&running.asks, Shutdown::Both);
            let _ = shutdown(&running.control, Shutdown::Write);
        }
    }

    /// Waits for the keeper, which ends by itself at once or by its switch, and by force after that.
    fn reap(&self) {
        let Some(mut running) = lock(&self.running).take() else { return };
        let until = Instant::now() + SWITCH + PATIENCE;
        while Instant::now() < until {
            if matches!(running.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = running.child.kill();
        let _ = running.child.wait();
    }
}

/// Where an open file lies, for people.
fn opened_path(opened: &impl AsFd) -> PathBuf {
    let link = format!("/proc/self/fd/{}", opened.as_fd().as_raw_fd());
    std::fs::read_link(&link).unwrap_or_else(|_| link.into())
}

/// The next packet of a keeper that begins.
fn answer(control: impl AsFd) -> io::Result<Message> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let borrowed: BorrowedFd<'_> = control.as_fd();
    let time = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    poll(&mut [PollFd::new(&borrowed, PollFlags::IN)], Some(&time))?;
    match receive(borrowed, false) {
        Ok(Some((message, _))) => Ok(message),
        Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error),
    }
}

fn done(errno: u64) -> io::Result<()> {
    match i32::try_from(errno) {
        Ok(0) => Ok(()),
        Ok(errno) => Err(io::Error::from_raw_os_error(errno)),
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
