//! The task that alone writes the ledger, so that nothing waits for a lock and a cancelled caller leaves no
//! half-written transaction.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use davy_model::{ActionRecord, Connection, Finding, FindingId, Incident, IncidentId, Timestamp};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use crate::{
    Error, PolicyEntry,
    error::Trouble,
    health::{Health, Part},
    ledger::Ledger,
    opening,
    room::Room,
};

/// Findings and incidents each that wait in memory for a disk with room; the oldest number goes first.
const MAX_HELD: usize = 1_024;
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What the writer is asked to do.
pub(crate) enum Entry {
    /// Write this and say what came of it.
    Write(Write, oneshot::Sender<Result<u64, Error>>),
    /// Write what waits and end.
    Close(oneshot::Sender<()>),
}

/// Everything that can be written to the ledger.
pub(crate) enum Write {
    Finding(Box<Finding>),
    Incident(Box<Incident>),
    /// A new line of the journal; answers its number.
    Record(Box<ActionRecord>),
    Change(Box<ActionRecord>),
    Count(String, i64),
    /// Answers the run's number.
    BeginRun {
        boot: u32,
        version: String,
        started: Timestamp,
    },
    EndRun(u64, Timestamp),
    Policy(Box<PolicyEntry>),
    /// Rows of the map of who talks to whom, and the numbers of those that are no more.
    Connections(Vec<Connection>, Vec<u64>),
    /// Answers how many records were forgotten.
    Maintain {
        before: Option<Timestamp>,
        max_bytes: u64,
        max_connections: u32,
    },
}

impl Write {
    /// Whether it may use up the reserves: the journal alone does.
    fn is_journal(&self) -> bool {
        matches!(self, Self::Record(_) | Self::Change(_))
    }

    async fn to(&self, ledger: &mut Ledger) -> Result<u64, Error> {
        match self {
            Self::Finding(finding) => ledger.put_finding(finding).await.map(|()| 0),
            Self::Incident(incident) => ledger.put_incident(incident).await.map(|()| 0),
            Self::Record(record) => ledger.record(record).await.map(|id| id.0),
            Self::Change(record) => ledger.change(record).await.map(|()| 0),
            Self::Count(name, add) => ledger.count(name, *add).await.map(|()| 0),
            Self::BeginRun { boot, version, started } => ledger.begin_run(*boot, version, *started).await,
            Self::EndRun(run, ended) => ledger.end_run(*run, *ended).await.map(|()| 0),
            Self::Policy(policy) => ledger.put_policy(policy).await.map(|()| 0),
            Self::Connections(rows, gone) => ledger.put_connections(rows, gone).await.map(|()| 0),
            Self::Maintain { before, max_bytes, max_connections } => {
                upkeep(ledger, *before, *max_bytes, *max_connections).await
            }
        }
    }
}

/// The writer's state.
pub(crate) struct LedgerWriter {
    ledger: Option<Ledger>,
    path: PathBuf,
    room: Room,
    health: Arc<Health>,
    findings: BTreeMap<FindingId, Box<Finding>>,
    incidents: BTreeMap<IncidentId, Box<Incident>>,
    retry: Duration,
    due: Option<Instant>,
}

impl LedgerWriter {
    pub(crate) fn new(ledger: Ledger, path: PathBuf, room: Room, health: Arc<Health>) -> Self {
        Self {
            ledger: Some(ledger),
            path,
            room,
            health,
            findings: BTreeMap::new(),
            incidents: BTreeMap::new(),
            retry: FIRST_RETRY,
            due: None,
        }
    }

    /// Works until told to close, or until nobody can ask any more.
    pub(crate) async fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        loop {
            let due = self.due;
            tokio::select! {
                entry = entries.recv() => match entry {
                    None => break,
                    Some(Entry::Close(done)) => {
                        self.write_held().await;
                        self.close().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(Entry::Write(write, answer)) => {
                        let _ = answer.send(self.take(write).await);
                    }
                },
                () = wait(due) => self.write_held().await,
            }
        }
        self.write_held().await;
        self.close().await;
    }

    async fn close(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            ledger.close().await;
        }
    }

    async fn take(&mut self, write: Write) -> Result<u64, Error> {
        let result = self.write(&write).await;
        match (write, result.is_ok()) {
            (Write::Finding(finding), true) => drop(self.findings.remove(&finding.id)),
            (Write::Finding(finding), false) => self.hold_finding(finding),
            (Write::Incident(incident), true) => drop(self.incidents.remove(&incident.id)),
            (Write::Incident(incident), false) => self.hold_incident(incident),
            (Write::Maintain { .. }, true) => self.room.ballast(),
            _ => {}
        }
        result
    }

    /// Writes, and deals with a full disk and a broken file on the way.
    async fn write(&mut self, write: &Write) -> Result<u64, Error> {
        let journal = write.is_journal();
        if !journal && !self.room.plenty() {
            let full = Error::Full { path: self.path.parent().unwrap_or(&self.path).into() };
            return Err(self.failing(full));
        }
        let mut result = write.to(self.ledger().await?).await;
        match result.as_ref().map_err(Error::trouble) {
            Err(Trouble::Full) if journal && self.room.release() => {
                self.health.notice("the disk is full: the journal goes on in its reserve".into());
                result = write.to(self.ledger().await?).await;
            }
            Err(Trouble::Corrupt) => {
                self.set_aside().await?;
                result = write.to(self.ledger().await?).await;
            }
            _ => {}
        }
        if result.is_ok() && !journal {
            self.health.failing(Part::Ledger, None);
        }
        result.map_err(|error| self.failing(error))
    }

    /// Remembers the fault and when to try again.
    fn failing(&mut self, error: Error) -> Error {
        self.health.failing(Part::Ledger, Some(error.to_string()));
        self.due = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(LAST_RETRY);
        error
    }

    async fn ledger(&mut self) -> Result<&mut Ledger, Error> {
        let ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => Ledger::open(&self.path).await?,
        };
        Ok(self.ledger.insert(ledger))
    }

    async fn set_aside(&mut self) -> Result<(), Error> {
        self.close().await;
        let aside = opening::set_aside(&self.path).map_err(|e| Error::io("set aside", &self.path, e))?;
        self.health.notice(format!(
            "{} was corrupt and is now {}; a new one was begun",
            self.path.display(),
            aside.display()
        ));
        Ok(())
    }

    fn hold_finding(&mut self, finding: Box<Finding>) {
        self.findings.insert(finding.id, finding);
        if self.findings.len() > MAX_HELD && self.findings.pop_first().is_some() {
            self.health.lose(1);
        }
    }

    fn hold_incident(&mut self, incident: Box<Incident>) {
        self.incidents.insert(incident.id, incident);
        if self.incidents.len() > MAX_HELD && self.incidents.pop_first().is_some() {
            self.health.lose(1);
        }
    }

    /// Writes what waited for room, until the first failure.
    async fn write_held(&mut self) {
        self.due = None;
        while let Some((_, finding)) = self.findings.pop_first() {
            if self.take(Write::Finding(finding)).await.is_err() {
                return;
            }
        }
        while let Some((_, incident)) = self.incidents.pop_first() {
            if self.take(Write::Incident(incident)).await.is_err() {
                return;
            }
        }
        self.retry = FIRST_RETRY;
    }
}

async fn wait(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Keeps the ledger within its bounds and its reserve in place; says how many records were forgotten.
async fn upkeep(
    ledger: &mut Ledger,
    before: Option<Timestamp>,
    max_bytes: u64,
    max_connections: u32,
) -> Result<u64, Error> {
    let mut forgotten = ledger.keep_connections(max_connections).await?;
    if let Some(before) = before {
        forgotten += ledger.forget_before(before).await?;
    }
    // Connections go first, half of them a round, for they can be seen again. A round after that takes a tenth, so that 32
    // leave 3 % of what was there.
    for _ in 0..64 {
        if ledger.fill().await?.used <= max_bytes {
            break;
        }
        let mut fewer = ledger.forget_half_of_connections().await?;
        if fewer == 0 {
            fewer = ledger.forget_oldest_tenth().await?;
        }
        match fewer {
            0 => break,
            more => forgotten += more,
        }
    }
    ledger.reserve(false).await?;
    Ok(forgotten)
}
