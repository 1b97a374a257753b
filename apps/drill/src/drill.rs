use davy_model::{Capability, Evidence, Finding, FindingKind, Signal};
use serde::Serialize;

use crate::stage::Wire;

/// One harmless attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Drill {
    /// `room/what`.
    pub name: &'static str,
    /// Link of the attack it plays: outside, runtime, control or always.
    pub phase: &'static str,
    /// MITRE ATT&CK technique.
    pub technique: &'static str,
    /// What should happen.
    pub expected: &'static str,
    /// The policy section of the protection it tries.
    pub protection: &'static str,
    /// What the host must be able to do, besides running the agent. Where code is to be refused, permission events
    /// do for the hooks, or what ends programs without a file does.
    pub needs: &'static [Capability],
    /// What is played and watched.
    #[serde(skip)]
    pub(crate) plot: Plot,
}

/// What the act does, and what is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plot {
    /// A finding with one of these marks is enough.
    Detect { act: Act, marks: Marks },
    /// Recognised, frozen and ended.
    Kill,
    /// Frozen by order, then running again.
    FreezeUndo,
    /// Its file taken away, then given back as it was.
    QuarantineUndo,
    /// Its line to the pool cut, then allowed again.
    Cut,
    /// Code that nobody vouches for, refused before it begins.
    Refuse(Code),
    /// A file that a scan must find, taken away, then given back as it was.
    Sample,
    /// A signal to the agent, refused or told.
    Tamper,
    /// Its cgroup isolated, then let back.
    Isolate,
    /// Somebody outside looks for open ports, and is told.
    PortScan,
    /// Somebody outside connects to a port that the policy opens to nobody.
    Inbound,
    /// A process connects to what no entry of the policy allows.
    Outbound,
}

/// The code that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// A packaged program with a byte more.
    Altered,
    /// The same, given to the loader, which maps it instead of executing it.
    ByLoader,
    /// A script, given to a packaged shell.
    Script,
    /// A packaged program out of memory.
    Memory,
}

impl Code {
    /// By what it is refused where the kernel takes no programs that judge: what has a path in a mount is asked about, and
    /// what has none is ended.
    pub(crate) const fn needs_instead(self) -> Capability {
        match self {
            Self::Memory => Capability::Tracing,
            _ => Capability::FanotifyPermission,
        }
    }

    /// The act's word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::ByLoader => "by-loader",
            Self::Script => "script",
            Self::Memory => "memory",
        }
    }
}

/// The act's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Computes as RandomX does.
    Compute,
    /// The same, held to a quarter of the CPU from outside.
    Throttled,
    /// Speaks Stratum with the stage's pool.
    Stratum,
    /// Speaks Stratum in TLS, and computes as anything may.
    PoolTls,
    /// Looks up and greets a pool by a name from the list.
    PoolName,
    /// Computes under a kernel thread's name.
    Masquerade,
    /// Computes from memory.
    Memfd,
    /// Computes from a file without a name.
    Deleted,
    /// Arranges to run again, in a home that is nobody's.
    Persistence,
    /// Ends others' miners by name, with a signal that ends nobody.
    Campaign,
}

impl Act {
    /// The other end of a connection, if it needs one.
    pub(crate) const fn pool(self) -> Option<Wire> {
        match self {
            Self::Stratum | Self::PoolName => Some(Wire::Clear),
            Self::PoolTls => Some(Wire::Tls),
            _ => None,
        }
    }
}

/// What a finding must have, one of both, to be the one that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    kind: Option<FindingKind>,
    signal: Option<Signal>,
}

impl Marks {
    const fn of(kind: Option<FindingKind>, signal: Option<Signal>) -> Self {
        Self { kind, signal }
    }

    /// A finding of this kind.
    pub(crate) const fn of_kind(kind: FindingKind) -> Self {
        Self::of(Some(kind), None)
    }

    /// A finding that the process mines.
    pub(crate) const MINING: Self = Self::of(Some(FindingKind::Mining), None);

    /// A finding that code was refused.
    pub(crate) const UNTRUSTED: Self = Self::of(Some(FindingKind::Untrusted), Some(Signal::Trust));

    /// A finding that the process wrote what a scan knows to be bad.
    pub(crate) const MALWARE: Self = Self::of(Some(FindingKind::Malware), Some(Signal::Scan));

    /// A finding that the process reached for the agent.
    pub(crate) const TAMPERING: Self = Self::of(Some(FindingKind::Tampering), None);

    /// A finding that the process talks to a pool.
    pub(crate) const POOL: Self = Self::of(Some(FindingKind::PoolContact), None);

    /// The words of the evidence by which a finding fits; empty when it fits by its kind. `None` when it does not fit.
    pub(crate) fn fit(self, finding: &Finding) -> Option<&str> {
        let evidence = self.evidence(finding).next();
        evidence.map(|e| e.text.as_str()).or((self.kind == Some(finding.kind)).then_some(""))
    }

    /// The evidence by which a finding fits.
    pub(crate) fn evidence(self, finding: &Finding) -> impl Iterator<Item = &Evidence> {
        finding.evidence.iter().filter(move |e| self.signal == Some(e.signal) && e.weight > 0.0)
    }
}

const ROUNDING: &[Capability] = &[Capability::TaskIterator, Capability::FpuState];

const fn detect(
    name: &'static str,
    protection: &'static str,
    technique: &'static str,
    expected: &'static str,
    needs: &'static [Capability],
    (act, marks): (Act, Marks),
) -> Drill {
    let phase = "always";
    Drill { name, phase, technique, expected, protection, needs, plot: Plot::Detect { act, marks } }
}

const fn respond(
    name: &'static str,
    expected: &'static str,
    needs: &'static [Capability],
    plot: Plot,
) -> Drill {
    Drill { name, phase: "always", technique: "T1496.001", expected, protection: "mining", needs, plot }
}

const fn refuse(name: &'static str, technique: &'static str, expected: &'static str, code: Code) -> Drill {
    let needs = &[Capability::TrustLsm];
    Drill {
        name,
        phase: "runtime",
        technique,
        expected,
        protection: "trust",
        needs,
        plot: Plot::Refuse(code),
    }
}

/// Every drill, in the order they are run.
const DRILLS: &[Drill] = &[
    detect(
        "detect/randomx",
        "mining",
        "T1496.001",
        "found mining by its rounding mode, without any pool",
        ROUNDING,
        (Act::Compute, Marks::of(None, Some(Signal::RoundingMode))),
    ),
    detect(
        "detect/throttled",
        "mining",
        "T1496.001",
        "found mining although held to a quarter of the CPU",
        ROUNDING,
        (Act::Throttled, Marks::of(None, Some(Signal::RoundingMode))),
    ),
    detect(
        "detect/stratum",
        "mining",
        "T1071.001",
        "found talking Stratum in the clear",
        &[Capability::CgroupBpf],
        (Act::Stratum, Marks::of(None, Some(Signal::Stratum))),
    ),
    detect(
        "detect/pool-tls",
        "mining",
        "T1573",
        "found by the shape of its traffic in TLS and by computing beside it",
        &[Capability::CgroupBpf],
        (Act::PoolTls, Marks::of(None, Some(Signal::PoolShape))),
    ),
    detect(
        "detect/pool-list",
        "mining",
        "T1071.004",
        "found greeting a pool whose name is on the list",
        &[Capability::CgroupBpf],
        (Act::PoolName, Marks::of(None, Some(Signal::PoolList))),
    ),
    detect(
        "detect/masquerade",
        "masquerade",
        "T1036.005",
        "found under a kernel thread's name that is not its own",
        &[],
        (Act::Masquerade, Marks::of(Some(FindingKind::Masquerade), Some(Signal::Masquerade))),
    ),
    detect(
        "detect/memfd",
        "fileless",
        "T1620",
        "found running from memory",
        &[],
        (Act::Memfd, Marks::of(Some(FindingKind::Fileless), Some(Signal::Fileless))),
    ),
    detect(
        "detect/deleted",
        "fileless",
        "T1070.004",
        "found running from a file without a name",
        &[],
        (Act::Deleted, Marks::of(Some(FindingKind::Fileless), Some(Signal::Fileless))),
    ),
    detect(
        "detect/persistence",
        "persistence",
        "T1543.002",
        "found arranging to run again and to be let in again",
        &[Capability::Fanotify],
        (Act::Persistence, Marks::of(Some(FindingKind::Persistence), None)),
    ),
    detect(
        "campaign/competitors",
        "campaign",
        "T1489",
        "found ending others' miners by name, and keeping no history of it",
        &[],
        (Act::Campaign, Marks::of(Some(FindingKind::Campaign), None)),
    ),
    respond("respond/kill", "recognised, frozen and ended", ROUNDING, Plot::Kill),
    respond("respond/freeze-undo", "frozen, and running again after the undo", ROUNDING, Plot::FreezeUndo),
    respond(
        "respond/quarantine-undo",
        "its file taken away, and given back unchanged after the undo",
        ROUNDING,
        Plot::QuarantineUndo,
    ),
    Drill {
        name: "respond/cut",
        phase: "control",
        technique: "T1071",
        expected: "its line to the pool cut and kept cut, and allowed again after the undo",
        protection: "pools",
        needs: &[Capability::CgroupBpf],
        plot: Plot::Cut,
    },
    Drill {
        name: "respond/isolate",
        phase: "control",
        technique: "T1071",
        expected: "isolated, and nobody reached any more; let back after the undo",
        protection: "mining",
        needs: &[Capability::CgroupBpf],
        plot: Plot::Isolate,
    },
    refuse(
        "trust/altered-program",
        "T1554",
        "a packaged program with a byte more does not run",
        Code::Altered,
    ),
    refuse(
        "trust/unknown-library",
        "T1574.006",
        "code that the loader maps is refused like a program",
        Code::ByLoader,
    ),
    refuse(
        "trust/unknown-script",
        "T1059.004",
        "a script that nobody vouches for does not run",
        Code::Script,
    ),
    refuse("trust/memfd", "T1620", "a program out of memory does not run", Code::Memory),
    Drill {
        name: "scan/sample",
        phase: "runtime",
        technique: "T1105",
        expected: "an inert sample found as it is written, taken away, and given back unchanged after the undo",
        protection: "scan",
        needs: &[Capability::Fanotify],
        plot: Plot::Sample,
    },
    Drill {
        name: "inbound/stranger",
        phase: "outside",
        technique: "T1190",
        expected: "a connection from outside to a port that the policy opens to nobody refused where it is enforced, and told",
        protection: "inbound",
        needs: &[],
        plot: Plot::Inbound,
    },
    Drill {
        name: "outbound/unknown",
        phase: "control",
        technique: "T1071",
        expected: "a connection to what no entry allows refused where it is enforced, and told",
        protection: "outbound",
        needs: &[Capability::CgroupBpf],
        plot: Plot::Outbound,
    },
    Drill {
        name: "scans/ports",
        phase: "outside",
        technique: "T1595.001",
        expected: "found looking for open ports of this host, from outside",
        protection: "scans",
        needs: &[Capability::Tracing],
        plot: Plot::PortScan,
    },
    Drill {
        name: "tampering/signal",
        phase: "always",
        technique: "T1562.001",
        expected: "a signal of root's to the agent refused where the kernel takes LSM programs, and told everywhere",
        protection: "tampering",
        needs: &[Capability::Tracing],
        plot: Plot::Tamper,
    },
];

/// Every drill, in the order they are run.
#[must_use]
pub fn list() -> Vec<Drill> {
    DRILLS.to_vec()
}

/// The drills of these names; a room's name means all of it, and no name at all every drill.
///
/// # Errors
/// A name that is neither, with what there is.
pub(crate) fn chosen(names: &[String]) -> anyhow::Result<Vec<Drill>> {
    for name in names {
        if !DRILLS.iter().any(|d| is_called(d, name)) {
            let known: Vec<_> = DRILLS.iter().map(|d| d.name).collect();
            anyhow::bail!("there is no drill `{name}`; there are: {}", known.join(", "));
        }
    }
    Ok(list().into_iter().filter(|d| names.is_empty() || names.iter().any(|n| is_called(d, n))).collect())
}

fn is_called(drill: &Drill, name: &str) -> bool {
    drill.name == name
        || drill.name.split_once('/').is_some_and(|(room, _)| room == name.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_protection_has_a_drill() {
        // But for services and lateral movement: there is none to hijack that would be harmless, and no network to go through.
        for protection in [
            "mining",
            "pools",
            "trust",
            "scan",
            "scans",
            "inbound",
            "outbound",
            "masquerade",
            "fileless",
            "persistence",
            "campaign",
            "tampering",
        ] {
            assert!(DRILLS.iter().any(|drill| drill.protection == protection), "{protection}");
        }
    }

    #[test]
    fn a_room_means_all_of_it() {
        let names = |n: &[&str]| chosen(&n.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(names(&[]).unwrap().len(), DRILLS.len());
        assert_eq!(names(&["respond"]).unwrap().len(), 5);
        assert_eq!(names(&["respond", "respond/kill", "detect/memfd"]).unwrap().len(), 6);
        assert!(names(&["detect/what"]).unwrap_err().to_string().contains("detect/randomx"));
        assert!(names(&["det"]).is_err());
    }
}
