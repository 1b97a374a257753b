//! The thread that looks after closed ports.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::PortsDesk;
use crate::arbiter::{Order, PortsOrder};
use crate::shared::Intake;

/// How often it is seen to that what is to hold holds.
const TICK: Duration = Duration::from_secs(1);

/// How often it is looked who listens, what the policy names, and who is logged in.
const LOOK: Duration = Duration::from_secs(5);

/// How often it is looked whether there is anything to look after, while there is not, and how often then at this host's own
/// addresses, by which connections are told apart that are counted whatever the policy says.
const REST: Duration = Duration::from_secs(5);
const LOOK_AT_REST: Duration = Duration::from_secs(60);

/// The running thread.
pub(crate) struct PortsThread {
    thread: JoinHandle<()>,
    stop: Sender<()>,
}

impl PortsThread {
    /// Begins to look after what is to hold.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(desk: Arc<PortsDesk>, intake: Intake, arbiter: SyncSender<Order>) -> Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("davy-inbound".to_owned())
            .spawn(move || run(&desk, &intake, &arbiter, &stopped))
            .context("cannot start the thread that looks after ports")?;
        Ok(Self { thread, stop })
    }

    /// Ends it; what holds is left as it is.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread that looks after ports had panicked");
        }
    }
}

fn run(desk: &PortsDesk, intake: &Intake, arbiter: &SyncSender<Order>, stop: &Receiver<()>) {
    let mut spared = Vec::new();
    let mut rested = true;
    let mut looked: Option<Instant> = None;
    loop {
        let rests = desk.is_idle();
        let (look, tick) = if rests { (LOOK_AT_REST, REST) } else { (LOOK, TICK) };
        if rests != rested || looked.is_none_or(|then| then.elapsed() >= look) {
            spared = if rests { Vec::new() } else { davy_respond::administrators() };
            desk.look();
            (rested, looked) = (rests, Some(Instant::now()));
        }
        if !rests && let Some(happened) = desk.tick(&spared, intake) {
            let _ = arbiter.send(Order::Ports(PortsOrder::Happened(happened)));
        }
        match stop.recv_timeout(tick) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
