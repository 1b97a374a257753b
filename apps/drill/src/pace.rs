//! Holds an act to a part of the CPU from outside, as those do who want their miner to be overlooked.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};

/// One turn of running and standing still.
const TURN: Duration = Duration::from_millis(100);

/// Keeps the pace until it is dropped; then the act runs freely.
#[derive(Debug)]
pub(crate) struct Pace {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pace {
    /// Lets the process run for this part of the time.
    pub(crate) fn keep(process: OwnedFd, percent: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let running = TURN * percent.min(100) / 100;
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) && pidfd_send_signal(&process, Signal::STOP).is_ok() {
                std::thread::sleep(TURN - running);
                if pidfd_send_signal(&process, Signal::CONT).is_err() {
                    break;
                }
                std::thread::sleep(running);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
