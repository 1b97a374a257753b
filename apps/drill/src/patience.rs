//! How long a drill waits, and whether someone wants it to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The bound on one drill's waiting. While it lives, Ctrl-C ends the drill instead of the process, so that it is
/// cleaned up; a second Ctrl-C ends the process.
#[derive(Debug)]
pub(crate) struct Patience {
    /// How long one drill waits for the agent.
    pub(crate) length: Duration,
    interrupted: Arc<AtomicBool>,
    handlers: Vec<SigId>,
}

impl Patience {
    /// Waits for so long, and listens for signals that ask to stop.
    pub(crate) fn of(length: Duration) -> anyhow::Result<Self> {
        let mut patience = Self { length, interrupted: Arc::default(), handlers: Vec::new() };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let flag = || Arc::clone(&patience.interrupted);
            // In this order: the first signal finds the flag unset, sets it, and goes on.
            let handlers = [
                signal_hook::flag::register_conditional_default(signal, flag()),
                signal_hook::flag::register(signal, flag()),
            ];
            for handler in handlers {
                patience.handlers.push(handler.context("listen for Ctrl-C")?);
            }
        }
        Ok(patience)
    }

    /// # Errors
    /// When someone asked to stop.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.interrupted() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Whether someone asked to stop.
    pub(crate) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
        // The library keeps its own handler, and with nothing registered a signal would be lost; now it ends the process.
        self.interrupted.store(true, Ordering::Relaxed);
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let _ = signal_hook::flag::register_conditional_default(signal, Arc::clone(&self.interrupted));
        }
    }
}
