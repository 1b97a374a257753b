//! Scans by the agent: what is executed, what is written, and by the clock what lies in folders. It opens files and never reads
//! them; the `scan` worker does, without privileges. What is found becomes an event, and the detector's.

mod budget;
mod desk;
mod look;
mod open;
mod queue;
mod recipe;
mod sight;
mod sweeping;
mod thread;

use std::sync::Arc;

use anyhow::Result;

use crate::Paths;
use crate::shared::Intake;

pub(crate) use desk::ScanDesk;
pub(crate) use sight::ScanSights;
pub(crate) use thread::ScanThread;

/// Everything about scans in one agent.
pub(crate) struct Scan {
    /// What is known, for `davy status`.
    pub(crate) desk: Arc<ScanDesk>,
    /// The engine's end.
    pub(crate) sights: ScanSights,
    /// What looks.
    pub(crate) thread: ScanThread,
}

/// Starts the thread that looks. Rules lie in the configuration folder of `paths`, and what was clean is remembered in its state
/// folder.
pub(crate) fn start(paths: &Paths, intake: &Intake) -> Result<Scan> {
    let desk = Arc::new(ScanDesk::new());
    let thread = ScanThread::start(paths, Arc::clone(&desk), intake.clone())?;
    Ok(Scan { sights: ScanSights(Arc::clone(&desk)), desk, thread })
}
