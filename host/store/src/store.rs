use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use davy_model::{
    ActionId, ActionRecord, Connection, Event, Finding, FindingId, Incident, IncidentId, Timestamp,
};
use davy_wire::StoreStatus;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    Clock, Error, Limits, PolicyEntry, Upkeep,
    clock::Steadiness,
    error::Trouble,
    event_writer::{EventWriter, Order},
    folder,
    health::{Health, Part},
    ledger::Ledger,
    ledger_writer::{Entry, LedgerWriter, Write},
    opening,
    room::Room,
};

/// Ledger entries that may wait; more callers wait with theirs.
const ENTRIES: usize = 256;
/// Queries that may read at once; more wait.
const READERS: usize = 4;
/// Part of the size bound that the ledger may fill.
const LEDGER_SHARE: u64 = 4;

/// The host's embedded database. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) folder: PathBuf,
    limits: Limits,
    clock: Clock,
    health: Arc<Health>,
    entries: mpsc::Sender<Entry>,
    orders: mpsc::Sender<Order>,
    batches: mpsc::UnboundedSender<Vec<Event>>,
    queued: Arc<AtomicUsize>,
    finding_ids: AtomicU64,
    incident_ids: AtomicU64,
    steadiness: Mutex<Steadiness>,
    pub(crate) readers: Semaphore,
}

impl Store {
    /// Opens the store in a folder, made with mode 0700 if missing. A broken `main.db` is set aside and begun
    /// anew; [`Store::notices`] tells of it.
    ///
    /// # Errors
    /// When the folder cannot be made, or no database can be opened in it for another reason than a broken file.
    pub async fn open(folder: &Path, limits: Limits) -> Result<Self, Error> {
        Self::open_with(folder, limits, Clock::system()).await
    }

    /// As [`Store::open`], going by the given clock.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(folder: &Path, limits: Limits, clock: Clock) -> Result<Self, Error> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| Error::io("make", folder, e))?;
        let health = Arc::new(Health::default());
        let room = Room::new(folder, limits.low_water);
        let path = folder.join(folder::LEDGER);
        let mut ledger = open_ledger(&path, &room, &health).await?;
        let (findings, incidents) = ledger.highest_ids().await?;
        if room.plenty() {
            if let Err(error) = ledger.reserve(true).await {
                health.failing(Part::Ledger, Some(error.to_string()));
            }
            room.ballast();
        }

        let (entries, entry_inbox) = mpsc::channel(ENTRIES);
        let (orders, order_inbox) = mpsc::channel(ENTRIES);
        // Unbounded in batches; bounded in events by `queued`, which `append` looks at first.
        let (batches, batch_inbox) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        tokio::spawn(LedgerWriter::new(ledger, path, room.clone(), health.clone()).run(entry_inbox));
        let writer =
            EventWriter::new(folder.into(), limits, clock.clone(), room, health.clone(), queued.clone());
        tokio::spawn(writer.run(order_inbox, batch_inbox));

        let shared = Shared {
            folder: folder.into(),
            limits,
            clock,
            health,
            entries,
            orders,
            batches,
            queued,
            finding_ids: AtomicU64::new(findings + 1),
            incident_ids: AtomicU64::new(incidents + 1),
            steadiness: Mutex::default(),
            readers: Semaphore::new(READERS),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Takes events in. Never waits: what does not fit into the queue is dropped and counted as lost. They are
    /// on the disk within a second.
    pub fn append(&self, mut events: Vec<Event>) {
        let shared = &self.shared;
        let taken = shared.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| {
            let room = shared.limits.queue_events.saturating_sub(queued);
            Some(queued + room.min(events.len()))
        });
        let before = taken.unwrap_or_default();
        let room = shared.limits.queue_events.saturating_sub(before).min(events.len());
        shared.health.lose((events.len() - room) as u64);
        events.truncate(room);
        if !events.is_empty()
            && let Err(unsent) = shared.batches.send(events)
        {
            shared.health.lose(unsent.0.len() as u64);
        }
    }

    /// Waits until all that was appended before is written.
    ///
    /// # Errors
    /// Why it cannot be written now; it goes on waiting in the queue.
    pub async fn flush(&self) -> Result<(), Error> {
        self.order(Order::Flush).await
    }

    /// A number for a new finding.
    #[must_use]
    pub fn new_finding_id(&self) -> FindingId {
        FindingId(self.shared.finding_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for a new incident.
    #[must_use]
    pub fn new_incident_id(&self) -> IncidentId {
        IncidentId(self.shared.incident_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Writes a finding, or its newer text.
    ///
    /// # Errors
    /// Why it is not written yet. It is kept in memory (1,024 of them, the oldest number goes first) and written
    /// when the disk allows, so there is nothing that the caller must do.
    pub async fn put_finding(&self, finding: &Finding) -> Result<(), Error> {
        self.write(Write::Finding(Box::new(finding.clone()))).await.map(drop)
    }

    /// Writes an incident, or its newer text.
    ///
    /// # Errors
    /// As [`Store::put_finding`].
    pub async fn put_incident(&self, incident: &Incident) -> Result<(), Error> {
        self.write(Write::Incident(Box::new(incident.clone()))).await.map(drop)
    }

    /// Writes a new line of the journal and gives it its number (`record.id` is not looked at). When this
    /// returns, the line survives a power failure. On a full disk it uses the reserve.
    ///
    /// # Errors
    /// Why the line is not written.
    pub async fn record(&self, record: &ActionRecord) -> Result<ActionId, Error> {
        self.write(Write::Record(Box::new(record.clone()))).await.map(ActionId)
    }

    /// Renews a line of the journal; as durable as [`Store::record`].
    ///
    /// # Errors
    /// Why the line is not written.
    pub async fn change(&self, record: &ActionRecord) -> Result<(), Error> {
        self.write(Write::Change(Box::new(record.clone()))).await.map(drop)
    }

    /// Adds to a counter that outlives the agent.
    ///
    /// # Errors
    /// Why it is not written.
    pub async fn count(&self, name: &str, add: i64) -> Result<(), Error> {
        self.write(Write::Count(name.into(), add)).await.map(drop)
    }

    /// Notes that an agent started, and gives the run its number.
    ///
    /// # Errors
    /// Why it is not written.
    pub async fn begin_run(&self, boot: u32, version: &str) -> Result<u64, Error> {
        self.write(Write::BeginRun { boot, version: version.into(), started: self.shared.clock.now() }).await
    }

    /// Notes that an agent ended in order.
    ///
    /// # Errors
    /// Why it is not written.
    pub async fn end_run(&self, run: u64) -> Result<(), Error> {
        self.write(Write::EndRun(run, self.shared.clock.now())).await.map(drop)
    }

    /// Notes a policy that was put in force or refused.
    ///
    /// # Errors
    /// Why it is not written.
    pub async fn put_policy(&self, policy: &PolicyEntry) -> Result<(), Error> {
        self.write(Write::Policy(Box::new(policy.clone()))).await.map(drop)
    }

    /// Writes rows of the map of who talks to whom, or their newer text, and removes those with the numbers `gone`: all of it or
    /// nothing.
    ///
    /// # Errors
    /// Why nothing is written; nothing is kept for later.
    pub async fn put_connections(&self, rows: Vec<Connection>, gone: Vec<u64>) -> Result<(), Error> {
        self.write(Write::Connections(rows, gone)).await.map(drop)
    }

    /// How the store stands. Whether its folder is where it should be is the caller's to know.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let Shared { folder, limits, health, .. } = &*self.shared;
        StoreStatus {
            path: folder.display().to_string(),
            bytes: folder::bytes(folder).unwrap_or(0),
            max_bytes: limits.max_bytes,
            events: health.events(),
            lost: health.lost(),
            failing: health.fault(),
            temporary: None,
        }
    }

    /// What happened to the store that people should know, such as a broken file that was set aside. Each is
    /// told once; the last 64 are kept.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        self.shared.health.take_notices()
    }

    /// Applies the bounds of age and size and renews the reserves. To be called about once a minute. Nothing goes
    /// by age until the wall clock has run for an hour without a jump.
    ///
    /// # Errors
    /// Why it could not be done.
    pub async fn maintain(&self) -> Result<Upkeep, Error> {
        let Shared { clock, limits, .. } = &*self.shared;
        let now = clock.now();
        let believed = self
            .shared
            .steadiness
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .observe(now, clock.steady());
        let age = f64::from(limits.max_age_days) * 86_400.0;
        let before: Option<Timestamp> = believed.then(|| now.plus_secs(-age));
        let max_bytes = limits.max_bytes / LEDGER_SHARE;
        let max_connections = limits.max_connections;
        let records = self.write(Write::Maintain { before, max_bytes, max_connections }).await;
        let events = self.order(|answer| Order::Maintain { before, answer }).await?;
        Ok(Upkeep { events, records: records?, before })
    }

    /// Writes what waits and closes the files. Clones of this store can do nothing afterwards.
    pub async fn close(self) {
        let (done, written) = oneshot::channel();
        if self.shared.orders.send(Order::Close(done)).await.is_ok() {
            let _ = written.await;
        }
        let (done, written) = oneshot::channel();
        if self.shared.entries.send(Entry::Close(done)).await.is_ok() {
            let _ = written.await;
        }
    }

    async fn write(&self, write: Write) -> Result<u64, Error> {
        let (answer, result) = oneshot::channel();
        self.shared.entries.send(Entry::Write(write, answer)).await.map_err(|_| Error::Closed)?;
        result.await.map_err(|_| Error::Closed)?
    }

    async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Order,
    ) -> Result<T, Error> {
        let (answer, result) = oneshot::channel();
        self.shared.orders.send(order(answer)).await.map_err(|_| Error::Closed)?;
        result.await.map_err(|_| Error::Closed)?
    }
}

/// Opens the ledger whatever state it is in: a broken one is set aside, and a full disk gets the ballast back.
async fn open_ledger(path: &Path, room: &Room, health: &Health) -> Result<Ledger, Error> {
    let mut opened = Ledger::open(path).await;
    if opened.as_ref().is_err_and(|error| error.trouble() == Trouble::Full) && room.release() {
        opened = Ledger::open(path).await;
    }
    match opened {
        Err(error) if error.trouble() == Trouble::Corrupt => {
            let aside = opening::set_aside(path).map_err(|e| Error::io("set aside", path, e))?;
            health.notice(format!(
                "{} was corrupt ({error}) and is now {}; a new one was begun",
                path.display(),
                aside.display()
            ));
            Ledger::open(path).await
        }
        opened => opened,
    }
}
