//! The thread that looks after closed ports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::PortsDesk;
use crate::arbiter::{Order, PortsOrder};
use crate::eyes::Every;
use crate::shared::Intake;

/// How often it is seen to that what is to hold holds.
const TICK: Duration = Duration::from_secs(1);

/// How often it is looked who listens, what the policy names, and who is logged in.
const LOOK: Duration = Duration::from_secs(5);

/// How soon it hears that it is to end.
const HEAR: Duration = Duration::from_millis(100);

/// The running thread.
pub(crate) struct PortsThread {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl PortsThread {
    /// Begins to look after what is to hold.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(desk: Arc<PortsDesk>, intake: Intake, arbiter: SyncSender<Order>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("davy-ports".to_owned())
            .spawn(move || run(&desk, &intake, &arbiter, &heard))
            .context("cannot start the thread that looks after ports")?;
        Ok(Self { thread, stop })
    }

    /// Ends it; what holds is left as it is.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the thread that looks after ports had panicked");
        }
    }
}

fn run(desk: &PortsDesk, intake: &Intake, arbiter: &SyncSender<Order>, stop: &AtomicBool) {
    let mut look = Every::new(LOOK);
    let mut spared = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let next = Instant::now() + TICK;
        if look.due() {
            spared = davy_respond::administrators();
            desk.look();
        }
        if let Some(happened) = desk.tick(&spared, intake) {
            let _ = arbiter.send(Order::Ports(PortsOrder::Happened(happened)));
        }
        while Instant::now() < next && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(HEAR);
        }
    }
}
