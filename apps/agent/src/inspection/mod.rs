//! The agent's side of the `inspect` worker: hostile bytes go to a process without privileges, and what they say comes back.
//!
//! One thread asks and waits for the answer, batch after batch. A worker that dies, hangs or talks nonsense is ended and another
//! one started; what it had at hand is counted as lost, and nothing waits for it.

mod worker;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use davy_kernel::CaptureSink;
use davy_model::{Capture, Captured};
use davy_wire::WorkerStatus;

use crate::shared::{Counters, Intake, lock};
use worker::Worker;

pub(crate) use worker::Recipe;

/// Batches that may wait, and bytes in them. What comes beyond is counted and not read.
const BATCHES: usize = 64;
const WAITING_BYTES: usize = 16 << 20;

/// Pauses before it is started again: the first, and the longest. Each failure doubles it, a good answer ends it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// How often it is looked after when nothing is to be read.
const IDLE: Duration = Duration::from_secs(5);

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
        if let Some(error) = self.worker.as_mut().and_then(Worker::ended) {
            self.failed(&error);
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
                standing.pid = Some(worker.pid());
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
