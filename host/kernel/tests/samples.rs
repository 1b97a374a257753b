//! Sweeps over threads: counters, scheduling, and the saved rounding mode.
#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(target_arch = "x86_64")]

mod live;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use davy_model::{Capability, EventKind, ThreadSample};
use live::Live;

const NEEDED: [Capability; 3] = [Capability::Tracing, Capability::TaskIterator, Capability::FpuState];

/// A thread that computes until dropped.
struct Spinner {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    tid: u32,
}

impl Spinner {
    fn start(work: impl Fn(u32) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (send, receive) = channel();
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            send.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).unwrap();
            let end = Instant::now() + Duration::from_secs(20);
            let mut round = 0u32;
            while !stopping.load(Ordering::Relaxed) && Instant::now() < end {
                work(round);
                round = round.wrapping_add(1);
            }
        });
        Self { stop, thread: Some(thread), tid: receive.recv().unwrap() }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Computes with one rounding mode, flush-to-zero and denormals-are-zero on, as RandomX does.
#[allow(unsafe_code)]
fn with_rounding(mode: u32) {
    let (value, mut before) = (0x9fc0 | (mode << 13), 0u32);
    let mut sum = 1u64;
    // SAFETY: the register is restored before any floating-point code of Rust runs; in between is integer work.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut before, options(nostack));
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, readonly));
        std::arch::asm!(
            "2:", "imul {sum}, {sum}, 31", "dec {left}", "jnz 2b",
            sum = inout(reg) sum, left = inout(reg) 2_000_000u64 => _, options(nostack, nomem),
        );
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const before, options(nostack, readonly));
    }
    std::hint::black_box(sum);
}

fn spin(_: u32) {
    for value in 0..1_000_000u64 {
        std::hint::black_box(value);
    }
}

fn samples(live: &Live, tid: u32, rounds: u32) -> Vec<ThreadSample> {
    (0..rounds)
        .filter_map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            let batch = live.sensors.sample().unwrap();
            batch.threads.into_iter().find(|thread| thread.tid == tid)
        })
        .collect()
}

#[test]
fn changing_rounding_modes_are_seen() {
    let Some(live) = Live::start(&NEEDED) else { return };
    // One processor for all, so that the spinner is switched out in the middle of its work.
    let spinner = Spinner::start(|round| with_rounding(round % 4));
    let _rivals: Vec<_> = (0..2).map(|_| Spinner::start(spin)).collect();
    let seen = samples(&live, spinner.tid, 60);
    let modes: BTreeSet<u32> =
        seen.iter().filter_map(|sample| sample.mxcsr).map(|value| (value >> 13) & 3).collect();
    assert!(modes.len() >= 3, "rounding modes {modes:?} in {} samples", seen.len());
    let flushing =
        seen.iter().filter_map(|sample| sample.mxcsr).filter(|value| value & 0x8040 == 0x8040).count();
    assert!(flushing * 2 > seen.len(), "flush-to-zero in {flushing} of {} samples", seen.len());
}

#[test]
fn plain_work_keeps_the_initial_mode() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let spinner = Spinner::start(spin);
    let seen = samples(&live, spinner.tid, 10);
    assert!(seen.len() > 5);
    for sample in &seen {
        assert_eq!(sample.mxcsr.map(|value| value & !0x3f), Some(0x1f80));
    }
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    assert!(last.cpu_ns > first.cpu_ns + 50_000_000, "{} ns", last.cpu_ns - first.cpu_ns);
    assert_eq!(last.process.pid, std::process::id());
    assert_eq!((last.policy, last.nice), (0, 0));
    assert!(last.allowed_cpus > 0);
}

#[test]
fn a_thread_that_rests_is_left_out() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let (send, receive) = channel();
    let (done, wait) = channel::<()>();
    let thread = std::thread::spawn(move || {
        spin(0);
        send.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).unwrap();
        let _ = wait.recv();
    });
    let tid = receive.recv().unwrap();
    assert_eq!(samples(&live, tid, 5).len(), 1);
    drop(done);
    thread.join().unwrap();
}

#[test]
fn system_calls_are_counted_in_a_window() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let _caller = Spinner::start(|_| {
        let _ = rustix::process::getppid();
        std::thread::sleep(Duration::from_micros(100));
    });
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start_ticks = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    let key = davy_model::ProcessKey { pid: std::process::id(), start_ticks, boot: live::BOOT };
    live.sensors.count_syscalls(key, Duration::from_millis(300)).unwrap();
    let (process, count, cpu_ns) = live.wait("the count", |event| match event.kind {
        EventKind::Syscalls { count, cpu_ns } => Some((event.process, count, cpu_ns)),
        _ => None,
    });
    assert_eq!(process, Some(key));
    assert!((500..100_000).contains(&count), "{count} system calls");
    assert!((1..3_000_000_000).contains(&cpu_ns), "{cpu_ns} ns");
}
