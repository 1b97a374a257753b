//! The sensors as one thing: programs attached, a thread that reads their lanes, and what can be asked of them.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use davy_model::{Capability, Capture, Event, Probe, ProcessKey, SampleBatch};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object};

use crate::abi::{LOSSES, Settings, kind};
use crate::aggregates::Aggregates;
use crate::block::Blocker;
use crate::cgroups::{Cgroups, cgroup2_mount};
use crate::decode::Decoder;
use crate::error::{During, Error, Result};
use crate::guard::{Hooks, ObjectIds, Refused, SelfGuard};
use crate::nameless::Nameless;
use crate::outbound::OutboundGate;
use crate::port_watch::PortWatchStarter;
use crate::program_loads::{OwnPrograms, ProgramLoads, map_ids, program_ids};
use crate::reader::{Reader, Shared};
use crate::sample::Sampler;
use crate::syscalls::SyscallCounter;
use crate::{network, objects};

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

/// Takes what was captured in one round, at most eight megabytes. It is called on the sensors' thread, after the round's events.
pub type CaptureSink = Box<dyn FnMut(Vec<Capture>) + Send>;

/// Running sensors. Everything is detached when this is dropped, except what is pinned.
pub struct Sensors {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    windows: Sender<(ProcessKey, Duration)>,
    losses: MapHandle,
    sampler: Option<Mutex<Sampler>>,
    hooks: Option<Arc<Mutex<Hooks>>>,
    blocker: Option<Blocker>,
    outbound: Option<OutboundGate>,
    cgroup2: Option<PathBuf>,
    faults: Vec<String>,
    attached: Attached,
    own: OwnPrograms,
    /// Objects of others that write to these lanes.
    gates: Mutex<ObjectIds>,
    boot: u32,
}

/// Loaded objects and their links; the links go first.
#[derive(Default)]
struct Attached {
    links: Vec<Link>,
    objects: Vec<Object>,
}

impl Attached {
    fn add(&mut self, (object, links): (Object, Vec<Link>)) {
        self.objects.push(object);
        self.links.extend(links);
    }
}

impl Sensors {
    /// Loads and attaches what the probes say works, and begins to read. A class of sensors that fails although its
    /// probe worked is left out, and [`Sensors::faults`] says why.
    ///
    /// # Errors
    /// When tracing does not work here, or the kernel refuses the process programs.
    pub fn start(config: SensorConfig, probes: &[Probe], sink: Sink, captures: CaptureSink) -> Result<Self> {
        let works = |capability| probes.iter().any(|probe| probe.capability == capability && probe.works);
        if !works(Capability::Tracing) {
            return Err(Error::Unsupported("tracing programs do not work here".to_owned()));
        }
        let settings = Settings { device_majors: network::device_majors(), ..Settings::default() };
        let cgroup2 = config.cgroup2.clone().or_else(cgroup2_mount);
        let root = network::usable_root(cgroup2.as_deref()).filter(|_| works(Capability::CgroupBpf));
        let mut faults = Vec::new();
        let mut attached = Attached::default();

        attached.add(start_processes(&config, &settings)?);
        let process = &attached.objects[0];
        let shared_maps = lanes_of(process)?;
        let [priority, bulk] = [objects::map(process, LANES[0])?, objects::map(process, LANES[1])?];
        let losses = objects::map(process, "losses")?;

        let mut or_fault = |outcome: Result<(Object, Vec<Link>)>| match outcome {
            Ok(started) => attached.add(started),
            Err(error) => faults.push(error.to_string()),
        };
        let mut decoder = Decoder::new(config.boot, Cgroups::new(cgroup2.clone()));
        or_fault(network::start(root, &settings, &shared_maps, &mut |record| decoder.adopt(record)));
        if let Some(root) = root {
            or_fault(network::start_devices(root, &settings, &shared_maps));
        }
        let mut keep = |what: &str, error: Error| {
            tracing::error!(%error, "{what} does not start");
            faults.push(format!("{what}: {error}"));
        };
        let sampler = works(Capability::TaskIterator).then(|| Sampler::load(config.boot));
        let sampler =
            sampler.and_then(|loaded| loaded.map_err(|error| keep("the task iterator", error)).ok());
        let hooks = works(Capability::LsmBpf).then(|| Hooks::start(&settings, &shared_maps));
        let hooks = hooks.and_then(|loaded| loaded.map_err(|error| keep("the security hooks", error)).ok());
        let hooks = hooks.map(|hooks| Arc::new(Mutex::new(hooks)));

        let own = OwnPrograms::default();
        let blocker = root.map(|root| Blocker::new(Some(root.to_owned()), config.pin.clone(), own.clone()));
        let blocker = blocker.and_then(|made| made.map_err(|error| keep("blocking", error)).ok());

        let outbound_pin = config.pin.as_ref().map(|folder| folder.join("outbound"));
        let outbound =
            root.map(|root| OutboundGate::new(root.to_owned(), outbound_pin, config.boot, own.clone()));

        let aggregates = attached.objects.iter().find_map(|object| objects::map(object, "aggregates").ok());
        let shared = Arc::new(Shared::default());
        let (windows, asked) = channel();
        let reader = Reader {
            shared: Arc::clone(&shared),
            decoder,
            sink,
            captures,
            asked,
            counter: SyscallCounter::new(own.clone()),
            loads: ProgramLoads::new(own.clone()),
            aggregates: Aggregates::new(aggregates),
            blocker: blocker.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("davy-sensors".to_owned())
            .spawn(move || reader.run(&priority, &bulk))
            .during(|| "starting the sensors' thread".to_owned())?;
        Ok(Self {
            shared,
            thread: Some(thread),
            windows,
            losses,
            sampler: sampler.map(Mutex::new),
            hooks,
            blocker,
            outbound,
            cgroup2,
            faults,
            attached,
            own,
            gates: Mutex::default(),
            boot: config.boot,
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

    /// Counts a process's system calls for a window of at most five seconds. The result comes to the sink as
    /// [`davy_model::EventKind::Syscalls`]; a process that is gone, or ends in the window, gives none. At most 16
    /// windows are open at once; what is asked beyond that is dropped with a line in the log.
    ///
    /// # Errors
    /// When the sensors have stopped.
    pub fn count_syscalls(&self, process: ProcessKey, window: Duration) -> Result<()> {
        self.windows.send((process, window)).map_err(|_| Error::Stopped)
    }

    /// Closes and opens destinations; `None` where cgroup programs do not work.
    #[must_use]
    pub fn blocker(&self) -> Option<Blocker> {
        self.blocker.clone()
    }

    /// Decides who may connect to what; `None` where cgroup programs do not work. Nothing is loaded before it is told.
    #[must_use]
    pub fn outbound(&self) -> Option<OutboundGate> {
        self.outbound.clone()
    }

    /// Ends programs without a file in the cgroups that it is told then; detached when it is dropped.
    ///
    /// # Errors
    /// When the kernel refuses the program.
    pub fn nameless(&self) -> Result<Nameless> {
        Nameless::start(self.boot, &self.own)
    }

    /// Starts watches over who looks for open ports, now or later.
    #[must_use]
    pub fn port_watches(&self) -> PortWatchStarter {
        PortWatchStarter::new(self.own.clone())
    }

    /// Protects the agent from everyone outside its cgroup. Called again, it replaces what is protected.
    ///
    /// # Errors
    /// When the kernel takes no security programs, the agent has no cgroup of its own, or a table is full.
    pub fn guard_self(&self, guard: &SelfGuard) -> Result<()> {
        let unsupported = || Error::Unsupported("the kernel refuses security (LSM) programs".to_owned());
        let hooks = self.hooks.as_ref().ok_or_else(unsupported)?;
        let cgroup2 = self.cgroup2.as_deref();
        let cgroup2 = cgroup2.ok_or_else(|| Error::Unsupported("no cgroup v2 is mounted here".to_owned()))?;
        let mut sensing = ObjectIds {
            programs: self.attached.objects.iter().flat_map(program_ids).collect(),
            maps: self.attached.objects.iter().flat_map(map_ids).collect(),
            links: self
                .attached
                .links
                .iter()
                .filter_map(|link| link.info().ok().map(|info| info.id))
                .collect(),
        };
        sensing.extend(self.gates.lock().unwrap_or_else(PoisonError::into_inner).clone());
        hooks.lock().unwrap_or_else(PoisonError::into_inner).guard(guard, sensing, cgroup2)?;
        self.blocker.as_ref().map_or(Ok(()), |blocker| blocker.guard_with(Arc::clone(hooks)))?;
        self.outbound.as_ref().map_or(Ok(()), |outbound| outbound.guard_with(Arc::clone(hooks)))
    }

    /// The lanes, for another object to write to, and the programs that are known as Davy's.
    pub(crate) fn lanes(&self) -> Result<(Vec<MapHandle>, OwnPrograms)> {
        let process = self.attached.objects.first().ok_or(Error::Stopped)?;
        Ok((lanes_of(process)?, self.own.clone()))
    }

    /// Takes another's objects under the agent's protection, from the next [`Sensors::guard_self`] on.
    pub(crate) fn adopt(&self, ids: ObjectIds) {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
    }

    /// Acts against Davy that were refused since the last call, oldest first; at most 1,024 are kept.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refused> {
        std::mem::take(&mut *self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }

    /// Classes of sensors that did not start although their probe worked, with the reason. Empty is good.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
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
        let malformed = self.shared.malformed.load(Ordering::Relaxed);
        if malformed > 0 {
            drops.push(("record/malformed".to_owned(), malformed));
        }
        drops
    }
}

impl Drop for Sensors {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the sensors' thread had panicked");
        }
        if let Some(blocker) = &self.blocker {
            blocker.end();
        }
        if let Some(outbound) = &self.outbound {
            outbound.end();
        }
    }
}

/// What every object that writes records shares: both lanes first.
const LANES: [&str; 4] = ["priority_lane", "bulk_lane", "losses", "buckets"];

fn lanes_of(process: &Object) -> Result<Vec<MapHandle>> {
    LANES.iter().map(|name| objects::map(process, name)).collect()
}

fn start_processes(config: &SensorConfig, settings: &Settings) -> Result<(Object, Vec<Link>)> {
    let mut object = objects::PROCESS.open()?;
    for mut map in object.maps_mut() {
        let bytes = match map.name().to_str() {
            Some("priority_lane") => config.priority_bytes,
            Some("bulk_lane") => config.bulk_bytes,
            _ => continue,
        };
        map.set_max_entries(bytes).during(|| format!("sizing a lane to {bytes} bytes"))?;
    }
    objects::configure(&mut object, settings)?;
    // A kernel without modules has no such hook.
    let modules = objects::kernel_has_type("btf_trace_module_load");
    objects::select(&mut object, |name| name != "on_module" || modules);
    let object = objects::load(object, "process")?;
    let links = objects::attach_tracing(&object)?;
    Ok((object, links))
}

pub(crate) fn per_cpu_sum(map: &MapHandle, key: &[u8]) -> u64 {
    let values = map.lookup_percpu(key, MapFlags::ANY).ok().flatten().unwrap_or_default();
    values.iter().filter_map(|value| value.as_slice().try_into().ok().map(u64::from_ne_bytes)).sum()
}
