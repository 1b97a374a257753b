//! The thread that looks: what waits first, and the scheduled folders when nothing does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use davy_sweep::Scanner;

use super::desk::ScanDesk;
use super::look::Looking;
use super::sweeping::Schedule;
use crate::Paths;
use crate::shared::Intake;

/// How long it waits for something to look at before it looks at the policy and the clock.
const LOOK: Duration = Duration::from_millis(250);

/// How long the worker is kept when nothing is to be looked at: it holds its rules in memory.
const IDLE: Duration = Duration::from_secs(60);

/// The running thread.
pub(crate) struct ScanThread {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl ScanThread {
    pub(super) fn start(paths: &Paths, desk: Arc<ScanDesk>, intake: Intake) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (config, state) = (paths.config.clone(), paths.state.join("scan"));
        let heard = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("davy-scan".to_owned())
            .spawn(move || {
                let (looking, recipe) = Looking::new(desk, intake, config, state, heard);
                let scanner = Scanner::new(recipe).until(Arc::clone(&looking.stop));
                run(looking, scanner);
            })
            .context("cannot start the thread that has files scanned")?;
        Ok(Self { thread, stop })
    }

    /// Ends it, giving up what it looks at.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the thread that has files scanned had panicked");
        }
    }
}

fn run(mut looking: Looking, mut scanner: Scanner) {
    let mut schedule = Schedule::open(&looking.state);
    schedule.tell(&looking.desk);
    let mut used = Instant::now();
    while !looking.stop.load(Ordering::Relaxed) {
        if looking.is_outdated()
            && let Some(recipe) = looking.configure()
        {
            looking.rest(&mut scanner);
            scanner = Scanner::new(recipe).until(Arc::clone(&looking.stop));
        }
        if !looking.budget.allows(Instant::now()) {
            std::thread::sleep(LOOK);
            continue;
        }
        if let Some(job) = looking.desk.next(LOOK) {
            looking.look(&job, &mut scanner);
            used = Instant::now();
        } else if schedule.is_due(&looking.policy.scan) {
            schedule.sweep(&mut looking, &mut scanner);
            used = Instant::now();
        } else if scanner.pid().is_some() && used.elapsed() >= IDLE {
            looking.rest(&mut scanner);
            looking.save();
        }
    }
    looking.save();
    looking.rest(&mut scanner);
}
