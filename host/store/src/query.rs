//! Questions to the store. Each opens the file it needs for reading and closes it again: questions are rare, and
//! no open handle then keeps a day alive that the bounds took away.

use std::path::Path;

use davy_model::{
    ActionId, ActionRecord, Connection as Talk, Event, Finding, FindingId, Incident, IncidentId, ProcessKey,
    Timestamp,
};
use serde::de::DeserializeOwned;
use sqlx::{Connection, QueryBuilder, Row as _, Sqlite, SqliteConnection};

use crate::{Error, EventFilter, PolicyEntry, Rollup, Run, Store, folder, opening, row::Row};

impl Store {
    /// Recorded events, newest last.
    ///
    /// # Errors
    /// When a file cannot be read. Files that are broken are left out.
    pub async fn events(&self, filter: &EventFilter) -> Result<Vec<Event>, Error> {
        let _permit = self.permit().await?;
        let mut events = Vec::new();
        for (day, path) in folder::days(&self.shared.folder)?.into_iter().rev() {
            if events.len() >= filter.limit as usize {
                break;
            }
            // Events whose time lies outside their file's day are few; they are found while they are in the days
            // that are looked at.
            if filter.since.is_some_and(|since| day.end() <= since) {
                continue;
            }
            let left = filter.limit - events.len() as u32;
            match read_day(&path, filter, left).await {
                Ok(rows) => events.extend(rows),
                Err(error) => tracing::warn!(%error, "a day of events cannot be read"),
            }
        }
        events.sort_by_key(|event: &Event| event.time);
        Ok(events)
    }

    /// How many events each program had an hour, newest hours first.
    ///
    /// # Errors
    /// When the folder cannot be read. Files that are broken are left out.
    pub async fn rollups(&self, since: Option<Timestamp>, limit: u32) -> Result<Vec<Rollup>, Error> {
        let _permit = self.permit().await?;
        let mut rollups: Vec<Rollup> = Vec::new();
        for (day, path) in folder::days(&self.shared.folder)?.into_iter().rev() {
            if rollups.len() >= limit as usize || since.is_some_and(|since| day.end() <= since) {
                continue;
            }
            let left = limit - rollups.len() as u32;
            match read_rollups(&path, since, left).await {
                Ok(rows) => rollups.extend(rows),
                Err(error) => tracing::warn!(%error, "a day of roll-ups cannot be read"),
            }
        }
        Ok(rollups)
    }

    /// Findings, newest last.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn findings(&self, since: Option<Timestamp>, limit: u32) -> Result<Vec<Finding>, Error> {
        self.newest(
            "finding",
            "SELECT json FROM finding WHERE time >= ? ORDER BY time DESC, id DESC LIMIT ?",
            since,
            limit,
        )
        .await
    }

    /// One finding.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn finding(&self, id: FindingId) -> Result<Option<Finding>, Error> {
        self.one("finding", "SELECT json FROM finding WHERE id = ?", id.0).await
    }

    /// Incidents, newest last, without their timelines and trees.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn incidents(&self, since: Option<Timestamp>, limit: u32) -> Result<Vec<Incident>, Error> {
        let mut incidents: Vec<Incident> = self
            .newest(
                "incident",
                "SELECT json FROM incident WHERE time >= ? ORDER BY time DESC, id DESC LIMIT ?",
                since,
                limit,
            )
            .await?;
        for incident in &mut incidents {
            incident.timeline.clear();
            incident.tree.clear();
        }
        Ok(incidents)
    }

    /// One incident with everything; its findings and actions as they stand now.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn incident(&self, id: IncidentId) -> Result<Option<Incident>, Error> {
        let Some(mut incident) =
            self.one::<Incident>("incident", "SELECT json FROM incident WHERE id = ?", id.0).await?
        else {
            return Ok(None);
        };
        for finding in &mut incident.findings {
            if let Some(newer) = self.finding(finding.id).await? {
                *finding = newer;
            }
        }
        let journal = self.actions_of(id).await?;
        if !journal.is_empty() {
            incident.actions = journal;
        }
        Ok(Some(incident))
    }

    /// The rows of the map of who talks to whom, at most so many of those seen last, the latest last.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn connections(&self, limit: u32) -> Result<Vec<Talk>, Error> {
        self.newest(
            "connection",
            "SELECT json FROM connection WHERE last >= ? ORDER BY last DESC, id DESC LIMIT ?",
            None,
            limit,
        )
        .await
    }

    /// The journal, newest last.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn actions(&self, limit: u32) -> Result<Vec<ActionRecord>, Error> {
        self.journal("SELECT id, json FROM action WHERE ? IS NOT NULL ORDER BY id DESC LIMIT ?", 0, limit)
            .await
    }

    /// The journal's lines for one incident, newest last.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn actions_of(&self, incident: IncidentId) -> Result<Vec<ActionRecord>, Error> {
        let id = i64::try_from(incident.0).unwrap_or(i64::MAX);
        self.journal("SELECT id, json FROM action WHERE incident = ? ORDER BY id DESC LIMIT ?", id, 10_000)
            .await
    }

    /// The lines that are not finished, newest last: intended and never settled, or done and still undoable.
    /// With them an agent that starts knows what is in force.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn open_actions(&self) -> Result<Vec<ActionRecord>, Error> {
        self.journal("SELECT id, json FROM action WHERE undoable = ? ORDER BY id DESC LIMIT ?", 1, 10_000)
            .await
    }

    /// One line of the journal.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn action(&self, id: ActionId) -> Result<Option<ActionRecord>, Error> {
        let number = i64::try_from(id.0).unwrap_or(i64::MAX);
        Ok(self.journal("SELECT id, json FROM action WHERE id = ? LIMIT ?", number, 1).await?.pop())
    }

    /// A counter; zero when nothing was ever counted.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn counter(&self, name: &str) -> Result<i64, Error> {
        let rows = self
            .read_ledger(async |connection| {
                sqlx::query("SELECT value FROM counter WHERE name = ?").bind(name).fetch_all(connection).await
            })
            .await?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }

    /// The agent's lives, newest last.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn runs(&self, limit: u32) -> Result<Vec<Run>, Error> {
        let rows = self
            .read_ledger(async |connection| {
                sqlx::query("SELECT id, boot, version, started, ended FROM run ORDER BY id DESC LIMIT ?")
                    .bind(limit)
                    .fetch_all(connection)
                    .await
            })
            .await?;
        let run = |row: &sqlx::sqlite::SqliteRow| Run {
            id: row.get::<i64, _>(0).unsigned_abs(),
            boot: row.get::<i64, _>(1) as u32,
            version: row.get(2),
            started: Timestamp(row.get(3)),
            ended: row.get::<Option<i64>, _>(4).map(Timestamp),
        };
        Ok(rows.iter().rev().map(run).collect())
    }

    /// Policies that were put in force or refused, newest last.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn policies(&self, limit: u32) -> Result<Vec<PolicyEntry>, Error> {
        let rows = self
            .read_ledger(async |connection| {
                sqlx::query("SELECT time, path, text, faults FROM policy ORDER BY id DESC LIMIT ?")
                    .bind(limit)
                    .fetch_all(connection)
                    .await
            })
            .await?;
        let policy = |row: &sqlx::sqlite::SqliteRow| PolicyEntry {
            time: Timestamp(row.get(0)),
            path: row.get(1),
            text: row.get(2),
            faults: row.get(3),
        };
        Ok(rows.iter().rev().map(policy).collect())
    }

    async fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        self.shared.readers.acquire().await.map_err(|_| Error::Closed)
    }

    async fn read_ledger(
        &self,
        ask: impl AsyncFnOnce(&mut SqliteConnection) -> Result<Vec<sqlx::sqlite::SqliteRow>, sqlx::Error>,
    ) -> Result<Vec<sqlx::sqlite::SqliteRow>, Error> {
        let _permit = self.permit().await?;
        let path = self.shared.folder.join(folder::LEDGER);
        let mut connection = opening::reader(&path).await?;
        let rows = ask(&mut connection).await;
        let _ = connection.close().await;
        rows.map_err(|source| Error::Database { operation: "read", path, source })
    }

    async fn newest<T: DeserializeOwned>(
        &self,
        what: &'static str,
        sql: &'static str,
        since: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<T>, Error> {
        let since = since.map_or(i64::MIN, |since| since.0);
        let rows = self
            .read_ledger(async |connection| {
                sqlx::query(sql).bind(since).bind(limit).fetch_all(connection).await
            })
            .await?;
        rows.iter().rev().map(|row| parse(what, row.get(0))).collect()
    }

    async fn one<T: DeserializeOwned>(
        &self,
        what: &'static str,
        sql: &'static str,
        id: u64,
    ) -> Result<Option<T>, Error> {
        let id = i64::try_from(id).unwrap_or(i64::MAX);
        let rows = self
            .read_ledger(async |connection| sqlx::query(sql).bind(id).fetch_all(connection).await)
            .await?;
        rows.first().map(|row| parse(what, row.get(0))).transpose()
    }

    async fn journal(&self, sql: &'static str, select: i64, limit: u32) -> Result<Vec<ActionRecord>, Error> {
        let rows = self
            .read_ledger(async |connection| {
                sqlx::query(sql).bind(select).bind(limit).fetch_all(connection).await
            })
            .await?;
        let record = |row: &sqlx::sqlite::SqliteRow| {
            let mut record: ActionRecord = parse("action", row.get(1))?;
            record.id = ActionId(row.get::<i64, _>(0).unsigned_abs());
            Ok(record)
        };
        rows.iter().rev().map(record).collect()
    }
}

fn parse<T: DeserializeOwned>(what: &'static str, text: String) -> Result<T, Error> {
    serde_json::from_str(&text).map_err(|source| Error::Record { what, source })
}

async fn read_day(path: &Path, filter: &EventFilter, limit: u32) -> Result<Vec<Event>, Error> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT event.time, pid, start_ticks, boot, kind.name, json
         FROM event JOIN kind ON kind.id = event.kind WHERE 1 = 1",
    );
    if let Some(since) = filter.since {
        query.push(" AND event.time >= ").push_bind(since.0);
    }
    if let Some(pid) = filter.pid {
        query.push(" AND pid = ").push_bind(i64::from(pid));
    }
    if !filter.kinds.is_empty() {
        query.push(" AND kind.name IN (");
        let mut names = query.separated(", ");
        for name in filter.kinds.iter().take(64) {
            names.push_bind(name.as_str());
        }
        query.push(")");
    }
    query.push(" ORDER BY event.time DESC, event.id DESC LIMIT ").push_bind(i64::from(limit));

    let mut connection = opening::reader(path).await?;
    let rows = query.build().fetch_all(&mut connection).await;
    let _ = connection.close().await;
    let rows = rows.map_err(|source| Error::Database { operation: "read", path: path.into(), source })?;
    let event = |row: &sqlx::sqlite::SqliteRow| {
        let process = match (
            row.get::<Option<i64>, _>(1),
            row.get::<Option<i64>, _>(2),
            row.get::<Option<i64>, _>(3),
        ) {
            (Some(pid), Some(start), Some(boot)) => {
                Some(ProcessKey { pid: pid as u32, start_ticks: start as u64, boot: boot as u32 })
            }
            _ => None,
        };
        Row { time: row.get(0), process, kind: row.get(4), json: row.get(5) }.event()
    };
    // Reversed, so that the later sort by time keeps the order of arrival among equals.
    Ok(rows.iter().rev().map(event).filter_map(Result::ok).collect())
}

async fn read_rollups(path: &Path, since: Option<Timestamp>, limit: u32) -> Result<Vec<Rollup>, Error> {
    let first = since.map_or(i64::MIN, crate::day::hour_at);
    let mut connection = opening::reader(path).await?;
    let rows = sqlx::query(
        "SELECT rollup.hour, kind.name, path, events FROM rollup JOIN kind ON kind.id = rollup.kind
         WHERE rollup.hour >= ? ORDER BY rollup.hour DESC, events DESC LIMIT ?",
    )
    .bind(first)
    .bind(limit)
    .fetch_all(&mut connection)
    .await;
    let _ = connection.close().await;
    let rows = rows.map_err(|source| Error::Database { operation: "read", path: path.into(), source })?;
    let rollup = |row: &sqlx::sqlite::SqliteRow| Rollup {
        hour: crate::day::hour_start(row.get(0)),
        kind: row.get(1),
        path: row.get(2),
        events: row.get::<i64, _>(3).unsigned_abs(),
    };
    Ok(rows.iter().map(rollup).collect())
}
