//! The task that alone writes the day files and keeps them within their bounds.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use davy_model::{Event, Timestamp};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use crate::{
    Clock, Error, Limits,
    day::Day,
    day_file::DayFile,
    error::Trouble,
    folder,
    health::{Health, Part},
    opening,
    programs::Programs,
    room::Room,
    row::Row,
};

/// Events of one transaction.
const BATCH: usize = 4_096;
/// How long a few events wait for more before they are written: each transaction has its price, on a quiet host too.
const LINGER: Duration = Duration::from_millis(500);
/// How often the size is looked at, and after how many events anyway: about a megabyte.
const CHECK: Duration = Duration::from_secs(10);
const CHECK_EVENTS: u64 = 8_192;
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What the writer is told besides events.
pub(crate) enum Order {
    /// Write everything that was appended before.
    Flush(oneshot::Sender<Result<(), Error>>),
    /// Apply the bounds; days that ended before the moment go by age. Answers how many events went.
    Maintain { before: Option<Timestamp>, answer: oneshot::Sender<Result<u64, Error>> },
    /// Write everything and end.
    Close(oneshot::Sender<()>),
}

/// The writer's state.
pub(crate) struct EventWriter {
    folder: PathBuf,
    limits: Limits,
    clock: Clock,
    room: Room,
    health: Arc<Health>,
    /// Events that were taken in and are not yet written, here and in the channel.
    queued: Arc<AtomicUsize>,
    waiting: Vec<Event>,
    programs: Programs,
    file: Option<DayFile>,
    /// Events in each day's file.
    counts: BTreeMap<Day, u64>,
    retry: Duration,
    due: Option<Instant>,
    checked: Option<Instant>,
    /// Events written since then.
    unchecked: u64,
}

impl EventWriter {
    pub(crate) fn new(
        folder: PathBuf,
        limits: Limits,
        clock: Clock,
        room: Room,
        health: Arc<Health>,
        queued: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            folder,
            limits,
            clock,
            room,
            health,
            queued,
            waiting: Vec::new(),
            programs: Programs::default(),
            file: None,
            counts: BTreeMap::new(),
            retry: FIRST_RETRY,
            due: None,
            checked: None,
            unchecked: 0,
        }
    }

    /// Works until told to close, or until nobody can append any more.
    pub(crate) async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        mut batches: mpsc::UnboundedReceiver<Vec<Event>>,
    ) {
        self.count_all().await;
        loop {
            let due = self.due;
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Order::Flush(answer)) => {
                        let _ = answer.send(self.flush(&mut batches).await);
                    }
                    Some(Order::Maintain { before, answer }) => {
                        let _ = answer.send(self.keep_bounds(before, true).await);
                    }
                    Some(Order::Close(done)) => {
                        self.end(&mut batches).await;
                        let _ = done.send(());
                        return;
                    }
                    None => {
                        self.end(&mut batches).await;
                        return;
                    }
                },
                () = wait(due) => { let _ = self.write().await; }
                batch = batches.recv(), if self.waiting.len() < BATCH => match batch {
                    Some(batch) => self.take(batch),
                    None => { self.end(&mut batches).await; return; }
                },
            }
        }
    }

    fn take(&mut self, batch: Vec<Event>) {
        self.waiting.extend(batch);
        let now = Instant::now();
        // A failing disk keeps its own pace.
        if self.retry == FIRST_RETRY {
            let due = if self.waiting.len() >= BATCH { now } else { now + LINGER };
            self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
        }
    }

    async fn flush(&mut self, batches: &mut mpsc::UnboundedReceiver<Vec<Event>>) -> Result<(), Error> {
        loop {
            while self.waiting.len() < BATCH {
                let Ok(batch) = batches.try_recv() else { break };
                self.waiting.extend(batch);
            }
            if self.waiting.is_empty() {
                return Ok(());
            }
            self.write().await?;
        }
    }

    async fn end(&mut self, batches: &mut mpsc::UnboundedReceiver<Vec<Event>>) {
        let written = self.flush(batches).await;
        if written.is_err() {
            while let Ok(batch) = batches.try_recv() {
                self.waiting.extend(batch);
            }
            self.health.lose(self.waiting.len() as u64);
        }
        if let Some(file) = self.file.take() {
            file.close().await;
        }
    }

    /// Writes what waits. On failure it goes on waiting, and the next try comes later.
    async fn write(&mut self) -> Result<(), Error> {
        self.due = None;
        let result = self.write_by_day().await;
        match &result {
            Ok(()) => {
                self.health.failing(Part::Events, None);
                self.retry = FIRST_RETRY;
            }
            Err(error) => {
                self.health.failing(Part::Events, Some(error.to_string()));
                self.due = Some(Instant::now() + self.retry);
                self.retry = (self.retry * 2).min(LAST_RETRY);
            }
        }
        result
    }

    async fn write_by_day(&mut self) -> Result<(), Error> {
        if !self.room.plenty() {
            return Err(Error::Full { path: self.folder.clone() });
        }
        let today = Day::of(self.clock.now());
        while !self.waiting.is_empty() {
            // The run of events at the front that belong into one file, so that their order stays.
            let day = self.filed_under(self.waiting[0].time, today);
            let run = self.waiting.iter().take_while(|event| self.filed_under(event.time, today) == day);
            let run = run.take(BATCH).count();
            self.append(day, run).await?;
            self.waiting.drain(..run);
            self.queued.fetch_sub(run, Ordering::Relaxed);
            self.unchecked += run as u64;
        }
        if self.unchecked >= CHECK_EVENTS || self.checked.is_none_or(|checked| checked.elapsed() > CHECK) {
            self.checked = Some(Instant::now());
            self.unchecked = 0;
            self.keep_bounds(None, false).await?;
        }
        Ok(())
    }

    /// An event goes to its own day; one whose time cannot be right goes to today's.
    fn filed_under(&self, time: Timestamp, today: Day) -> Day {
        let day = Day::of(time);
        let oldest = Day(today.0.saturating_sub(i64::from(self.limits.max_age_days)));
        if day < oldest || day > Day(today.0.saturating_add(1)) { today } else { day }
    }

    async fn append(&mut self, day: Day, count: usize) -> Result<(), Error> {
        let mut rows = Vec::with_capacity(count);
        for event in &self.waiting[..count] {
            let path = self.programs.learn(event);
            match Row::of(event) {
                Ok(row) => rows.push((row, path)),
                Err(error) => {
                    tracing::error!(%error, "an event cannot be written");
                    self.health.lose(1);
                }
            }
        }
        let file = self.file(day).await?;
        let mut result = file.append(&rows).await;
        if result.as_ref().is_err_and(|error| error.trouble() == Trouble::Corrupt) {
            self.set_aside(day).await?;
            result = self.file(day).await?.append(&rows).await;
        }
        result?;
        *self.counts.entry(day).or_default() += rows.len() as u64;
        self.tell_count();
        Ok(())
    }

    /// The file of a day, opened when another was open before.
    async fn file(&mut self, day: Day) -> Result<&mut DayFile, Error> {
        let file = match self.file.take() {
            Some(file) if file.day == day => file,
            other => {
                if let Some(other) = other {
                    other.close().await;
                }
                match DayFile::open(&self.folder, day).await {
                    Err(error) if error.trouble() == Trouble::Corrupt => {
                        self.set_aside(day).await?;
                        DayFile::open(&self.folder, day).await?
                    }
                    opened => opened?,
                }
            }
        };
        Ok(self.file.insert(file))
    }

    async fn set_aside(&mut self, day: Day) -> Result<(), Error> {
        if let Some(file) = self.file.take() {
            file.close().await;
        }
        let path = self.folder.join(day.file_name());
        let aside = opening::set_aside(&path).map_err(|e| Error::io("set aside", &path, e))?;
        self.counts.remove(&day);
        self.tell_count();
        self.health.notice(format!("{} was corrupt and is now {}", path.display(), aside.display()));
        Ok(())
    }

    /// Brings everything under the bounds: by age whole days, by size the oldest first.
    async fn keep_bounds(&mut self, before: Option<Timestamp>, shrink: bool) -> Result<u64, Error> {
        let mut gone = 0;
        if let Some(before) = before {
            for (day, path) in folder::days(&self.folder)? {
                if day.end() <= before {
                    gone += self.remove(day, &path).await?;
                }
            }
        }
        while folder::settled_bytes(&self.folder)? > self.limits.settled_bytes() {
            match self.make_room(shrink).await? {
                Some(events) => gone += events,
                None => break,
            }
        }
        Ok(gone)
    }

    /// Takes away what is oldest; `None` when nothing more can go.
    async fn make_room(&mut self, shrink: bool) -> Result<Option<u64>, Error> {
        if let Some(aside) = folder::oldest_set_aside(&self.folder)? {
            opening::remove(&aside).map_err(|e| Error::io("remove", &aside, e))?;
            self.health.notice(format!("{} was removed to keep the store's bound", aside.display()));
            return Ok(Some(0));
        }
        let today = Day::of(self.clock.now());
        let mut days = folder::days(&self.folder)?;
        // A file dated later than tomorrow was written while the clock was wrong; its real age is unknown and
        // it goes before all others.
        days.sort_by_key(|(day, _)| (*day <= Day(today.0.saturating_add(1)), *day));
        let Some((day, path)) = days.first().cloned() else { return Ok(None) };
        if days.len() > 1 {
            return self.remove(day, &path).await.map(Some);
        }
        let max = self.limits.settled_bytes();
        let on_disk = fs::metadata(&path).map_or(0, |meta| meta.len());
        let others = folder::settled_bytes(&self.folder)?.saturating_sub(on_disk);
        let file = self.file(day).await?;
        // Pages that were freed are used again by the next events, so only those in use count.
        if others + file.used().await? <= max {
            if shrink {
                file.shrink().await?;
            }
            return Ok(None);
        }
        let gone = file.forget_oldest().await?;
        let count = self.counts.entry(day).or_default();
        *count = count.saturating_sub(gone);
        self.tell_count();
        Ok((gone > 0).then_some(gone))
    }

    async fn remove(&mut self, day: Day, path: &std::path::Path) -> Result<u64, Error> {
        if self.file.as_ref().is_some_and(|file| file.day == day)
            && let Some(file) = self.file.take()
        {
            file.close().await;
        }
        opening::remove(path).map_err(|e| Error::io("remove", path, e))?;
        let gone = self.counts.remove(&day).unwrap_or(0);
        self.tell_count();
        Ok(gone)
    }

    async fn count_all(&mut self) {
        let Ok(days) = folder::days(&self.folder) else { return };
        for (day, _) in days {
            // Opening brings the schema up to date and finds a broken file early.
            if let Ok(file) = self.file(day).await
                && let Ok(events) = file.events().await
            {
                self.counts.insert(day, events);
            }
        }
        self.tell_count();
    }

    fn tell_count(&self) {
        self.health.set_events(self.counts.values().sum());
    }
}

async fn wait(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
