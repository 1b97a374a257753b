//! The thread that watches: it starts and ends the kernel's filter as the policy says, and asks the engine what follows.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use davy_kernel::{PortWatch, PortWatchStarter};
use davy_model::{Mode, Transport};
use davy_net::scans::{Scans, Settings};
use davy_policy::Policy;
use davy_proc::ProcFs;

use super::desk::PortScanDesk;
use crate::clock;
use crate::eyes::Every;
use crate::shared::{Input, Intake, lock};

/// How long it waits for something to be told, and how often it looks whether the policy wants it.
const WAIT: Duration = Duration::from_millis(250);

/// How often conclusions are drawn.
const CONCLUDE: Duration = Duration::from_millis(500);

/// How often the policy's lists and the losses are looked at.
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// How long until a filter that did not start is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// The running thread.
pub(crate) struct PortScanThread {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl PortScanThread {
    pub(super) fn start(
        starter: Option<PortWatchStarter>,
        desk: Arc<PortScanDesk>,
        intake: Intake,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("davy-portscans".to_owned())
            // The watch is read by the thread that made it.
            .spawn(move || Watching::new(starter, desk, intake).run(&heard))
            .context("cannot start the thread that watches for port scans")?;
        Ok(Self { thread, stop })
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the thread that watches for port scans had panicked");
        }
    }
}

struct Watching {
    starter: Option<PortWatchStarter>,
    desk: Arc<PortScanDesk>,
    intake: Intake,
    watch: Option<PortWatch>,
    settings: Settings,
    /// The number of the first scan that the next watch tells.
    first: u64,
    conclude: Every,
    look: Every,
    retry: Every,
}

impl Watching {
    fn new(starter: Option<PortWatchStarter>, desk: Arc<PortScanDesk>, intake: Intake) -> Self {
        Self {
            starter,
            desk,
            intake,
            watch: None,
            settings: Settings::default(),
            first: 1,
            conclude: Every::new(CONCLUDE),
            look: Every::new(LOOK_AROUND),
            retry: Every::new(AGAIN),
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let policy = lock(&self.intake.shared().rulebook).policy();
            self.follow(&policy);
            let Some(watch) = &mut self.watch else {
                std::thread::sleep(WAIT);
                continue;
            };
            let sights = watch.read(WAIT);
            if let Err(error) = watch.follow_interfaces() {
                tracing::warn!(
                    "port scans are not seen at all of this host's interfaces and addresses: {error}"
                );
            }
            if let Some(scans) = lock(&self.desk.scans).as_mut() {
                sights.iter().for_each(|sight| scans.observe(sight));
            }
            self.look_around(&policy);
            self.conclude();
        }
    }

    /// Begins to watch, or ends, as the policy says.
    fn follow(&mut self, policy: &Policy) {
        if policy.scans.mode == Mode::Off {
            self.watch = None;
            let ended = lock(&self.desk.scans).take();
            if let Some(scans) = ended {
                self.first = scans.next_number();
                for scan in scans.cut_short() {
                    self.intake.must(Input::PortScan(Box::new(scan)));
                }
            }
            *lock(&self.desk.fault) = None;
            self.retry = Every::new(AGAIN);
            return;
        }
        if self.watch.is_some() || !self.retry.due() {
            return;
        }
        let started = match &self.starter {
            Some(starter) => starter.start().map_err(|error| error.to_string()),
            None => Err("the kernel sensors do not run".to_owned()),
        };
        match started {
            Ok(watch) => {
                watch.adopt(talks());
                self.watch = Some(watch);
                self.settings = settings(policy);
                *lock(&self.desk.scans) = Some(Scans::new(self.settings.clone(), self.first, clock::now()));
                *lock(&self.desk.fault) = None;
            }
            Err(fault) => {
                if lock(&self.desk.fault).replace(fault.clone()).is_none() {
                    tracing::warn!("nobody watches for port scans: {fault}");
                }
            }
        }
    }

    /// Takes in what changes now and then: the policy's lists, and what was lost.
    fn look_around(&mut self, policy: &Policy) {
        if !self.look.due() {
            return;
        }
        let now = settings(policy);
        if now != self.settings {
            if let Some(scans) = lock(&self.desk.scans).as_mut() {
                scans.set(now.clone());
            }
            self.settings = now;
        }
        if let Some(watch) = &self.watch {
            *lock(&self.desk.losses) = watch.losses();
        }
    }

    fn conclude(&mut self) {
        if !self.conclude.due() {
            return;
        }
        let scans = lock(&self.desk.scans).as_mut().map(|scans| scans.conclude(clock::now()));
        for scan in scans.into_iter().flatten() {
            self.intake.must(Input::PortScan(Box::new(scan)));
        }
    }
}

/// What the policy says now.
fn settings(policy: &Policy) -> Settings {
    Settings {
        decoys: policy.scans.decoy_ports.clone(),
        ignore: policy.scans.ignored(clock::now()).collect(),
    }
}

/// With whom this host talks already: what of that is under way is no probe.
fn talks() -> impl Iterator<Item = (IpAddr, u16, u8)> {
    let own = std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |namespace| namespace.ino());
    let sockets = davy_proc::sockets::list_unowned(ProcFs::host());
    sockets.into_iter().filter(move |socket| !socket.listening && socket.namespace == own).map(|socket| {
        let protocol = match socket.transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        };
        (socket.remote.ip(), socket.local.port(), protocol)
    })
}
