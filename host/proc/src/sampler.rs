use std::collections::HashMap;

use davy_model::{ProcessKey, SampleBatch, ThreadSample};

use crate::host::Hardware;
use crate::procfs::{MAX_THREADS, ProcFs, ProcessFolder};
use crate::stat::{NANOS_PER_TICK, parse_stat};
use crate::status::parse_status;

/// Sweeps over all threads for the CPU time they used, without BPF.
///
/// One small file is read a process; only where its CPU time moved are its threads looked at, and only of those that
/// computed are switches, priority and affinity read. The saved FPU state cannot be read this way: `mxcsr` is always
/// `None`. Memory is bounded by what lives: at most [`crate::MAX_PROCESSES`] processes of 16,384 threads each.
#[derive(Debug)]
pub struct Sampler {
    proc: ProcFs,
    hardware: Hardware,
    seen: HashMap<u32, Seen>,
}

/// A process at the last sweep.
#[derive(Debug)]
struct Seen {
    key: ProcessKey,
    cpu_ticks: u64,
    threads: HashMap<u32, u64>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

impl Sampler {
    /// A sampler of this host.
    #[must_use]
    pub fn new() -> Self {
        Self::of(ProcFs::host().clone())
    }

    /// A sampler of any view.
    #[must_use]
    pub fn of(proc: ProcFs) -> Self {
        Self { proc, hardware: Hardware::host(), seen: HashMap::new() }
    }

    /// Sweeps once. The first sweep, and the first that sees a process, gives every thread that ever computed, so that
    /// the next has something to be compared with.
    pub fn sample(&mut self) -> SampleBatch {
        let mut threads = Vec::new();
        let mut now = HashMap::with_capacity(self.seen.len());
        for pid in self.proc.pids() {
            let Some(stat) = self.proc.stat(pid) else { continue };
            let key = self.proc.key_of(&stat);
            let before = self.seen.remove(&pid).filter(|seen| seen.key == key);
            let cpu_ticks = stat.cpu_ticks;
            let idle = before.as_ref().map_or(cpu_ticks == 0, |seen| seen.cpu_ticks == cpu_ticks);
            let earlier = before.map(|seen| seen.threads).unwrap_or_default();
            let swept = if idle { None } else { self.threads(key, &earlier, &mut threads) };
            now.insert(pid, Seen { key, cpu_ticks, threads: swept.unwrap_or(earlier) });
        }
        self.seen = now;
        SampleBatch { time: crate::now(), cpus: self.hardware.cpus(), sessions: crate::sessions(), threads }
    }

    /// Looks at the threads of some processes alone, for bursts on a suspect. Every thread of theirs that ever computed
    /// is given, and later sweeps are not disturbed.
    #[must_use]
    pub fn burst(&self, processes: &[ProcessKey]) -> SampleBatch {
        let mut threads = Vec::new();
        for process in processes {
            self.threads(*process, &HashMap::new(), &mut threads);
        }
        SampleBatch { time: crate::now(), cpus: self.hardware.cpus(), sessions: crate::sessions(), threads }
    }

    /// Looks at the threads of one process; those that computed more than they had `earlier` are given. What each has
    /// used by now, or `None` when the process is gone.
    fn threads(
        &self,
        key: ProcessKey,
        earlier: &HashMap<u32, u64>,
        out: &mut Vec<ThreadSample>,
    ) -> Option<HashMap<u32, u64>> {
        let folder = self.proc.open(key.pid)?;
        folder.stat().filter(|stat| self.proc.key_of(stat) == key)?;
        let mut used = HashMap::with_capacity(earlier.len());
        for tid in folder.numbers("task", MAX_THREADS) {
            let Some(cpu_ns) = cpu_time(&folder, tid) else { continue };
            used.insert(tid, cpu_ns);
            if cpu_ns > earlier.get(&tid).copied().unwrap_or(0) {
                out.extend(thread(&folder, key, tid, cpu_ns));
            }
        }
        Some(used)
    }

    /// The sum of CPU time a process had used at the last sweep, in nanoseconds.
    #[must_use]
    pub fn cpu_ns(&self, process: &ProcessKey) -> Option<u64> {
        let seen = self.seen.get(&process.pid).filter(|seen| seen.key == *process)?;
        Some(seen.cpu_ticks.saturating_mul(NANOS_PER_TICK))
    }
}

/// CPU time of a thread: the first number of its schedstat (Documentation/scheduler/sched-stats.rst), in nanoseconds;
/// without CONFIG_SCHED_INFO its stat, in steps of 10 ms.
fn cpu_time(folder: &ProcessFolder, tid: u32) -> Option<u64> {
    let precise = folder.piece(&format!("task/{tid}/schedstat")).and_then(|text| {
        std::str::from_utf8(&text)
            .ok()?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
            .filter(|ns: &u64| *ns > 0)
    });
    precise.or_else(|| {
        let stat = parse_stat(&folder.piece(&format!("task/{tid}/stat"))?)?;
        Some(stat.cpu_ticks.saturating_mul(NANOS_PER_TICK))
    })
}

fn thread(folder: &ProcessFolder, process: ProcessKey, tid: u32, cpu_ns: u64) -> Option<ThreadSample> {
    let stat = parse_stat(&folder.piece(&format!("task/{tid}/stat"))?)?;
    let status = folder.piece(&format!("task/{tid}/status")).map(|text| parse_status(&text));
    let status = status.unwrap_or_default();
    Some(ThreadSample {
        process,
        tid,
        cpu_ns,
        voluntary_switches: status.voluntary_switches,
        involuntary_switches: status.involuntary_switches,
        mxcsr: None,
        policy: stat.policy,
        nice: stat.nice,
        allowed_cpus: status.allowed_cpus,
    })
}
