//! The signals that end the agent, or have it read its policy again.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::canary::Poke;
use crate::outbound::OutboundDesk;
use crate::reload::reload;
use crate::shared::Shared;

/// The signals that end the agent or have it read its policy again, and the one that shall do neither.
pub(crate) struct Stops {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
}

impl Stops {
    /// Listens from the very start, so that a Ctrl-C during a slow start is not lost.
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
        })
    }

    /// Waits for one that ends it.
    pub(crate) async fn wait(&mut self, shared: &Shared, canary: &Poke, outbound: &OutboundDesk) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                // It would leave a core behind with all that is known here, and nothing put in order. Drills send it.
                _ = self.quit.recv() => tracing::warn!("SIGQUIT does not end the agent: davy stop, SIGTERM and Ctrl-C do"),
                _ = self.hang_up.recv() => match reload(shared, canary, outbound) {
                    Ok(sentence) => tracing::info!("{sentence}"),
                    Err(faults) => tracing::error!("the new policy is refused, the running one stays:\n{faults}"),
                },
            }
        }
    }
}
