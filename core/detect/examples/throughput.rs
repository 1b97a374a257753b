//! How many events a second the engine takes in on one core: `cargo run --release -p davy-detect --example throughput`.
#![allow(missing_docs)]

use std::time::Instant;

use davy_detect::{Detector, Lists, Settings};
use davy_model::{
    Credentials, Direction, Event, EventKind, ExecImage, Exit, FileId, FlowChunk, FlowKey, FlowOpen,
    ImageKind, Namespaces, ProcessInfo, ProcessKey, SampleBatch, ThreadSample, Timestamp, Transport,
};

const ROUNDS: u32 = 200_000;

fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start_ticks: u64::from(pid), boot: 1 }
}

fn program(n: u32) -> ProcessInfo {
    let tool = ["/usr/bin/gcc", "/usr/lib/gcc/cc1", "/usr/bin/as", "/home/u/build/tool", "/usr/bin/sh"]
        [n as usize % 5];
    let args = [tool, "-O2", "-c", "src/some/where/file.c", "-o", "target/some/where/file.o", "-Iinclude"];
    ProcessInfo {
        key: key(n),
        parent: Some(key(1)),
        comm: tool.rsplit('/').next().unwrap_or(tool).to_owned(),
        image: ExecImage {
            path: tool.to_owned(),
            file: FileId { dev: 1, ino: u64::from(n % 5) + 1 },
            kind: ImageKind::File,
        },
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        args_cut: false,
        env: Vec::new(),
        cwd: "/home/u/build".to_owned(),
        creds: Credentials::default(),
        tty: None,
        cgroup: "/user.slice/user-1000.slice/session-3.scope".to_owned(),
        cgroup_id: 42,
        container: None,
        ns: Namespaces::default(),
        kernel_thread: false,
    }
}

fn timed(what: &str, events: &[Event], detector: &mut Detector) {
    let start = Instant::now();
    for event in events {
        detector.observe(event);
    }
    let secs = start.elapsed().as_secs_f64();
    println!("{what:32} {:>10.0} events/s", events.len() as f64 / secs);
}

fn main() {
    let mut detector = Detector::new(Settings::default(), Lists::builtin());
    let mut processes = Vec::new();
    for n in 2..ROUNDS + 2 {
        let time = Timestamp(i64::from(n) * 20);
        processes.push(Event {
            time,
            process: Some(key(1)),
            kind: EventKind::Fork { child: key(n), comm: "make".to_owned() },
        });
        processes.push(Event { time, process: Some(key(n)), kind: EventKind::Exec(Box::new(program(n))) });
        processes.push(Event { time, process: Some(key(n)), kind: EventKind::Exit(Exit::default()) });
    }
    detector.observe(&Event {
        time: Timestamp(0),
        process: None,
        kind: EventKind::Found(Box::new(program(1))),
    });
    timed("fork, exec, exit", &processes, &mut detector);

    let mut chunks = Vec::new();
    for n in 0..ROUNDS {
        let flow = FlowKey(u64::from(n / 20));
        let time = Timestamp(i64::from(n) * 50);
        if n % 20 == 0 {
            let open = FlowOpen {
                flow,
                transport: Transport::Tcp,
                local: ([10, 0, 0, 1], 4000).into(),
                remote: ([198, 51, 100, 7], 443).into(),
                accepted: false,
            };
            chunks.push(Event { time, process: Some(key(1)), kind: EventKind::FlowOpen(open) });
        }
        let direction = if n % 2 == 0 { Direction::Sent } else { Direction::Received };
        chunks.push(Event {
            time,
            process: None,
            kind: EventKind::FlowChunk(FlowChunk { flow, direction, size: 61, offset: 0 }),
        });
    }
    timed("connections and their messages", &chunks, &mut detector);

    let threads = (0..1_300u32).map(|tid| ThreadSample {
        process: key(tid),
        tid,
        cpu_ns: 0,
        voluntary_switches: 0,
        involuntary_switches: 0,
        mxcsr: Some(0x1fa0),
        policy: 0,
        nice: 0,
        allowed_cpus: 2,
    });
    let mut batch = SampleBatch { time: Timestamp(0), cpus: 2, sessions: 1, threads: threads.collect() };
    let start = Instant::now();
    for second in 1..=60i64 {
        batch.time = Timestamp::from_secs(second);
        for thread in batch.threads.iter_mut().take(100) {
            thread.cpu_ns += 900_000_000;
            thread.involuntary_switches += 5;
        }
        detector.sample(&batch);
        detector.conclude(batch.time);
    }
    println!("{:32} {:>10.2} ms", "a sweep of 1,300 threads", start.elapsed().as_secs_f64() * 1e3 / 60.0);
    println!("{:?}", detector.sizes());
}
