//! Events and records to store.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;

use davy_model::*;
use proptest::prelude::*;

pub fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start_ticks: u64::from(pid) * 7, boot: 0xdead_beef }
}

pub fn process_info(pid: u32, path: &str) -> ProcessInfo {
    ProcessInfo {
        key: key(pid),
        parent: Some(key(1)),
        comm: "xmrig".into(),
        image: ExecImage {
            path: path.into(),
            file: FileId { dev: 66_305, ino: 1_234_567 },
            kind: ImageKind::Memfd,
        },
        args: vec!["nginx".into(), "-o".into(), "198.51.100.7:443".into()],
        args_cut: false,
        env: vec![("LD_PRELOAD".into(), "/tmp/x.so".into())],
        cwd: "/tmp".into(),
        creds: Credentials { uid: 33, euid: 33, gid: 33, caps: u64::MAX, login_uid: None, session: Some(4) },
        tty: None,
        cgroup: "/system.slice/apache2.service".into(),
        cgroup_id: 42,
        container: None,
        ns: Namespaces::default(),
        kernel_thread: false,
    }
}

pub fn exec(time: Timestamp, pid: u32, path: &str) -> Event {
    Event { time, process: Some(key(pid)), kind: EventKind::Exec(Box::new(process_info(pid, path))) }
}

pub fn exit(time: Timestamp, pid: u32) -> Event {
    Event {
        time,
        process: Some(key(pid)),
        kind: EventKind::Exit(Exit { code: Some(0), signal: None, cpu_ns: 5 }),
    }
}

pub fn fork(time: Timestamp, pid: u32, child: u32) -> Event {
    let kind = EventKind::Fork { child: key(child), comm: "sh".into() };
    Event { time, process: Some(key(pid)), kind }
}

pub fn finding(id: u64, time: Timestamp) -> Finding {
    Finding {
        id: FindingId(id),
        kind: FindingKind::Mining,
        first: time,
        time,
        severity: Severity::High,
        confidence: 0.97,
        subject: Some(key(4711)),
        processes: vec![key(4711)],
        summary: "a process tree mines".into(),
        evidence: vec![Evidence {
            time,
            signal: Signal::RoundingMode,
            weight: 9.5,
            text: "rounding mode changed in 38 of 40 samples".into(),
            numbers: BTreeMap::from([("samples".into(), 40.0)]),
            process: None,
            flow: None,
            technique: Some(Technique::new("T1496")),
        }],
        techniques: vec![Technique::new("T1496")],
    }
}

pub fn incident(id: u64, time: Timestamp, findings: Vec<Finding>) -> Incident {
    Incident {
        id: IncidentId(id),
        state: IncidentState::Running,
        severity: Severity::High,
        title: "mining".into(),
        first: time,
        last: time,
        detected: time,
        stopped: None,
        timeline: vec![TimelineEntry {
            time,
            relation: "began with".into(),
            text: "a login".into(),
            process: None,
            user: None,
            techniques: vec![],
        }],
        tree: vec![],
        findings,
        actions: vec![],
        techniques: vec![],
    }
}

pub fn action(time: Timestamp, incident: Option<u64>, state: ActionState) -> ActionRecord {
    ActionRecord {
        id: ActionId(0),
        time,
        changed: time,
        incident: incident.map(IncidentId),
        finding: Some(FindingId(1)),
        action: Action::Freeze { root: key(4711), tree: vec![key(4711), key(4712)] },
        state,
        note: String::new(),
        undoable: state == ActionState::Done,
        undo: "{}".into(),
    }
}

fn any_key() -> impl Strategy<Value = ProcessKey> {
    any::<(u32, u64, u32)>().prop_map(|(pid, start_ticks, boot)| ProcessKey { pid, start_ticks, boot })
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), Just("\",\"data\":}{\u{0}\n".to_owned()), "[a-z/]{0,40}"]
}

fn any_info() -> impl Strategy<Value = ProcessInfo> {
    (any_key(), any_text(), prop::collection::vec(any_text(), 0..4), any::<(u32, u64, bool)>(), any_text())
        .prop_map(|(key, path, args, (uid, caps, cut), comm)| ProcessInfo {
            key,
            comm,
            args,
            args_cut: cut,
            image: ExecImage { path, ..ExecImage::default() },
            creds: Credentials { uid, caps, ..Credentials::default() },
            ..process_info(1, "")
        })
}

fn any_kind() -> impl Strategy<Value = EventKind> {
    let flow = any::<(u64, bool)>().prop_map(|(cookie, accepted)| FlowOpen {
        flow: FlowKey(cookie),
        transport: Transport::Tcp,
        local: "[2001:db8::1]:0".parse().unwrap(),
        remote: "203.0.113.9:65535".parse().unwrap(),
        accepted,
    });
    let volume = any::<(u64, u64, u64, u64)>().prop_map(|(a, b, c, d)| FlowVolume {
        sent_bytes: a,
        received_bytes: b,
        sent_packets: c,
        received_packets: d,
    });
    let chunk = any::<(u64, u32, u64)>().prop_map(|(flow, size, offset)| FlowChunk {
        flow: FlowKey(flow),
        direction: Direction::Sent,
        size,
        offset,
    });
    let memory = (any_key(), any::<(u64, u64, u32)>()).prop_map(|(process, (a, b, c))| MemoryShape {
        process,
        resident: a,
        hugetlb: b,
        largest_anonymous: a,
        scratchpads: c,
        anonymous_executable: b,
        writable_executable: a,
        nameless_code: c,
    });
    let code = prop_oneof![
        any::<bool>().prop_map(|memfd| CodeAct::NamelessExec { memfd }),
        (any_key(), any::<bool>()).prop_map(|(target, write)| CodeAct::Trace { target, write }),
        (any_text(), any::<u32>()).prop_map(|(name, program_type)| CodeAct::BpfLoad { name, program_type }),
        any::<(u64, u64)>().prop_map(|(before, now)| CodeAct::HugePagesReserved { before, now }),
    ];
    let file = (any_text(), any::<Option<bool>>()).prop_map(|(path, from)| FileChange {
        act: FileAct::Renamed { from: from.map(|_| path.clone()) },
        path,
        file: FileId { dev: u64::MAX, ino: 0 },
        executable: true,
        code: false,
        place: Some(PersistencePlace::Cron),
    });
    prop_oneof![
        any_info().prop_map(|info| EventKind::Found(Box::new(info))),
        any_info().prop_map(|info| EventKind::Exec(Box::new(info))),
        (any_key(), any_text()).prop_map(|(child, comm)| EventKind::Fork { child, comm }),
        any_text().prop_map(|comm| EventKind::Renamed { comm }),
        any::<(Option<u8>, Option<u8>, u64)>().prop_map(|(code, signal, cpu_ns)| EventKind::Exit(Exit {
            code,
            signal,
            cpu_ns
        })),
        flow.clone().prop_map(EventKind::FlowOpen),
        flow.prop_map(EventKind::Listen),
        chunk.prop_map(EventKind::FlowChunk),
        (any::<u64>(), any::<bool>(), volume.clone()).prop_map(|(flows, accepted, volume)| EventKind::Flows(
            FlowAggregate {
                transport: Transport::Udp,
                local: "0.0.0.0:53".parse().unwrap(),
                remote: "[2001:db8::1]:53".parse().unwrap(),
                accepted,
                flows,
                volume,
            }
        )),
        (any::<u64>(), volume)
            .prop_map(|(c, volume)| EventKind::FlowClose(FlowClose { flow: FlowKey(c), volume })),
        (any_text(), any::<std::net::IpAddr>(), any::<u32>())
            .prop_map(|(name, address, ttl_secs)| EventKind::Name(NameAnswer { name, address, ttl_secs })),
        (any::<std::net::IpAddr>(), any::<u16>(), any::<bool>()).prop_map(|(from, port, refused)| {
            EventKind::Inbound(InboundRefusal { transport: Transport::Tcp, port, from, refused })
        }),
        file.prop_map(EventKind::File),
        code.prop_map(EventKind::Code),
        memory.prop_map(EventKind::Memory),
        (any_key(), any_text(), any::<Option<u16>>(), any::<u64>()).prop_map(
            |(process, device, busy_permille, memory)| EventKind::Gpu(GpuUse {
                process,
                device,
                busy_permille,
                memory
            })
        ),
        any::<(u64, u64)>().prop_map(|(count, cpu_ns)| EventKind::Syscalls { count, cpu_ns }),
    ]
}

pub fn any_event() -> impl Strategy<Value = Event> {
    (any::<i64>(), prop::option::of(any_key()), any_kind()).prop_map(|(time, process, kind)| Event {
        time: Timestamp(time),
        process,
        kind,
    })
}
