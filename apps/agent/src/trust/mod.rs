//! Which code may run: what is known of it is kept here, told to the kernel where the kernel decides, and asked for by the
//! sockets.

mod desk;
mod gate;
mod learning;
mod sight;
mod thread;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use davy_kernel::{TrustConfig, TrustGate};

pub(crate) use desk::TrustDesk;
pub(crate) use sight::Sights;
pub(crate) use thread::TrustThread;

use crate::eyes::Eyes;
use crate::shared::{Intake, lock};
use crate::{Paths, clock};
use gate::{Gate, KernelGate};

/// Everything about trust in one agent.
pub(crate) struct Trust {
    /// What is known, and the questions it answers.
    pub(crate) desk: Arc<TrustDesk>,
    /// The engine's end.
    pub(crate) sights: Sights,
    /// What learns and looks.
    pub(crate) thread: TrustThread,
    /// Where the kernel decides, if it does.
    pub(crate) gate: Option<Arc<TrustGate>>,
}

/// Begins to learn and to look. `cgroup2` and `pin` are where cgroups and what outlives the agent lie; without the hooks the
/// kernel decides nothing, and what ran is looked at afterwards.
pub(crate) fn open(
    paths: &Paths,
    eyes: &mut Eyes,
    intake: &Intake,
    cgroup2: Option<PathBuf>,
    pin: Option<PathBuf>,
    hooks: bool,
) -> Result<Trust> {
    let mut gate = None;
    if let (true, Some(cgroup2)) = (hooks, cgroup2.as_ref()) {
        let exempt = davy_kernel::cgroup_id(&crate::own::own_cgroup(cgroup2)).ok();
        let config =
            TrustConfig { pin: pin.map(|folder| folder.join("trust")), exempt, ..TrustConfig::default() };
        match eyes.trust_gate(config) {
            Ok(started) => gate = Some(Arc::new(started)),
            Err(error) => eyes.notes.push(("trust", format!("the kernel does not judge code: {error}"))),
        }
    }
    let policy = lock(&intake.shared().rulebook).policy();
    let mark_secs = u32::try_from(policy.trust.writers_for.as_secs()).unwrap_or(u32::MAX);
    let told = gate
        .clone()
        .zip(cgroup2)
        .map(|(gate, cgroup2)| Box::new(KernelGate::new(gate, cgroup2, mark_secs)) as Box<dyn Gate>);
    let kernel = told.is_some();
    let desk = Arc::new(TrustDesk::new(
        paths.state.join("trust.json"),
        paths.config.join("trust"),
        told,
        clock::now(),
    ));
    let (sights, thread) = thread::start(Arc::clone(&desk), intake.clone(), kernel)?;
    Ok(Trust { desk, sights, thread, gate })
}
