use davy_model::{CodeKind, Mode};

use crate::abi;

/// Every kind of code, in the order of `enum code_kind`.
pub(crate) const KINDS: [CodeKind; 9] = [
    CodeKind::Exec,
    CodeKind::Library,
    CodeKind::Script,
    CodeKind::Memory,
    CodeKind::Nameless,
    CodeKind::Module,
    CodeKind::Bpf,
    CodeKind::Trace,
    CodeKind::Service,
];

/// Whom modes bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrustScope {
    /// Every process that no cgroup's own modes bind. The first process is only ever observed.
    Host,
    /// The cgroup with this id (see [`crate::cgroup_id`]) and all below it that have no modes of their own.
    Cgroup(u64),
}

impl TrustScope {
    pub(super) fn key(self) -> u64 {
        match self {
            Self::Host => 0,
            Self::Cgroup(id) => id,
        }
    }
}

/// One mode for each kind of code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrustModes([Option<Mode>; KINDS.len()]);

impl TrustModes {
    /// The same mode for every kind.
    #[must_use]
    pub fn all(mode: Mode) -> Self {
        Self([Some(mode); KINDS.len()])
    }

    /// With another mode for one kind. A kind that no mode was given for is off.
    #[must_use]
    pub fn with(mut self, kind: CodeKind, mode: Mode) -> Self {
        if let Some(index) = KINDS.iter().position(|known| *known == kind) {
            self.0[index] = Some(mode);
        }
        self
    }

    /// Whether any kind is enforced.
    #[must_use]
    pub fn enforce(&self) -> bool {
        self.0.contains(&Some(Mode::Enforce))
    }

    /// As `struct trust_scope` and `enum trust_mode`.
    pub(super) fn record(&self) -> abi::TrustScope {
        let mut modes = [0; 12];
        for (place, mode) in modes.iter_mut().zip(self.0) {
            *place = match mode {
                None | Some(Mode::Off) => 0,
                Some(Mode::Observe) => 1,
                Some(Mode::Enforce) => 2,
            };
        }
        abi::TrustScope { modes, exempt: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_mode() {
        let modes = TrustModes::all(Mode::Observe).with(CodeKind::Trace, Mode::Enforce);
        assert_eq!(modes.record().modes, [1, 1, 1, 1, 1, 1, 1, 2, 1, 0, 0, 0]);
        assert!(modes.enforce() && !TrustModes::default().enforce());
        assert_eq!(TrustModes::default().with(CodeKind::Exec, Mode::Enforce).record().modes[..2], [2, 0]);
    }
}
