//! Starts everything, waits, and takes everything down again in the right order.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use davy_detect::{Detector, Settings};
use davy_model::{ActionState, Capability, Probe};
use davy_policy::Policy;
use davy_respond::{Responder, ResponderConfig};
use davy_store::{Limits, Store};
use tokio::sync::Notify;

use crate::alarm::Alarm;
use crate::answer::Desk;
use crate::arbiter::{Arbiter, Firewall, Order};
use crate::banner;
use crate::bans::BansDesk;
use crate::block::{KernelBlock, Shareable};
use crate::canary::Prover;
use crate::clock;
use crate::connections::Connections;
use crate::control::Sockets;
use crate::engine::{Engine, Live, Rhythm};
use crate::eyes::{Eyes, EyesConfig};
use crate::instance::Instance;
use crate::keeper::Keeper;
use crate::lateral::LateralWatch;
use crate::lists;
use crate::outbound::{OutboundDesk, OutboundTeller, OutboundThread};
use crate::port_scans::{PortScanTeller, PortScanThread};
use crate::ports::{PortsDesk, PortsThread};
use crate::probing::{file_systems, probe, prove, works};
use crate::recent::Recent;
use crate::remains::{Remains, pins};
use crate::rulebook::Rulebook;
use crate::scan::ScanThread;
use crate::services::{Bind, ServiceDesk, ServiceWatch};
use crate::shared::{Counters, Input, Intake, QUEUE, Shared, lock};
use crate::state::{self, State};
use crate::stops::Stops;
use crate::trust::{self, TrustThread};
use crate::{Paths, inspection, left, own, port_scans, protections, scan, service};

/// How many orders may wait for the arbiter.
const ORDERS: usize = 1024;

/// How many live events and findings a slow follower may fall behind before it misses some.
const LIVE_EVENTS: usize = 4096;
const LIVE_FINDINGS: usize = 512;

/// How many of the newest lines of the journal are searched for what was undone.
const UNDONE_LOOKED_AT: u32 = 1000;

/// How often the store looks after its bounds.
const MAINTAIN: Duration = Duration::from_secs(60);

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Where it keeps its things.
    pub paths: Paths,
    /// Whether it says to the terminal what it watches and how to look (`davy run`).
    pub foreground_banner: bool,
    /// Whether what it enforces outlives it, until `davy stop` (`davy agent`).
    pub pin: bool,
}

/// How an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By a signal; what is pinned stays.
    Signal,
    /// By `davy stop`; what was enforced is taken away.
    Ordered,
}

/// Runs an agent until it is told to stop by `davy stop`, SIGINT or SIGTERM.
///
/// # Errors
/// When another agent holds the folders, a folder or socket cannot be made, or the store cannot be opened. What the
/// kernel refuses is no error: the agent runs in a lower tier and says so.
pub fn run(options: AgentOptions) -> Result<Ending> {
    davy_proc::keep_one_heap();
    let instance = Instance::claim(&options.paths)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("davy-runtime")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(live(&options));
    // Whoever still asks holds what is asked.
    runtime.shutdown_timeout(Duration::from_secs(2));
    if let Ok(End { events, remains: Some(remains), .. }) = &outcome {
        banner::farewell(*events, &remains.look());
    }
    drop(instance);
    outcome.map(|end| end.ending)
}

/// How an agent ended, and what there is to be told of it.
struct End {
    ending: Ending,
    events: u64,
    /// What to look for, where somebody is told.
    remains: Option<Remains>,
}

async fn live(options: &AgentOptions) -> Result<End> {
    let mut stops = Stops::listen()?;
    let State { folder, temporary } = State::take(&options.paths)?;
    let paths = &Paths { state: folder, ..options.paths.clone() };
    let started = clock::now();
    let rulebook = Rulebook::open(paths, started);
    let policy = rulebook.policy();
    let limits = limits(&policy, temporary.is_some());
    let store = Store::open(&paths.state.join("store"), limits).await.context("cannot open the store")?;
    if let Err(e) = left::end(&store, started).await {
        tracing::warn!("incidents of an earlier agent still stand as running: {e}");
    }
    let facts = davy_proc::HostFacts::gather();
    let run = store.begin_run(facts.boot, env!("CARGO_PKG_VERSION")).await.ok();
    let context =
        davy_kernel::ProbeContext { cgroup2: facts.cgroup2.clone(), ..davy_kernel::ProbeContext::default() };
    let mut probes = tokio::task::block_in_place(|| probe(&context));

    let shared = Arc::new(Shared {
        started,
        probes: Mutex::new(probes.clone()),
        counters: Counters::default(),
        sensor_drops: Mutex::default(),
        rulebook: Mutex::new(rulebook),
        standing: Mutex::default(),
        isolated: Mutex::default(),
        blocked: Mutex::default(),
        recent: Recent::default(),
        running: Mutex::default(),
        last_canary: Mutex::default(),
        last_drill: Mutex::default(),
    });
    let (inputs, waiting) = sync_channel(QUEUE);
    let intake = Intake::new(inputs, Arc::clone(&shared));
    let (orders, ordered) = sync_channel(ORDERS);
    let live = Live::new(LIVE_EVENTS, LIVE_FINDINGS);
    let keeper = Keeper::new(store.clone());

    let eyes_config = EyesConfig {
        file_events: policy.sensors.file_events,
        cgroup2: facts.cgroup2.clone(),
        pin: pin_folder(options, &probes),
    };
    let (captures, worker, inspector) = if works(&probes, Capability::CgroupBpf) {
        let (captures, worker, thread) = inspection::start(worker_recipe(&policy), intake.clone())?;
        (captures, Some(worker), Some(thread))
    } else {
        // Without programs on sockets nothing is captured.
        (Box::new(drop) as davy_kernel::CaptureSink, None, None)
    };
    let eyes = tokio::task::block_in_place(|| Eyes::open(&eyes_config, &probes, &intake, captures));
    probes.push(file_systems(&eyes));
    let services = Arc::new(ServiceDesk::open(paths.state.join("services.json"), Arc::clone(&shared)));
    let ports = Arc::new(PortsDesk::open(paths, Arc::clone(&shared), options.pin));
    let bans = Arc::new(BansDesk::open(paths, options.pin));
    let trust =
        trust::open(paths, &eyes, &intake, &services, facts.cgroup2.clone(), eyes_config.pin, &mut probes)?;
    *lock(&shared.probes) = probes.clone();
    let outbound = Arc::new(OutboundDesk::new(eyes.outbound(), Arc::clone(&shared)));
    let scan = scan::start(paths, &intake)?;
    let port_scans = port_scans::start(eyes.port_watches(), &intake)?;
    let mut notes = eyes.notes.clone();
    for (protection, note) in &notes {
        tracing::warn!("{protection}: {note}");
    }
    let blocker = eyes.blocker();
    let block = KernelBlock::new(blocker.clone(), facts.cgroup2.clone());
    let responder = Responder::new(
        ResponderConfig {
            no_quarantine: temporary.as_ref().map(|why| {
                format!("{why}, so the file would be lost at the next reboot; it stays where it is")
            }),
            ..ResponderConfig::new(paths.state.clone(), facts.cgroup2.clone())
        },
        Some(Box::new(Shareable(Arc::clone(&block)))),
    )
    .context("cannot open the quarantine")?;
    // Its folders are all there by now.
    let lsm = works(&probes, Capability::LsmBpf);
    if let (true, Some(cgroup2)) = (lsm, &facts.cgroup2)
        && let Err(e) = eyes.guard(&own::guard(paths, cgroup2))
    {
        notes.push(("tampering", format!("the agent does not protect itself: {e}")));
    }

    let (lists, faults) = lists::load(&policy, &paths.config);
    notes.extend(lists::notes(&faults));
    let mut detector = Detector::new(settings(&policy), lists);
    if let Some(own) = davy_proc::key(std::process::id()) {
        detector.guard(own);
    }
    let kept = store.connections(limits.max_connections).await.context("cannot read who talked to whom")?;
    let engine = Engine {
        detector,
        eyes,
        shared: Arc::clone(&shared),
        keeper: keeper.clone(),
        arbiter: orders.clone(),
        live: live.clone(),
        store: store.clone(),
        rhythm: Rhythm::default(),
        batch: Vec::new(),
        held: std::collections::VecDeque::new(),
        incident_of: std::collections::BTreeMap::new(),
        users: davy_proc::Users::new(),
        sights: trust.sights,
        services: ServiceWatch::new(Arc::clone(&services), Bind::new(trust.gate.clone())),
        ports: Arc::clone(&ports),
        scans: scan.sights,
        outbound: OutboundTeller::new(Arc::clone(&outbound)),
        lateral: LateralWatch::new(&kept, clock::now(), Arc::clone(&shared)),
        connections: Connections::new(kept),
        port_scans: PortScanTeller::default(),
        alarm: Alarm::resume(&store).await.context("cannot read the incidents")?,
    };
    let mut arbiter = Arbiter::new(
        Arc::clone(&shared),
        store.clone(),
        tokio::runtime::Handle::current(),
        responder,
        block,
        intake.clone(),
        Firewall { ports: Arc::clone(&ports), bans: Arc::clone(&bans) },
    );
    let mut journal = store.open_actions().await.context("cannot read the journal")?;
    let undone = store.actions(UNDONE_LOOKED_AT).await.context("cannot read the journal")?;
    journal.extend(undone.into_iter().filter(|r| r.state == ActionState::Undone));
    let sockets = Sockets::bind(paths)?;
    let threads = Threads {
        engine: std::thread::Builder::new()
            .name("davy-engine".to_owned())
            .spawn(move || engine.run(&waiting))?,
        arbiter: std::thread::Builder::new().name("davy-arbiter".to_owned()).spawn(move || {
            arbiter.take_over(journal);
            arbiter.run(&ordered);
        })?,
        inspector,
        trust: trust.thread,
        scan: scan.thread,
        outbound: OutboundThread::start(Arc::clone(&outbound), intake.clone())?,
        ports: PortsThread::start(Arc::clone(&ports), intake.clone(), orders.clone())?,
        port_scans: port_scans.thread,
        prover: Prover::start(Arc::clone(&shared), orders.clone(), intake.clone())?,
        intake: intake.clone(),
        orders: orders.clone(),
    };

    let cgroup2 = facts.cgroup2.clone();
    let stop = Arc::new(Notify::new());
    let looked_after = intake.clone();
    let desk = Arc::new(Desk {
        shared: Arc::clone(&shared),
        store: store.clone(),
        intake,
        arbiter: orders,
        live,
        canary: threads.prover.poke(),
        stop: Arc::clone(&stop),
        facts,
        worker,
        notes: notes.clone(),
        temporary: temporary.clone(),
        trust: trust.desk,
        services,
        outbound: Arc::clone(&outbound),
        scan: scan.desk,
        ports: Arc::clone(&ports),
        bans: Arc::clone(&bans),
        port_scans: port_scans.desk,
    });
    service::ready();
    if options.foreground_banner {
        banner::print(
            paths,
            &protections::all(&policy, &probes, &notes, None),
            &probes,
            temporary.as_deref(),
        );
    }
    let canary = threads.prover.poke();
    let mut ending = Ending::Signal;
    tokio::select! {
        // An order that comes with a signal is more than that: it takes away what a restart would leave.
        biased;
        () = stop.notified() => ending = Ending::Ordered,
        () = stops.wait(&shared, &canary, &outbound) => {}
        () = sockets.serve(desk) => {}
        () = keeper.clone().keep() => {}
        () = maintain(&store, &looked_after) => {}
        () = prove(&shared, &context) => {}
        () = service::feed_watchdog(Arc::clone(&shared)) => {}
    }
    service::stopping();
    let remains = options
        .foreground_banner
        .then(|| tokio::task::block_in_place(|| Remains::of_running(paths, cgroup2)));
    drop(sockets);
    tokio::task::block_in_place(|| threads.stop());
    ports.end(ending == Ending::Ordered);
    bans.end(ending == Ending::Ordered);
    // A signal may be a restart, and then what is pinned bridges it. An order to stop means it.
    if let (Ending::Ordered, Some(blocker)) = (ending, blocker)
        && let Err(e) = blocker.release()
    {
        tracing::error!("what was blocked could not be opened again: {e}");
    }
    if ending == Ending::Ordered {
        outbound.release();
    }
    if let (Ending::Ordered, Some(gate)) = (ending, trust.gate)
        && let Err(e) = gate.unpin()
    {
        tracing::error!("the kernel goes on judging code: {e}");
    }
    keeper.flush().await;
    if let Some(run) = run
        && let Err(e) = store.end_run(run).await
    {
        tracing::warn!("the end could not be written down: {e}");
    }
    store.close().await;
    Ok(End { ending, events: shared.counters.events.load(Ordering::Relaxed), remains })
}

/// The threads beside the runtime.
struct Threads {
    engine: JoinHandle<()>,
    arbiter: JoinHandle<()>,
    inspector: Option<JoinHandle<()>>,
    trust: TrustThread,
    scan: ScanThread,
    outbound: OutboundThread,
    ports: PortsThread,
    port_scans: PortScanThread,
    prover: Prover,
    intake: Intake,
    orders: SyncSender<Order>,
}

impl Threads {
    /// Ends the arbiter first, and before it who waits for it, so that nothing acts any more, and then the engine, which lets go of the sensors.
    fn stop(self) {
        self.prover.stop();
        self.trust.stop();
        self.scan.stop();
        self.outbound.stop();
        self.ports.stop();
        self.port_scans.stop();
        let _ = self.orders.send(Order::Stop);
        // The arbiter may be telling the engine what it did, so the engine runs until the arbiter is gone.
        if self.arbiter.join().is_err() {
            tracing::error!("the arbiter had panicked");
        }
        self.intake.must(Input::Stop);
        if self.engine.join().is_err() {
            tracing::error!("the engine had panicked");
        }
        // The sensors went with the engine, and the last capture with them.
        if self.inspector.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the inspect worker had panicked");
        }
    }
}

/// Keeps the store within its bounds, for ever.
async fn maintain(store: &Store, intake: &Intake) {
    loop {
        for notice in store.notices() {
            tracing::warn!("{notice}");
        }
        tokio::time::sleep(MAINTAIN).await;
        match store.maintain().await {
            // The queue may be full, and waiting for room must not hold up the runtime.
            Ok(upkeep) => drop(
                upkeep
                    .before
                    .map(|before| tokio::task::block_in_place(|| intake.must(Input::Forget(before)))),
            ),
            Err(e) => tracing::warn!("the store could not be looked after: {e}"),
        }
    }
}

/// Where enforcement is kept when the agent goes, so that a restart or an upgrade leaves no gap: only for a service, and
/// only where a BPF file system is mounted. Nothing is there before something is enforced, which a policy may want that is
/// read later. Each base folder has its own.
fn pin_folder(options: &AgentOptions, probes: &[Probe]) -> Option<PathBuf> {
    let mounted = probes.iter().any(|p| p.capability == Capability::BpfFs && p.works);
    (options.pin && mounted).then(|| pins(&options.paths))
}

fn limits(policy: &Policy, in_memory: bool) -> Limits {
    let usual = Limits {
        max_bytes: policy.store.max_size,
        queue_events: QUEUE,
        max_connections: u32::try_from(davy_net::map::MAX_ROWS).unwrap_or(u32::MAX),
        max_age_days: u32::try_from(policy.store.max_age.as_secs() / 86_400).unwrap_or(u32::MAX).max(1),
        ..Limits::default()
    };
    if in_memory { state::in_memory(usual) } else { usual }
}

fn settings(policy: &Policy) -> Settings {
    Settings {
        max_processes: policy.sensors.processes as usize,
        max_flows: policy.sensors.flows as usize,
        ..Settings::default()
    }
}

fn worker_recipe(policy: &Policy) -> inspection::Recipe {
    let sensors = &policy.sensors;
    inspection::Recipe::new(sensors.capture, sensors.flows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_bound_of_the_policy_reaches_the_engine_and_the_store() {
        let text = "[sensors]\ncapture = \"512B\"\nprocesses = 5000\nflows = 6000\n[store]\nmax_size = \"64MiB\"\nmax_age = \"3d\"\n";
        let policy = Policy::parse("p.toml", text).unwrap();
        let engine = settings(&policy);
        assert_eq!((engine.max_processes, engine.max_flows), (5000, 6000));
        let recipe = worker_recipe(&policy);
        assert_eq!((recipe.head_bytes, recipe.flows), (512, 6000));
        let store = limits(&policy, false);
        assert_eq!((store.max_bytes, store.max_age_days), (64 << 20, 3));
    }
}
