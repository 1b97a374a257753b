//! Which protections stand on this host, by which tier, and why not by a higher one.

use davy_model::{Capability, FindingKind, Mode, Probe, ProtectionStatus, Tier};
use davy_policy::{Policy, ServiceMode};
use davy_wire::Tally;

/// What went wrong at start, by the protection it is about.
pub(crate) type Notes = Vec<(&'static str, String)>;

/// One protection: what it needs for each tier, best first, and what that tier means for it in words.
struct Protection {
    name: &'static str,
    kind: FindingKind,
    tiers: &'static [(Tier, &'static [Capability], &'static str)],
}

use Capability::{
    BpfFs, Btf, CgroupBpf, Fanotify, FanotifyPermission, FpuState, LsmBpf, Root, SockDestroy, SockDiag,
    TaskIterator, Tracing, TrustLsm,
};

/// The protections of this version.
const PROTECTIONS: &[Protection] = &[
    Protection {
        name: "mining",
        kind: FindingKind::Mining,
        tiers: &[
            (
                Tier::Permission,
                &[Tracing, TaskIterator, FpuState, CgroupBpf],
                "processor state, computing, memory, the words and the shape of traffic; pools cut by cgroup programs",
            ),
            (
                Tier::Signal,
                &[Tracing, TaskIterator],
                "computing and memory of every thread; no look into traffic",
            ),
            (Tier::Poll, &[], "computing, memory, names and sockets as /proc and sock_diag show them"),
        ],
    },
    Protection {
        name: "pools",
        kind: FindingKind::PoolContact,
        tiers: &[
            (
                Tier::Permission,
                &[Tracing, CgroupBpf],
                "connections to pools by list, by their first bytes and by their shape; cut by cgroup programs and by ending sockets",
            ),
            (Tier::Poll, &[], "connections to addresses on a list that live through a poll; nothing is cut"),
        ],
    },
    Protection {
        name: "trust",
        kind: FindingKind::Untrusted,
        tiers: &[
            (
                Tier::Lsm,
                &[Tracing, TrustLsm],
                "programs, libraries, scripts and modules, decided in the kernel from digests",
            ),
            (
                Tier::Permission,
                &[Tracing, FanotifyPermission],
                "programs, libraries and scripts: in scopes that enforce the kernel asks before they run, elsewhere programs are \
                 looked at afterwards; neither modules nor memory",
            ),
            (Tier::Signal, &[Tracing], "every program that ran is looked at afterwards; nothing is refused"),
            (Tier::Poll, &[], "programs that live through a poll; nothing is refused"),
        ],
    },
    Protection {
        name: "services",
        kind: FindingKind::Service,
        tiers: &[
            (
                Tier::Lsm,
                &[Tracing, TrustLsm],
                "what services have no use for, decided in the kernel by content where no command excuses it; else told, and ended afterwards",
            ),
            (
                Tier::Signal,
                &[Tracing],
                "everything that comes from a service is looked at as it begins, and ended afterwards",
            ),
            (Tier::Poll, &[], "programs from services that live through a poll"),
        ],
    },
    Protection {
        name: "outbound",
        kind: FindingKind::Outbound,
        tiers: &[(
            Tier::Permission,
            &[Tracing, CgroupBpf],
            "every connection, datagram and raw socket, decided in the kernel by cgroup programs; not frames of one's own making",
        )],
    },
    Protection {
        name: "lateral",
        kind: FindingKind::Lateral,
        tiers: &[
            (
                Tier::Signal,
                &[Tracing],
                "first connections to inside addresses at services that lead from host to host; `[outbound]` is what stops them",
            ),
            (Tier::Poll, &[], "the same of connections that live through a poll"),
        ],
    },
    Protection {
        name: "scan",
        kind: FindingKind::Malware,
        tiers: &[
            (
                Tier::Signal,
                &[Tracing, Root, Fanotify],
                "programs are scanned when they have begun to run, programs and web files when they were written",
            ),
            (
                Tier::Poll,
                &[],
                "programs that live through a poll, and what is written in places that this user may read",
            ),
        ],
    },
    Protection {
        name: "scans",
        kind: FindingKind::Scan,
        tiers: &[(
            Tier::Signal,
            &[Tracing, Root],
            "the first packets from each address to each port of this host, by a filter in the kernel that keeps none",
        )],
    },
    Protection {
        name: "masquerade",
        kind: FindingKind::Masquerade,
        tiers: &[
            (Tier::Signal, &[Tracing], "every exec and rename"),
            (Tier::Poll, &[], "processes that live through a poll"),
        ],
    },
    Protection {
        name: "fileless",
        kind: FindingKind::Fileless,
        tiers: &[
            (
                Tier::Lsm,
                &[Tracing, LsmBpf, TrustLsm],
                "every exec, every mapping, and memory made executable after it was written; refused where the policy enforces",
            ),
            (Tier::Lsm, &[Tracing, LsmBpf], "every exec, and memory made executable after it was written"),
            (
                Tier::Signal,
                &[Tracing],
                "every exec of memory or of a deleted file; ended before its first instruction where the policy enforces",
            ),
            (Tier::Poll, &[], "processes that live through a poll"),
        ],
    },
    Protection {
        name: "persistence",
        kind: FindingKind::Persistence,
        tiers: &[
            (
                Tier::Permission,
                &[Root, Fanotify],
                "every write to a place that runs things later, by fanotify",
            ),
            (Tier::Poll, &[], "places that this user may read, by inotify"),
        ],
    },
    Protection {
        name: "campaign",
        kind: FindingKind::Campaign,
        tiers: &[
            (Tier::Signal, &[Tracing], "every command line"),
            (Tier::Poll, &[], "command lines that live through a poll"),
        ],
    },
    Protection {
        name: "tampering",
        kind: FindingKind::Tampering,
        tiers: &[
            (
                Tier::Lsm,
                &[Tracing, LsmBpf],
                "the agent cannot be ended, traced or changed from outside its cgroup",
            ),
            (Tier::Signal, &[Tracing], "signals to the agent are reported, not refused"),
        ],
    },
];

/// The sections of a policy that enforce, in its scope or everywhere.
pub(crate) fn enforcing(policy: &Policy) -> impl Iterator<Item = &'static str> {
    PROTECTIONS.iter().filter(|p| policy.mode_of(p.kind) == Mode::Enforce).map(|p| p.name)
}

/// All protections as they stand. `canary` is what the last one came to, if there was one.
pub(crate) fn all(
    policy: &Policy,
    probes: &[Probe],
    notes: &Notes,
    canary: Option<&Tally>,
) -> Vec<ProtectionStatus> {
    let works = |c: &Capability| probes.iter().any(|p| p.capability == *c && p.works);
    PROTECTIONS
        .iter()
        .map(|protection| {
            let mut mode = policy.mode_of(protection.kind);
            // Seeing more is no reason to call that the tier which refuses less.
            let only_sees = |needs: &[Capability]| {
                protection.kind == FindingKind::Fileless
                    && needs.contains(&LsmBpf)
                    && !needs.contains(&TrustLsm)
            };
            let held = protection.tiers.iter().find(|(_, needs, _)| {
                needs.iter().all(works) && !(mode == Mode::Enforce && only_sees(needs))
            });
            let missing = protection
                .tiers
                .iter()
                .take_while(|(tier, ..)| held.is_none_or(|(held, ..)| tier != held))
                .flat_map(|(_, needs, _)| needs.iter())
                .find(|c| !works(c));
            let mut note = held.map_or("nothing here can do it".to_owned(), |(_, _, how)| (*how).to_owned());
            if let Some(capability) = missing {
                let reason = probes.iter().find(|p| p.capability == *capability).map(|p| p.reason.as_str());
                note.push_str("; not higher: ");
                note.push_str(reason.unwrap_or(without(*capability)));
            }
            for more in notes.iter().filter(|(name, _)| *name == protection.name).map(|(_, more)| more) {
                note.push_str("; ");
                note.push_str(more);
            }
            let refuses_from = match protection.kind {
                FindingKind::Untrusted | FindingKind::PoolContact => Tier::Permission,
                FindingKind::Fileless => Tier::Signal,
                _ => Tier::Poll,
            };
            if mode == Mode::Enforce && held.is_some_and(|(tier, ..)| *tier < refuses_from) {
                let what =
                    if protection.kind == FindingKind::PoolContact { "cut flows" } else { "refuse code" };
                note.push_str(&format!("; the policy says enforce, and nothing here can {what}"));
                mode = Mode::Observe;
            }
            if protection.kind == FindingKind::Service && policy.services.mode == ServiceMode::Learn {
                note.push_str("; learning, so that nothing is told: davy trust services");
            }
            let proven = match (held, mode) {
                (None, _) | (_, Mode::Off) => None,
                // Whoever is to act is proven by an act.
                (_, Mode::Enforce) => canary.map(Tally::all_held),
                // The probes end in a canary act for each capability, so what holds has been seen to work.
                (Some((_, needs, _)), Mode::Observe) => (!needs.is_empty()).then_some(true),
            };
            ProtectionStatus {
                name: protection.name.to_owned(),
                mode: if held.is_none() { Mode::Off } else { mode },
                tier: held.map(|(tier, ..)| *tier),
                proven,
                note,
            }
        })
        .collect()
}

const fn without(capability: Capability) -> &'static str {
    match capability {
        Root => "not running as root",
        Btf => "the kernel has no type information (CONFIG_DEBUG_INFO_BTF)",
        Tracing => "tracing programs do not load",
        TaskIterator => "task iterators do not load",
        FpuState => "the saved processor state is not where it is looked for",
        CgroupBpf => "cgroup socket programs do not load",
        LsmBpf => "the kernel refuses LSM programs",
        TrustLsm => "the kernel refuses the LSM programs that judge code",
        FanotifyPermission => "the kernel asks nobody before code runs (CONFIG_FANOTIFY_ACCESS_PERMISSIONS)",
        Fanotify => "fanotify marks on file systems are refused",
        SockDiag => "sock_diag is refused",
        SockDestroy => "the kernel cannot end sockets (CONFIG_INET_DIAG_DESTROY)",
        Capability::CgroupFreezer => "there is no cgroup v2 freezer",
        BpfFs => "no BPF file system is mounted",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn probe(capability: Capability, works: bool) -> Probe {
        Probe { capability, works, reason: format!("{capability:?} tried") }
    }

    #[test]
    fn without_anything_what_can_be_polled_is_polled_and_says_what_is_missing() {
        let all = all(&Policy::default(), &[probe(Tracing, false)], &Vec::new(), None);
        let mining = all.iter().find(|p| p.name == "mining").unwrap();
        assert_eq!(mining.tier, Some(Tier::Poll));
        assert!(mining.note.contains("Tracing tried"), "{}", mining.note);
        assert_eq!(mining.proven, None);
        let tampering = all.iter().find(|p| p.name == "tampering").unwrap();
        assert_eq!((tampering.tier, tampering.mode), (None, Mode::Off));
    }

    #[test]
    fn where_flows_cannot_be_cut_pools_are_only_told() {
        let policy = Policy::parse("p.toml", "[pools]\nmode = \"enforce\"\n").unwrap();
        let pools = |cgroup_bpf| {
            let probes = [probe(Tracing, true), probe(CgroupBpf, cgroup_bpf)];
            all(&policy, &probes, &Vec::new(), None).into_iter().find(|p| p.name == "pools").unwrap()
        };
        assert_eq!((pools(true).tier, pools(true).mode), (Some(Tier::Permission), Mode::Enforce));
        let below = pools(false);
        assert_eq!((below.tier, below.mode), (Some(Tier::Poll), Mode::Observe));
        assert!(below.note.contains("nothing here can cut flows"), "{}", below.note);
    }

    #[test]
    fn only_what_is_to_enforce_enforces() {
        let policy = |text| Policy::parse("p.toml", text).unwrap();
        assert_eq!(enforcing(&Policy::default()).count(), 0);
        let scoped = policy("[scope]\ncgroups = [\"/a\"]\n[mining]\nmode = \"enforce\"\n");
        assert_eq!(enforcing(&scoped).collect::<Vec<_>>(), ["mining"]);
    }

    #[test]
    fn what_enforces_is_proven_by_the_last_canary() {
        let policy = Policy::parse("p.toml", "[mining]\nmode = \"enforce\"\n").unwrap();
        let probes = [probe(Tracing, true), probe(TaskIterator, true)];
        let proven = |canary: Option<&Tally>| {
            let all = all(&policy, &probes, &Vec::new(), canary);
            let of = |name| all.iter().find(|p| p.name == name).unwrap().proven;
            (of("mining"), of("masquerade"))
        };
        let held = Tally { held: 5, of: 5, failed: Vec::new() };
        let broken = Tally { held: 4, of: 5, failed: vec!["freeze: it runs on".to_owned()] };
        assert_eq!(proven(None), (None, Some(true)), "nothing was tried yet");
        assert_eq!(proven(Some(&held)), (Some(true), Some(true)));
        assert_eq!(proven(Some(&broken)), (Some(false), Some(true)), "what observes needs no act");
    }

    #[test]
    fn the_best_tier_that_is_whole_holds() {
        let probes =
            [probe(Tracing, true), probe(TaskIterator, true), probe(FpuState, true), probe(CgroupBpf, false)];
        let all = all(&Policy::default(), &probes, &Vec::new(), None);
        let mining = all.iter().find(|p| p.name == "mining").unwrap();
        assert_eq!((mining.tier, mining.proven), (Some(Tier::Signal), Some(true)));
        assert!(mining.note.contains("CgroupBpf tried"), "{}", mining.note);
    }
}
