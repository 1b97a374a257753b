//! Who looks for open ports: a thread that reads what the kernel's filter tells and asks the engine of guards/net, and the engine
//! thread's end, which makes findings and incidents of it.

mod desk;
mod tell;
mod thread;

use std::sync::Arc;

use anyhow::Result;
use davy_kernel::PortWatchStarter;

use crate::shared::Intake;

pub(crate) use desk::PortScanDesk;
pub(crate) use tell::PortScanTeller;
pub(crate) use thread::PortScanThread;

/// The protection's name in the policy.
const PROTECTION: &str = "scans";

/// Everything about scans of ports in one agent.
pub(crate) struct PortScans {
    /// What is known, for the sockets.
    pub(crate) desk: Arc<PortScanDesk>,
    /// What watches.
    pub(crate) thread: PortScanThread,
}

/// Starts the thread that watches when the policy wants it; `starter` is missing where the kernel's sensors do not run.
pub(crate) fn start(starter: Option<PortWatchStarter>, intake: &Intake) -> Result<PortScans> {
    let desk = Arc::new(PortScanDesk::default());
    let thread = PortScanThread::start(starter, Arc::clone(&desk), intake.clone())?;
    Ok(PortScans { desk, thread })
}
