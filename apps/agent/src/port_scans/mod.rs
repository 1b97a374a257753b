//! Who looks for open ports: a thread that reads what the kernel's filter tells and asks the engine of guards/net, and the engine
//! thread's end, which makes findings and incidents of it.

mod desk;
mod tell;
mod thread;

use std::sync::Arc;

use anyhow::Result;
use davy_kernel::PortWatchStarter;
use davy_model::{Action, FindingId, Place, Proposal};
use davy_net::scans::{PortScan, Scanner};

use crate::bans;
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

/// What could be done about a scan that goes on: who is proven to have sent it himself can be banned, for as long as the policy says.
/// Of everybody else the address may be forged, and then it would be somebody else who is shut out.
pub(crate) fn proposals(scan: &PortScan, finding: FindingId) -> Vec<Proposal> {
    let sender = match &scan.scanner {
        Scanner::Address(address) => Some(*address),
        Scanner::OneOf { real, .. } => *real,
        Scanner::Network { .. } | Scanner::Many { .. } => None,
    };
    let proven = sender.filter(|_| scan.proven && scan.running && scan.place != Place::Host);
    let ban =
        |address| Action::Ban { who: bans::whole(address), ports: Vec::new(), reject: false, seconds: 0 };
    proven.map(|address| Proposal { finding, action: ban(address) }).into_iter().collect()
}

/// Starts the thread that watches when the policy wants it; `starter` is missing where the kernel's sensors do not run.
pub(crate) fn start(starter: Option<PortWatchStarter>, intake: &Intake) -> Result<PortScans> {
    let desk = Arc::new(PortScanDesk::default());
    let thread = PortScanThread::start(starter, Arc::clone(&desk), intake.clone())?;
    Ok(PortScans { desk, thread })
}
