//! What this host can do, tried at start and again and again.

use std::sync::Arc;
use std::time::Duration;

use davy_model::{Capability, Probe};

use crate::eyes::Eyes;
use crate::shared::{Shared, lock};

/// How often it is looked whether the policy wants the probes repeated at all.
const LOOK: Duration = Duration::from_secs(60);

/// Performs the probes' canary acts again and again, for ever: what worked at start may have been taken away since.
pub(crate) async fn prove(shared: &Arc<Shared>, context: &davy_kernel::ProbeContext) {
    loop {
        let policy = lock(&shared.rulebook).policy();
        let Some(every) = policy.drill.every else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        tokio::time::sleep(every).await;
        let again = context.clone();
        let Ok(mut probes) = tokio::task::spawn_blocking(move || probe(&again)).await else { continue };
        let mut current = lock(&shared.probes);
        // The file watcher is not probed apart: that it runs is its proof, and it was opened once.
        probes.extend(current.iter().filter(|p| p.capability == Capability::Fanotify).cloned());
        // Whether the kernel judges code is settled at the start, whatever it could do.
        if let Some(asleep) = current.iter().find(|p| p.capability == Capability::TrustLsm && !p.works)
            && let Some(probe) = probes.iter_mut().find(|p| p.capability == Capability::TrustLsm)
        {
            *probe = asleep.clone();
        }
        let before = std::mem::replace(&mut *current, probes.clone());
        drop(current);
        for lost in probes
            .iter()
            .filter(|p| !p.works && before.iter().any(|b| b.capability == p.capability && b.works))
        {
            tracing::error!("{:?} worked before and does not now: {}", lost.capability, lost.reason);
        }
    }
}

/// What the kernel room and the process room can do here.
pub(crate) fn probe(context: &davy_kernel::ProbeContext) -> Vec<Probe> {
    let mut probes = davy_kernel::probe(context);
    let mut add = |capability, works: bool, yes: &str, no: String| {
        if !probes.iter().any(|p: &Probe| p.capability == capability) {
            probes.push(Probe { capability, works, reason: if works { yes.to_owned() } else { no } });
        }
    };
    let root = rustix::process::geteuid().is_root();
    add(Capability::Root, root, "running as root", "not running as root: start it with sudo".to_owned());
    let asks = if root {
        davy_files::permission::prove(crate::trust::gate_keeper)
    } else {
        Err("not running as root".to_owned())
    };
    let why_not = asks.as_ref().err().cloned().unwrap_or_default();
    let asked = "a program on a mount of its own was refused";
    add(Capability::FanotifyPermission, asks.is_ok(), asked, why_not);
    let sockets = davy_proc::sockets::probe_list();
    let refused = sockets.as_ref().err().map(ToString::to_string).unwrap_or_default();
    add(Capability::SockDiag, sockets.is_ok(), "sockets are listed", refused);
    probes
}

pub(crate) fn works(probes: &[Probe], capability: Capability) -> bool {
    probes.iter().any(|p| p.capability == capability && p.works)
}

pub(crate) fn file_systems(eyes: &Eyes) -> Probe {
    let works = eyes.sees_file_systems();
    let reason = if works {
        "file systems are marked"
    } else {
        "file systems cannot be marked; that needs CAP_SYS_ADMIN"
    };
    Probe { capability: Capability::Fanotify, works, reason: reason.to_owned() }
}
