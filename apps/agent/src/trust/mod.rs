//! Which code may run: what is known of it is kept here, told to the kernel where the kernel decides, and asked for by the
//! sockets.

mod approvals;
mod asked;
mod desk;
mod gate;
mod learning;
mod notice;
mod sight;
mod thread;
mod told;
mod verity;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use davy_kernel::{TrustConfig, TrustGate};
use davy_model::{Capability, Mode, Probe};

pub(crate) use asked::gate_keeper;
pub(crate) use desk::TrustDesk;
pub(crate) use sight::Sights;
pub(crate) use thread::TrustThread;

use crate::eyes::Eyes;
use crate::services::ServiceDesk;
use crate::shared::{Intake, lock};
use crate::{Paths, clock};
use asked::AskedGate;
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

/// Why the kernel does not judge although it could.
const ASLEEP: &str = "the kernel could judge code; it does from the next start on when [trust], [fileless] or [services] enforces, or [trust] has `kernel = true`";

/// Begins to learn and to look. `cgroup2` and `pin` are where cgroups and what outlives the agent lie. The kernel judges where
/// the probes say that it can and the policy wants it: merely attached, the programs cost every opening of a file something. Where
/// it does not, the probes are told why, and the agent answers itself if the kernel asks it.
pub(crate) fn open(
    paths: &Paths,
    eyes: &Eyes,
    intake: &Intake,
    services: &Arc<ServiceDesk>,
    cgroup2: Option<PathBuf>,
    pin: Option<PathBuf>,
    probes: &mut [Probe],
) -> Result<Trust> {
    let policy = lock(&intake.shared().rulebook).policy();
    let pin = pin.map(|folder| folder.join("trust"));
    let wanted = policy.trust.mode == Mode::Enforce
        || policy.fileless.mode == Mode::Enforce
        || policy.trust.kernel
        || policy.services.enforces()
        // What an agent before this one left is taken over, if only to be let go.
        || pin.as_ref().is_some_and(|folder| folder.exists());
    let mut gate = None;
    if let Some(probe) = probes.iter_mut().find(|p| p.capability == Capability::TrustLsm && p.works) {
        match start_gate(eyes, cgroup2.as_deref(), pin, wanted) {
            Ok(started) => gate = Some(Arc::new(started)),
            Err(why) => (probe.works, probe.reason) = (false, why),
        }
    }
    let mark_secs = u32::try_from(policy.trust.writers_for.as_secs()).unwrap_or(u32::MAX);
    let asks = probes.iter().any(|p| p.capability == Capability::FanotifyPermission && p.works);
    let mut judge = None;
    let told = match (gate.clone(), cgroup2) {
        (Some(gate), Some(cgroup2)) => {
            Some(Box::new(KernelGate::new(gate, cgroup2, mark_secs)) as Box<dyn Gate>)
        }
        (_, cgroup2) => {
            // What ends programs without a file costs every exec a look, so it is attached where it may be needed.
            let tracing = probes.iter().any(|p| p.capability == Capability::Tracing && p.works);
            let nameless = tracing.then(|| eyes.nameless()).and_then(|started| match started {
                Ok(nameless) => Some(nameless),
                Err(error) => {
                    tracing::warn!("programs without a file are not ended by the kernel: {error}");
                    None
                }
            });
            (asks || nameless.is_some()).then(|| {
                let own = davy_proc::cgroup(std::process::id()).unwrap_or_default();
                let asked = AskedGate::new(intake.clone(), own, cgroup2, asks, nameless);
                judge = Some(asked.judge());
                Box::new(asked) as Box<dyn Gate>
            })
        }
    };
    let desk = Arc::new(TrustDesk::new(
        paths.state.join("trust.json"),
        paths.config.join("trust"),
        told,
        clock::now(),
    ));
    if let Some(judge) = judge {
        judge.listen_to(&desk);
    }
    let (sights, thread) = thread::start(Arc::clone(&desk), Arc::clone(services), intake.clone())?;
    Ok(Trust { desk, sights, thread, gate })
}

fn start_gate(
    eyes: &Eyes,
    cgroup2: Option<&Path>,
    pin: Option<PathBuf>,
    wanted: bool,
) -> Result<TrustGate, String> {
    if !wanted {
        return Err(ASLEEP.to_owned());
    }
    let cgroup2 = cgroup2.ok_or("no cgroup v2 is mounted here, so that code could be judged in no scope")?;
    let own = crate::own::own_cgroup(cgroup2);
    if own == cgroup2 {
        let why = "the agent runs in the root cgroup, and its own is never judged; start it as a service";
        return Err(why.to_owned());
    }
    let exempt = Some(davy_kernel::cgroup_id(&own).map_err(|error| error.to_string())?);
    eyes.trust_gate(TrustConfig { pin, exempt, ..TrustConfig::default() })
}
