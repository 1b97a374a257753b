//! Sweeps over all threads through the kernel's task iterator.

use std::collections::HashMap;
use std::io::Read;

use davy_model::{ProcessKey, SampleBatch, ThreadSample};
use libbpf_rs::{Iter, Link, Object};
use zerocopy::FromBytes;

use crate::abi::{Settings, Thread};
use crate::clock::wall_now;
use crate::error::{During, Error, Result};
use crate::objects;

/// Bytes asked for in one read; the kernel gives what its own buffer holds.
const READ: usize = 64 * 1024;

/// Threads that one sweep takes in; the rest is left out and the batch says nothing of them.
const BOUND: usize = 1 << 18;

/// The loaded iterator, and what each thread had used when it was last seen.
pub(crate) struct Sampler {
    _object: Object,
    link: Link,
    boot: u32,
    seen: HashMap<u32, (u64, u64)>,
}

impl Sampler {
    pub(crate) fn load(boot: u32) -> Result<Self> {
        let mut object = objects::SAMPLE.open()?;
        let settings = Settings { has_xsave: u32::from(has_xsave()), ..Settings::default() };
        objects::configure(&mut object, &settings)?;
        let object = objects::load(object, "task iterator")?;
        let link = objects::attach_named(&object, |_| true)?.pop();
        let link = link.ok_or_else(|| Error::Unsupported("the task iterator has no program".to_owned()))?;
        Ok(Self { _object: object, link, boot, seen: HashMap::new() })
    }

    /// Every thread of every process, kernel threads left out.
    pub(crate) fn sweep(&self) -> Result<Vec<Thread>> {
        let mut iterator = Iter::new(&self.link).during(|| "starting a task iterator".to_owned())?;
        let mut threads = Vec::new();
        let mut buffer = vec![0; READ];
        let mut held = 0;
        while threads.len() < BOUND {
            let got = match iterator.read(&mut buffer[held..]) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).during(|| "reading the task iterator".to_owned()),
            };
            held += got;
            let mut rest = &buffer[..held];
            while let Ok((record, after)) = Thread::read_from_prefix(rest) {
                threads.push(record);
                rest = after;
            }
            let left = rest.len();
            buffer.copy_within(held - left..held, 0);
            held = left;
        }
        Ok(threads)
    }

    /// The threads that used a processor since the last call.
    pub(crate) fn sample(&mut self) -> Result<SampleBatch> {
        let time = wall_now();
        let threads = self.sweep()?;
        let mut seen = HashMap::with_capacity(threads.len());
        let mut busy = Vec::new();
        for thread in &threads {
            let used = (thread.start, thread.cpu_ns);
            if thread.cpu_ns > 0 && self.seen.get(&thread.tid) != Some(&used) {
                busy.push(self.thread(thread));
            }
            seen.insert(thread.tid, used);
        }
        self.seen = seen;
        Ok(SampleBatch { time, cpus: 0, sessions: 0, threads: busy })
    }

    fn thread(&self, thread: &Thread) -> ThreadSample {
        ThreadSample {
            process: ProcessKey { pid: thread.tgid, start_ticks: thread.start / 10_000_000, boot: self.boot },
            tid: thread.tid,
            cpu_ns: thread.cpu_ns,
            voluntary_switches: thread.voluntary,
            involuntary_switches: thread.involuntary,
            mxcsr: (thread.has_mxcsr != 0).then_some(thread.mxcsr),
            policy: thread.policy,
            nice: thread.nice,
            allowed_cpus: thread.allowed_cpus,
        }
    }
}

/// Whether the processor saves its extended state with a header that tells which components are there.
fn has_xsave() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("xsave");
    #[cfg(not(target_arch = "x86_64"))]
    false
}
