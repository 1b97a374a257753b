//! The sensors as one thing: programs attached, a thread that reads their lanes, and what can be asked of them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use davy_model::{Capability, Event, Probe, SampleBatch};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, RingBufferBuilder};

use crate::abi::{LOSSES, Settings, kind};
use crate::cgroups::{Cgroups, cgroup2_mount};
use crate::decode::Decoder;
use crate::error::{During, Error, Result};
use crate::objects;
use crate::sample::Sampler;

/// How often the lanes are read when nothing fills them.
const POLL: Duration = Duration::from_millis(50);

/// How the sensors are to run.
#[derive(Clone, Debug)]
pub struct SensorConfig {
    /// The first 32 bits of the boot id, which becomes part of every process's identity.
    pub boot: u32,
    /// Size of the lane for process starts and ends and for decisions, in bytes; a power of two.
    pub priority_bytes: u32,
    /// Size of the lane for flows, in bytes; a power of two.
    pub bulk_bytes: u32,
    /// Where cgroup v2 is mounted; found by itself when `None`.
    pub cgroup2: Option<PathBuf>,
    /// A folder in a BPF file system where enforcement is kept when the agent goes; `None` to keep nothing.
    pub pin: Option<PathBuf>,
}

impl SensorConfig {
    /// Four megabytes for processes, two for flows, nothing kept.
    #[must_use]
    pub fn new(boot: u32) -> Self {
        Self { boot, priority_bytes: 1 << 22, bulk_bytes: 1 << 21, cgroup2: None, pin: None }
    }
}

/// Takes events. It is called on the sensors' thread, in the order of time within one batch.
pub type Sink = Box<dyn FnMut(Event) + Send>;

/// Running sensors. Everything is detached when this is dropped.
pub struct Sensors {
    stop: Arc<AtomicBool>,
    malformed: Arc<std::sync::atomic::AtomicU64>,
    thread: Option<JoinHandle<()>>,
    losses: MapHandle,
    sampler: Option<Mutex<Sampler>>,
    _objects: Vec<Object>,
    _links: Vec<Link>,
}

impl Sensors {
    /// Loads and attaches what the probes say works, and begins to read.
    ///
    /// # Errors
    /// When tracing does not work here, or the kernel refuses what it allowed while probing.
    pub fn start(config: SensorConfig, probes: &[Probe], sink: Sink) -> Result<Self> {
        let works = |capability| probes.iter().any(|probe| probe.capability == capability && probe.works);
        if !works(Capability::Tracing) {
            return Err(Error::Unsupported("tracing programs do not work here".to_owned()));
        }
        let mut process = objects::PROCESS.open()?;
        size_lanes(&mut process, &config)?;
        objects::configure(&mut process, &settings(&config))?;
        let modules = objects::kernel_has_type("btf_trace_module_load");
        objects::select(&mut process, |name| name != "on_module" || modules);
        let process = objects::load(process, "process")?;

        let priority = objects::map(&process, "priority_lane")?;
        let bulk = objects::map(&process, "bulk_lane")?;
        let losses = objects::map(&process, "losses")?;
        let sampler = works(Capability::TaskIterator).then(|| Sampler::load(config.boot)).transpose()?;
        let links = objects::attach_all(&process)?;

        let stop = Arc::new(AtomicBool::new(false));
        let malformed = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let reader = Reader {
            stop: Arc::clone(&stop),
            malformed: Arc::clone(&malformed),
            decoder: Decoder::new(config.boot, Cgroups::new(config.cgroup2.clone().or_else(cgroup2_mount))),
            sink,
        };
        let thread = std::thread::Builder::new()
            .name("davy-sensors".to_owned())
            .spawn(move || reader.run(&priority, &bulk))
            .during(|| "starting the sensors' thread".to_owned())?;
        Ok(Self {
            stop,
            malformed,
            thread: Some(thread),
            losses,
            sampler: sampler.map(Mutex::new),
            _objects: vec![process],
            _links: links,
        })
    }

    /// One sweep over all threads. Those that used no processor since the last sweep are left out; `cpus` and
    /// `sessions` are zero, for the caller to fill in.
    ///
    /// # Errors
    /// When the task iterator does not work here.
    pub fn sample(&self) -> Result<SampleBatch> {
        let sampler = self.sampler.as_ref();
        let sampler =
            sampler.ok_or_else(|| Error::Unsupported("task iterators do not work here".to_owned()))?;
        sampler.lock().unwrap_or_else(PoisonError::into_inner).sample()
    }

    /// Records lost since the start, as `kind/cause` (`flow_chunk/full`, `fork/throttled`) and how many. Kinds that
    /// lost nothing are left out.
    #[must_use]
    pub fn drops(&self) -> Vec<(String, u64)> {
        let mut drops = Vec::new();
        for (of_kind, name) in kind::NAMES.iter().enumerate() {
            for (why, cause) in LOSSES.iter().enumerate() {
                let index = u32::try_from(of_kind * LOSSES.len() + why).unwrap_or(u32::MAX);
                let count = per_cpu_sum(&self.losses, &index.to_ne_bytes());
                if count > 0 {
                    drops.push((format!("{name}/{cause}"), count));
                }
            }
        }
        let malformed = self.malformed.load(Ordering::Relaxed);
        if malformed > 0 {
            drops.push(("record/malformed".to_owned(), malformed));
        }
        drops
    }
}

impl Drop for Sensors {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the sensors' thread had panicked");
        }
    }
}

fn settings(config: &SensorConfig) -> Settings {
    Settings {
        priority_wake: u64::from(config.priority_bytes / 4),
        bulk_wake: u64::from(config.bulk_bytes / 4),
        ..Settings::default()
    }
}

fn size_lanes(object: &mut libbpf_rs::OpenObject, config: &SensorConfig) -> Result<()> {
    for mut map in object.maps_mut() {
        let bytes = match map.name().to_str() {
            Some("priority_lane") => config.priority_bytes,
            Some("bulk_lane") => config.bulk_bytes,
            _ => continue,
        };
        map.set_max_entries(bytes).during(|| format!("sizing a lane to {bytes} bytes"))?;
    }
    Ok(())
}

fn per_cpu_sum(map: &MapHandle, key: &[u8]) -> u64 {
    let values = map.lookup_percpu(key, MapFlags::ANY).ok().flatten().unwrap_or_default();
    values.iter().filter_map(|value| value.as_slice().try_into().ok().map(u64::from_ne_bytes)).sum()
}

/// The thread that reads the lanes.
struct Reader {
    stop: Arc<AtomicBool>,
    malformed: Arc<std::sync::atomic::AtomicU64>,
    decoder: Decoder,
    sink: Sink,
}

impl Reader {
    fn run(self, priority: &MapHandle, bulk: &MapHandle) {
        let Self { stop, malformed, decoder, mut sink } = self;
        let state = std::cell::RefCell::new((decoder, Vec::<Event>::new()));
        let take = |bytes: &[u8]| {
            let (decoder, events) = &mut *state.borrow_mut();
            decoder.decode(bytes, events);
            0
        };
        // The bulk lane is read first: whatever happened before a flow's record is then in this batch too, and
        // sorting by time puts a process's start before its flows.
        let mut builder = RingBufferBuilder::new();
        let built = builder.add(bulk, take).and_then(|builder| builder.add(priority, take)).map(drop);
        let lanes = match built.and_then(|()| builder.build()) {
            Ok(lanes) => lanes,
            Err(error) => return tracing::error!(%error, "the sensors' lanes cannot be read"),
        };
        let mut rounds = 0u32;
        while !stop.load(Ordering::Acquire) {
            // Waking programs and the timer both end the wait; all lanes are read either way.
            lanes.poll_raw(POLL);
            lanes.consume_raw();
            let mut batch = std::mem::take(&mut state.borrow_mut().1);
            batch.sort_by_key(|event| event.time);
            for event in batch.drain(..) {
                sink(event);
            }
            let (decoder, events) = &mut *state.borrow_mut();
            *events = batch;
            events.shrink_to(4096);
            decoder.clock.renew();
            malformed.store(decoder.malformed, Ordering::Relaxed);
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(200) {
                decoder.cgroups.renew();
            }
        }
    }
}
