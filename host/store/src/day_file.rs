//! One day's events and their roll-ups.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use davy_model::Timestamp;
use sqlx::{Connection, QueryBuilder, Sqlite, SqliteConnection};

use crate::{
    Error,
    day::{Day, hour_start},
    opening::{self, Purpose},
    row::Row,
    schema::DAY_MIGRATOR,
};

/// Rows of one INSERT. A fixed number keeps its statement prepared.
const ROWS: usize = 256;

/// Different kinds and paths rolled up for one hour; more are counted under [`OTHER_PATHS`], so that a flood of
/// random program names cannot grow the table.
const MAX_ROLLUPS_AN_HOUR: usize = 4_096;

/// The path that stands for all paths beyond the bound.
pub(crate) const OTHER_PATHS: &str = "(others)";

/// The writing end of one day's file.
pub(crate) struct DayFile {
    pub(crate) day: Day,
    pub(crate) path: PathBuf,
    connection: SqliteConnection,
    kinds: HashMap<String, i64>,
    /// The roll-ups that exist in the hours written to last.
    known: HashMap<i64, HashSet<(i64, String)>>,
}

impl DayFile {
    pub(crate) async fn open(folder: &Path, day: Day) -> Result<Self, Error> {
        let path = folder.join(day.file_name());
        let mut connection = opening::writer(&path, Purpose::Day, &DAY_MIGRATOR).await?;
        let kinds: Vec<(String, i64)> = sqlx::query_as("SELECT name, id FROM kind")
            .fetch_all(&mut connection)
            .await
            .map_err(|source| Error::Database { operation: "read", path: path.clone(), source })?;
        Ok(Self { day, path, connection, kinds: kinds.into_iter().collect(), known: HashMap::new() })
    }

    /// Empties the log into the file and closes it.
    pub(crate) async fn close(mut self) {
        let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.connection).await;
        let _ = self.connection.close().await;
    }

    fn fault(&self, operation: &'static str) -> impl Fn(sqlx::Error) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error::Database { operation, path: path.clone(), source }
    }

    /// Writes all rows or none, with the program path of each process for the roll-ups.
    pub(crate) async fn append(&mut self, rows: &[(Row, Arc<str>)]) -> Result<(), Error> {
        let fault = self.fault("write events to");
        let mut kinds = Vec::with_capacity(rows.len());
        for (row, _) in rows {
            kinds.push(self.kind(&row.kind).await?);
        }
        let rollups = self.roll_up(rows, &kinds).await?;

        let mut transaction = self.connection.begin().await.map_err(&fault)?;
        for (chunk, kinds) in rows.chunks(ROWS).zip(kinds.chunks(ROWS)) {
            let mut insert =
                QueryBuilder::<Sqlite>::new("INSERT INTO event (time, pid, start_ticks, boot, kind, json) ");
            insert.push_values(chunk.iter().zip(kinds), |mut values, ((row, _), kind)| {
                let process = row.process.as_ref();
                values
                    .push_bind(row.time)
                    .push_bind(process.map(|key| i64::from(key.pid)))
                    .push_bind(process.map(|key| key.start_ticks as i64))
                    .push_bind(process.map(|key| i64::from(key.boot)))
                    .push_bind(*kind)
                    .push_bind(row.json.as_str());
            });
            let whole = chunk.len() == ROWS;
            insert.build().persistent(whole).execute(&mut *transaction).await.map_err(&fault)?;
        }
        let mut hours: HashMap<i64, i64> = HashMap::new();
        for ((hour, kind, path), events) in &rollups {
            *hours.entry(*hour).or_default() += events;
            sqlx::query(
                "INSERT INTO rollup (hour, kind, path, events) VALUES (?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET events = events + excluded.events",
            )
            .bind(hour)
            .bind(kind)
            .bind(path)
            .bind(events)
            .execute(&mut *transaction)
            .await
            .map_err(&fault)?;
        }
        for (hour, events) in hours {
            sqlx::query(
                "INSERT INTO hour (hour, events) VALUES (?, ?)
                 ON CONFLICT DO UPDATE SET events = events + excluded.events",
            )
            .bind(hour)
            .bind(events)
            .execute(&mut *transaction)
            .await
            .map_err(&fault)?;
        }
        transaction.commit().await.map_err(&fault)
    }

    /// The number of a kind in this file.
    async fn kind(&mut self, name: &str) -> Result<i64, Error> {
        if let Some(&id) = self.kinds.get(name) {
            return Ok(id);
        }
        let fault = self.fault("write to");
        let done = sqlx::query("INSERT INTO kind (name) VALUES (?)")
            .bind(name)
            .execute(&mut self.connection)
            .await
            .map_err(fault)?;
        self.kinds.insert(name.into(), done.last_insert_rowid());
        Ok(done.last_insert_rowid())
    }

    async fn roll_up(
        &mut self,
        rows: &[(Row, Arc<str>)],
        kinds: &[i64],
    ) -> Result<HashMap<(i64, i64, String), i64>, Error> {
        let mut counts: HashMap<(i64, i64, &str), i64> = HashMap::new();
        for ((row, path), &kind) in rows.iter().zip(kinds) {
            let hour = self.day.hour_of(Timestamp(row.time));
            *counts.entry((hour, kind, path)).or_default() += 1;
        }
        let mut rollups: HashMap<(i64, i64, String), i64> = HashMap::new();
        for ((hour, kind, path), events) in counts {
            let known = self.known_in(hour).await?;
            let key = (kind, path.to_owned());
            let path = if known.contains(&key) {
                key.1
            } else if known.len() < MAX_ROLLUPS_AN_HOUR {
                known.insert(key.clone());
                key.1
            } else {
                OTHER_PATHS.to_owned()
            };
            *rollups.entry((hour, kind, path)).or_default() += events;
        }
        Ok(rollups)
    }

    async fn known_in(&mut self, hour: i64) -> Result<&mut HashSet<(i64, String)>, Error> {
        if !self.known.contains_key(&hour) {
            let fault = self.fault("read");
            let found: Vec<(i64, String)> = sqlx::query_as("SELECT kind, path FROM rollup WHERE hour = ?")
                .bind(hour)
                .fetch_all(&mut self.connection)
                .await
                .map_err(fault)?;
            // Two hours are written to around the turn of one; the rest is read again when it is needed.
            if self.known.len() >= 2 {
                self.known.clear();
            }
            self.known.insert(hour, found.into_iter().collect());
        }
        Ok(self.known.entry(hour).or_default())
    }

    /// Bytes of the pages in use, the log included.
    pub(crate) async fn used(&mut self) -> Result<u64, Error> {
        let fault = self.fault("read");
        let mut numbers = [0_i64; 3];
        for (number, pragma) in
            numbers.iter_mut().zip(["PRAGMA page_size", "PRAGMA page_count", "PRAGMA freelist_count"])
        {
            *number = sqlx::query_scalar(pragma).fetch_one(&mut self.connection).await.map_err(&fault)?;
        }
        let [size, pages, free] = numbers.map(i64::unsigned_abs);
        Ok(pages.saturating_sub(free) * size)
    }

    /// How many events it holds.
    pub(crate) async fn events(&mut self) -> Result<u64, Error> {
        let fault = self.fault("read");
        let sum: i64 = sqlx::query_scalar("SELECT coalesce(sum(events), 0) FROM hour")
            .fetch_one(&mut self.connection)
            .await
            .map_err(fault)?;
        Ok(sum.unsigned_abs())
    }

    /// Forgets the events of the oldest hour; or of its older half, when there is only one hour, since a flood
    /// can fill the whole bound in less. The roll-ups stay. Says how many events went.
    pub(crate) async fn forget_oldest(&mut self) -> Result<u64, Error> {
        let fault = self.fault("forget old events in");
        let hours: Vec<(i64, i64)> =
            sqlx::query_as("SELECT hour, events FROM hour WHERE events > 0 ORDER BY hour LIMIT 2")
                .fetch_all(&mut self.connection)
                .await
                .map_err(&fault)?;
        let Some(&(hour, events)) = hours.first() else { return Ok(0) };
        // Events whose time lies outside this day are counted to its first or last hour; the last one is
        // therefore taken without regard to the end of the hour.
        let (end, limit) = match hours.len() {
            1 => (i64::MAX, events / 2 + 1),
            _ => (hour_start(hour + 1).0, i64::MAX),
        };
        let mut transaction = self.connection.begin().await.map_err(&fault)?;
        let gone = sqlx::query(
            "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE time < ? ORDER BY time LIMIT ?)",
        )
        .bind(end)
        .bind(limit)
        .execute(&mut *transaction)
        .await
        .map_err(&fault)?
        .rows_affected();
        sqlx::query("UPDATE hour SET events = max(0, events - ?) WHERE hour = ?")
            .bind(if limit == i64::MAX { events } else { gone as i64 })
            .bind(hour)
            .execute(&mut *transaction)
            .await
            .map_err(&fault)?;
        transaction.commit().await.map_err(&fault)?;
        Ok(gone)
    }

    /// Gives the free pages back to the disk.
    pub(crate) async fn shrink(&mut self) -> Result<(), Error> {
        let fault = self.fault("shrink");
        sqlx::query("PRAGMA incremental_vacuum").execute(&mut self.connection).await.map_err(&fault)?;
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut self.connection)
            .await
            .map(drop)
            .map_err(&fault)
    }
}
