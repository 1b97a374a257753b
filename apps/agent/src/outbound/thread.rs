//! The thread that keeps the kernel in line with the policy and takes from it what is to be told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use davy_proc::Users;

use super::OutboundDesk;
use crate::clock;
use crate::shared::Intake;

/// The running thread.
pub(crate) struct OutboundThread {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    desk: Arc<OutboundDesk>,
}

impl OutboundThread {
    /// Tells the kernel what the policy says now, and goes on from there.
    pub(crate) fn start(desk: Arc<OutboundDesk>, intake: Intake) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&stop);
        let mut users = Users::new();
        desk.follow(&mut users, clock::now());
        let own = Arc::clone(&desk);
        let thread = std::thread::Builder::new()
            .name("davy-outbound".to_owned())
            .spawn(move || {
                while !heard.load(Ordering::Relaxed) {
                    for event in desk.attempts() {
                        intake.event(event);
                    }
                    desk.follow(&mut users, clock::now());
                    desk.wait();
                }
            })
            .context("cannot start the thread that follows who connects to what")?;
        Ok(Self { thread, stop, desk: own })
    }

    /// Ends it; what the kernel holds stays as it is.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.desk.rouse();
        if self.thread.join().is_err() {
            tracing::error!("the thread that follows who connects to what had panicked");
        }
    }
}
