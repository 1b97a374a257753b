//! What is known of scans of ports. Shared by the thread that watches and the sockets that ask.

use std::sync::Mutex;

use davy_kernel::PortWatchLosses;
use davy_model::{Mode, ProtectionStatus, ScanSource};
use davy_net::scans::Scans;

use super::PROTECTION;
use crate::shared::lock;

/// What is known.
#[derive(Default)]
pub(crate) struct PortScanDesk {
    /// The engine, while something watches.
    pub(super) scans: Mutex<Option<Scans>>,
    /// What the kernel could not tell.
    pub(super) losses: Mutex<PortWatchLosses>,
    /// Why nothing watches although the policy wants it.
    pub(super) fault: Mutex<Option<String>>,
}

impl PortScanDesk {
    /// Against whom something speaks, the most first.
    pub(crate) fn watched(&self, limit: usize) -> Vec<ScanSource> {
        lock(&self.scans).as_ref().map(|scans| scans.watched(limit)).unwrap_or_default()
    }

    /// Says in `davy status` what the protection knows, or why it does not stand. `nobody_banned` tells why nobody can be banned on this
    /// host, if so, and is asked where the policy enforces.
    pub(crate) fn complete(
        &self,
        protections: &mut [ProtectionStatus],
        nobody_banned: impl FnOnce() -> Option<String>,
    ) {
        let ours = |p: &&mut ProtectionStatus| p.name == PROTECTION && p.mode != Mode::Off;
        let Some(status) = protections.iter_mut().find(ours) else { return };
        if let Some(fault) = lock(&self.fault).clone() {
            (status.mode, status.tier, status.proven) = (Mode::Off, None, None);
            status.note = format!("nothing here can do it: {fault}");
        } else if let Some(scans) = lock(&self.scans).as_ref() {
            let share = scans.base_rate() * 100.0;
            status.note = format!("{}; {share:.0} of 100 visits to this host succeed", status.note);
        }
        if status.mode == Mode::Enforce
            && let Some(why) = nobody_banned()
        {
            (status.mode, status.proven) = (Mode::Observe, Some(false));
            status.note =
                format!("{}; the policy says enforce, and nobody can be banned: {why}", status.note);
        }
    }

    /// Losses by kind.
    pub(crate) fn lost(&self) -> Vec<(&'static str, u64)> {
        let losses = *lock(&self.losses);
        let (forgotten, waiting) = lock(&self.scans).as_ref().map(Scans::lost).unwrap_or_default();
        let all = [
            ("first packets to ports, too many at once", losses.throttled),
            ("first packets to ports, no room on the way", losses.full),
            ("sources that may scan, the table was full", forgotten),
            ("scans, more than a hundred in this hour", waiting),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use davy_model::Tier;

    use super::*;

    #[test]
    fn where_nobody_can_be_banned_scans_are_only_told() {
        let completed = |mode, why: Option<&str>| {
            let mut all = [ProtectionStatus {
                name: PROTECTION.to_owned(),
                mode,
                tier: Some(Tier::Signal),
                proven: Some(true),
                note: "the first packets".to_owned(),
            }];
            PortScanDesk::default().complete(&mut all, || why.map(str::to_owned));
            let [status] = all;
            status
        };
        let enforced = completed(Mode::Enforce, None);
        assert_eq!((enforced.mode, enforced.proven), (Mode::Enforce, Some(true)));
        let told = completed(Mode::Enforce, Some("this kernel has no nftables"));
        assert_eq!((told.mode, told.proven), (Mode::Observe, Some(false)));
        assert!(told.note.contains("nobody can be banned: this kernel has no nftables"), "{}", told.note);
        let observed = completed(Mode::Observe, Some("this kernel has no nftables"));
        assert_eq!((observed.mode, observed.proven), (Mode::Observe, Some(true)));
    }
}
