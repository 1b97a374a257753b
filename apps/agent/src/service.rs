//! Tells the service manager how the agent is (sd_notify(3)); without one, nothing is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::shared::Shared;

/// Says that the agent watches.
pub(crate) fn ready() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// Says that the agent is going.
pub(crate) fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// Keeps the service manager's watchdog fed for as long as the engine turns. An engine that hangs is not covered for: the
/// service manager then restarts the agent.
pub(crate) async fn feed_watchdog(shared: Arc<Shared>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let period = (patience / 3).max(Duration::from_millis(100));
    let mut seen = 0;
    loop {
        tokio::time::sleep(period).await;
        let turns = shared.counters.turns.load(Ordering::Relaxed);
        if turns != seen {
            seen = turns;
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    }
}
