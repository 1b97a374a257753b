//! Everything that sees: the kernel's sensors where they load, /proc and sock_diag where they do not, and the
//! file watcher. The engine asks it for samples and backfill and need not know which of them answers.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use davy_files::{WatchConfig, Watcher, Way};
use davy_kernel::{
    Blocker, CaptureSink, Nameless, OutboundGate, PortWatchStarter, Refused, SelfGuard, SensorConfig,
    Sensors, TrustConfig, TrustGate,
};
use davy_model::{Capability, CodeAct, Event, EventKind, Probe, ProbeRequest, ProcessKey, SampleBatch};
use davy_proc::{Concealed, Hardware, PollOptions, Poller, ProcFs, Sampler, Sweep};

use crate::clock;
use crate::protections::Notes;
use crate::shared::{Intake, Shared};

/// How long a window in which system calls are counted is open. Merely attached, the hook costs every call of every
/// process about 80 ns, so the window is short.
const SYSCALL_WINDOW: Duration = Duration::from_millis(500);

/// How often hidden processes are looked for, and how many pids are asked for at one look: about a millisecond.
const SWEEP: Duration = Duration::from_secs(5);
const PIDS_A_LOOK: u32 = 4096;

/// Hidden processes that are not told again. Beyond it all are told once more.
const MAX_HIDDEN: usize = 1024;

/// The eyes of one agent.
pub(crate) struct Eyes {
    sensors: Option<Sensors>,
    sampler: Sampler,
    poller: Option<Poller>,
    files: Option<Watcher>,
    gpu: davy_proc::gpu::Watch,
    sweep: Sweep,
    sweep_due: Every,
    told_hidden: HashSet<ProcessKey>,
    huge_pages: u64,
    cpus: u32,
    shared: Arc<Shared>,
    /// What could not be opened, for people.
    pub(crate) notes: Notes,
}

/// What the eyes are asked to look at.
pub(crate) struct EyesConfig {
    pub(crate) file_events: bool,
    pub(crate) cgroup2: Option<PathBuf>,
    /// Where enforcement is kept when the agent goes.
    pub(crate) pin: Option<PathBuf>,
}

impl Eyes {
    /// Opens every eye that the probes allow. What fails is noted and the next lower one is used.
    pub(crate) fn open(
        config: &EyesConfig,
        probes: &[Probe],
        intake: &Intake,
        captures: CaptureSink,
    ) -> Self {
        let mut notes = Notes::new();
        let works = |c: Capability| probes.iter().any(|p| p.capability == c && p.works);
        let sensors = if works(Capability::Tracing) {
            let sensor_config = SensorConfig {
                cgroup2: config.cgroup2.clone(),
                pin: config.pin.clone(),
                ..SensorConfig::new(davy_proc::boot())
            };
            match Sensors::start(sensor_config, probes, intake.sink(), captures) {
                Ok(sensors) => {
                    notes.extend(sensors.faults().iter().map(|fault| ("mining", fault.clone())));
                    Some(sensors)
                }
                Err(e) => {
                    notes.push((
                        "mining",
                        format!("the kernel sensors did not start, /proc is polled instead: {e}"),
                    ));
                    None
                }
            }
        } else {
            None
        };
        let files = if config.file_events {
            match Watcher::start(watch_config(intake), intake.sink()) {
                Ok(watcher) => {
                    notes.extend(watcher.notes().into_iter().map(|note| ("persistence", note)));
                    Some(watcher)
                }
                Err(e) => {
                    notes.push(("persistence", format!("changes of files are not watched: {e}")));
                    None
                }
            }
        } else {
            None
        };
        let poller = sensors.is_none().then(|| Poller::new(PollOptions::default()));
        Self {
            sensors,
            sampler: Sampler::new(),
            poller,
            files,
            gpu: davy_proc::gpu::Watch::new(),
            sweep: Sweep::new(ProcFs::host()),
            sweep_due: Every::new(SWEEP),
            told_hidden: HashSet::new(),
            huge_pages: davy_proc::hugepages(),
            cpus: Hardware::host().cpus(),
            shared: Arc::clone(intake.shared()),
            notes,
        }
    }

    /// Whether whole file systems are watched, as opposed to a few folders or nothing.
    pub(crate) fn sees_file_systems(&self) -> bool {
        self.files.as_ref().is_some_and(|w| w.way() == Way::Fanotify)
    }

    /// Everything that ran and talked before the eyes were open. Called after they are, so that nothing falls
    /// between; what is seen twice is one process by its key and one flow by its cookie.
    pub(crate) fn backfill(&mut self) -> Vec<Event> {
        let once = &mut Poller::new(PollOptions { flows: true, sizes: false });
        let events = self.poller.as_mut().unwrap_or(once).poll(clock::now());
        for event in &events {
            self.shared.recent.learn(event);
        }
        events
    }

    /// One look at all busy threads.
    pub(crate) fn sample(&mut self) -> SampleBatch {
        let mut batch = match self.sensors.as_ref().map(Sensors::sample) {
            Some(Ok(batch)) => batch,
            Some(Err(e)) => {
                tracing::warn!("the task iterator failed, /proc is read instead: {e}");
                self.sampler.sample()
            }
            None => self.sampler.sample(),
        };
        batch.time = clock::now();
        batch.cpus = self.cpus;
        batch.sessions = davy_proc::sessions();
        batch
    }

    /// What is only seen by looking again: in the poll tier everything, elsewhere the GPUs and the huge pages.
    pub(crate) fn poll(&mut self) -> Vec<Event> {
        let now = clock::now();
        let mut events = self.poller.as_mut().map(|p| p.poll(now)).unwrap_or_default();
        events.extend(self.gpu.poll().into_iter().map(|gpu| Event {
            time: now,
            process: Some(gpu.process),
            kind: EventKind::Gpu(gpu),
        }));
        let pages = davy_proc::hugepages();
        if pages != self.huge_pages {
            let before = std::mem::replace(&mut self.huge_pages, pages);
            events.push(Event {
                time: now,
                process: None,
                kind: EventKind::Code(CodeAct::HugePagesReserved { before, now: pages }),
            });
        }
        let hidden = if self.sweep_due.due() { self.sweep.slice(PIDS_A_LOOK) } else { Vec::new() };
        for hiding in hidden {
            let how = match hiding.how {
                Concealed::Covered { by } => format!("{by} is mounted over /proc/{}", hiding.pid),
                Concealed::Unlisted => "it lives and /proc does not list it".to_owned(),
            };
            if let Some(process) =
                self.shared.recent.holder(hiding.pid).or_else(|| davy_proc::key(hiding.pid))
                && self.told_hidden.insert(process)
            {
                let kind = EventKind::Code(CodeAct::Hidden { how });
                events.push(Event { time: now, process: Some(process), kind });
            }
        }
        if self.told_hidden.len() > MAX_HIDDEN {
            self.told_hidden.clear();
        }
        events
    }

    /// Carries out what the detector asks for, but for [`ProbeRequest::Burst`], which is the engine's rhythm.
    pub(crate) fn probe(&mut self, request: ProbeRequest) -> Option<Event> {
        match request {
            ProbeRequest::Memory(key) => davy_proc::memory_shape(&key).map(|shape| Event {
                time: clock::now(),
                process: Some(key),
                kind: EventKind::Memory(shape),
            }),
            ProbeRequest::Syscalls(key) => {
                self.count_syscalls(key);
                None
            }
            ProbeRequest::Burst(_) => None,
        }
    }

    fn count_syscalls(&mut self, key: ProcessKey) {
        if let Some(sensors) = &self.sensors
            && let Err(e) = sensors.count_syscalls(key, SYSCALL_WINDOW)
        {
            tracing::debug!("system calls of {key} could not be counted: {e}");
        }
    }

    /// Starts judging code in the kernel.
    pub(crate) fn trust_gate(&self, config: TrustConfig) -> Result<TrustGate, String> {
        let sensors = self.sensors.as_ref().ok_or("the kernel sensors did not start")?;
        TrustGate::start(config, sensors).map_err(|error| error.to_string())
    }

    /// Ends programs without a file in the cgroups that it is told.
    pub(crate) fn nameless(&self) -> Result<Nameless, String> {
        let sensors = self.sensors.as_ref().ok_or("the kernel sensors did not start")?;
        sensors.nameless().map_err(|error| error.to_string())
    }

    /// Starts what watches for port scans, where the kernel's sensors run.
    pub(crate) fn port_watches(&self) -> Option<PortWatchStarter> {
        self.sensors.as_ref().map(Sensors::port_watches)
    }

    /// Protects Davy's own from everyone outside its cgroup.
    pub(crate) fn guard(&self, guard: &SelfGuard) -> Result<(), String> {
        let sensors = self.sensors.as_ref().ok_or("the kernel sensors do not run")?;
        sensors.guard_self(guard).map_err(|e| e.to_string())
    }

    /// Attempts on Davy that the kernel refused since the last look.
    pub(crate) fn refusals(&self) -> Vec<Refused> {
        self.sensors.as_ref().map(Sensors::refusals).unwrap_or_default()
    }

    /// Losses by kind.
    pub(crate) fn drops(&self) -> Vec<(String, u64)> {
        let mut drops = self.sensors.as_ref().map(Sensors::drops).unwrap_or_default();
        drops.extend(self.files.as_ref().map(Watcher::drops).unwrap_or_default());
        drops.retain(|(_, count)| *count > 0);
        drops
    }

    /// What decides who may connect to what, where the kernel lets it.
    pub(crate) fn outbound(&self) -> Option<OutboundGate> {
        self.sensors.as_ref().and_then(Sensors::outbound)
    }

    /// What cuts flows, where the kernel lets it.
    pub(crate) fn blocker(&self) -> Option<Blocker> {
        self.sensors.as_ref().and_then(Sensors::blocker)
    }
}

/// The whole host; who is gone when its writing is told, is known from what was seen lately.
fn watch_config(intake: &Intake) -> WatchConfig {
    let (pids, programs) = (Arc::clone(intake.shared()), Arc::clone(intake.shared()));
    WatchConfig {
        resolve: Box::new(move |pid| pids.recent.holder(pid)),
        is_program: Box::new(move |path| programs.recent.ran(path)),
        ..WatchConfig::new(davy_proc::boot())
    }
}

/// Keeps a look from being taken more often than every so long.
#[derive(Debug)]
pub(crate) struct Every {
    period: Duration,
    next: Instant,
}

impl Every {
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, next: Instant::now() }
    }

    /// Whether it is time; if so, the next time is one period on from now, so that a late look is not caught up with.
    pub(crate) fn due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.next;
        if due {
            self.next = now + self.period;
        }
        due
    }

    /// When it is time.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }
}
