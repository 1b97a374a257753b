//! `main.db`: findings, incidents, the journal of actions, counters, runs and policies.

use std::path::{Path, PathBuf};

use davy_model::{ActionId, ActionRecord, ActionState, Connection as Talk, Finding, Incident, Timestamp};
use serde::Serialize;
use sqlx::{Connection, Row as _, SqliteConnection};

use crate::{
    Error,
    opening::{self, Purpose},
    schema::LEDGER_MIGRATOR,
};

/// Bytes kept free inside the file for the journal.
const RESERVE: i64 = 1 << 20;

/// The one connection that writes `main.db`.
pub(crate) struct Ledger {
    connection: SqliteConnection,
    path: PathBuf,
}

/// How much of the file is in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub(crate) used: u64,
    pub(crate) free: u64,
}

impl Ledger {
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        let connection = opening::writer(path, Purpose::Ledger, &LEDGER_MIGRATOR).await?;
        Ok(Self { connection, path: path.into() })
    }

    pub(crate) async fn close(self) {
        let _ = self.connection.close().await;
    }

    fn fault(&self, operation: &'static str) -> impl FnOnce(sqlx::Error) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error::Database { operation, path, source }
    }

    pub(crate) async fn put_finding(&mut self, finding: &Finding) -> Result<(), Error> {
        let fault = self.fault("write a finding to");
        sqlx::query(
            "INSERT INTO finding (id, time, kind, severity, json) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET
                 time = excluded.time, kind = excluded.kind, severity = excluded.severity, json = excluded.json",
        )
        .bind(signed(finding.id.0))
        .bind(finding.time.0)
        .bind(word("finding", &finding.kind)?)
        .bind(word("finding", &finding.severity)?)
        .bind(json("finding", finding)?)
        .execute(&mut self.connection)
        .await
        .map(drop)
        .map_err(fault)
    }

    pub(crate) async fn put_incident(&mut self, incident: &Incident) -> Result<(), Error> {
        let fault = self.fault("write an incident to");
        sqlx::query(
            "INSERT INTO incident (id, time, json) VALUES (?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET time = excluded.time, json = excluded.json",
        )
        .bind(signed(incident.id.0))
        .bind(incident.last.0)
        .bind(json("incident", incident)?)
        .execute(&mut self.connection)
        .await
        .map(drop)
        .map_err(fault)
    }

    /// Writes a new line of the journal and gives it its number.
    pub(crate) async fn record(&mut self, record: &ActionRecord) -> Result<ActionId, Error> {
        let fault = self.fault("write the journal in");
        let done = sqlx::query(
            "INSERT INTO action (time, changed, incident, state, undoable, json) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(record.time.0)
        .bind(record.changed.0)
        .bind(record.incident.map(|id| signed(id.0)))
        .bind(word("action", &record.state)?)
        .bind(open(record))
        .bind(json("action", record)?)
        .execute(&mut self.connection)
        .await
        .map_err(fault)?;
        Ok(ActionId(done.last_insert_rowid().unsigned_abs()))
    }

    /// Renews a line of the journal; one that is missing (its file was set aside) is written anew.
    pub(crate) async fn change(&mut self, record: &ActionRecord) -> Result<(), Error> {
        let fault = self.fault("write the journal in");
        sqlx::query(
            "INSERT INTO action (id, time, changed, incident, state, undoable, json) VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET
                 changed = excluded.changed, incident = excluded.incident, state = excluded.state,
                 undoable = excluded.undoable, json = excluded.json",
        )
        .bind(signed(record.id.0))
        .bind(record.time.0)
        .bind(record.changed.0)
        .bind(record.incident.map(|id| signed(id.0)))
        .bind(word("action", &record.state)?)
        .bind(open(record))
        .bind(json("action", record)?)
        .execute(&mut self.connection)
        .await
        .map(drop)
        .map_err(fault)
    }

    /// Writes rows of the map of who talks to whom, or their newer text, and removes others; all of it or nothing.
    pub(crate) async fn put_connections(&mut self, rows: &[Talk], gone: &[u64]) -> Result<(), Error> {
        let [begin, write, remove, end] = [(); 4].map(|()| self.fault("write connections to"));
        let mut transaction = self.connection.begin().await.map_err(begin)?;
        for row in rows {
            let written = sqlx::query(
                "INSERT INTO connection (id, last, json) VALUES (?, ?, ?)
                 ON CONFLICT (id) DO UPDATE SET last = excluded.last, json = excluded.json",
            )
            .bind(signed(row.id))
            .bind(row.last.0)
            .bind(json("connection", row)?)
            .execute(&mut *transaction)
            .await;
            if let Err(error) = written {
                return Err(write(error));
            }
        }
        for id in gone {
            let removed = sqlx::query("DELETE FROM connection WHERE id = ?")
                .bind(signed(*id))
                .execute(&mut *transaction)
                .await;
            if let Err(error) = removed {
                return Err(remove(error));
            }
        }
        transaction.commit().await.map_err(end)
    }

    /// Forgets the connections last seen longest ago beyond so many.
    pub(crate) async fn keep_connections(&mut self, most: u32) -> Result<u64, Error> {
        let fault = self.fault("forget connections in");
        sqlx::query(
            "DELETE FROM connection WHERE id IN
                (SELECT id FROM connection ORDER BY last DESC, id DESC LIMIT -1 OFFSET ?)",
        )
        .bind(most)
        .execute(&mut self.connection)
        .await
        .map(|done| done.rows_affected())
        .map_err(fault)
    }

    /// Forgets the half of the connections that was last seen longest ago.
    pub(crate) async fn forget_half_of_connections(&mut self) -> Result<u64, Error> {
        let fault = self.fault("forget connections in");
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM connection")
            .fetch_one(&mut self.connection)
            .await
            .map_err(fault)?;
        self.keep_connections(u32::try_from(count / 2).unwrap_or(u32::MAX)).await
    }

    pub(crate) async fn count(&mut self, name: &str, add: i64) -> Result<(), Error> {
        let fault = self.fault("count in");
        sqlx::query(
            "INSERT INTO counter (name, value) VALUES (?, ?)
             ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        )
        .bind(name)
        .bind(add)
        .execute(&mut self.connection)
        .await
        .map(drop)
        .map_err(fault)
    }

    pub(crate) async fn begin_run(
        &mut self,
        boot: u32,
        version: &str,
        started: Timestamp,
    ) -> Result<u64, Error> {
        let fault = self.fault("note the start in");
        sqlx::query("INSERT INTO run (boot, version, started) VALUES (?, ?, ?)")
            .bind(i64::from(boot))
            .bind(version)
            .bind(started.0)
            .execute(&mut self.connection)
            .await
            .map(|done| done.last_insert_rowid().unsigned_abs())
            .map_err(fault)
    }

    pub(crate) async fn end_run(&mut self, run: u64, ended: Timestamp) -> Result<(), Error> {
        let fault = self.fault("note the end in");
        sqlx::query("UPDATE run SET ended = ? WHERE id = ?")
            .bind(ended.0)
            .bind(signed(run))
            .execute(&mut self.connection)
            .await
            .map(drop)
            .map_err(fault)
    }

    pub(crate) async fn put_policy(&mut self, policy: &crate::PolicyEntry) -> Result<(), Error> {
        let fault = self.fault("note the policy in");
        sqlx::query("INSERT INTO policy (time, path, text, faults) VALUES (?, ?, ?, ?)")
            .bind(policy.time.0)
            .bind(policy.path.as_deref())
            .bind(&policy.text)
            .bind(&policy.faults)
            .execute(&mut self.connection)
            .await
            .map(drop)
            .map_err(fault)
    }

    /// The highest numbers in use: findings, incidents. The journal counts too, since it may name what could
    /// not be written any more.
    pub(crate) async fn highest_ids(&mut self) -> Result<(u64, u64), Error> {
        let fault = self.fault("read");
        let row = sqlx::query(
            "SELECT
                max(coalesce((SELECT max(id) FROM finding), 0),
                    coalesce((SELECT max(json_extract(json, '$.finding')) FROM action), 0)),
                max(coalesce((SELECT max(id) FROM incident), 0),
                    coalesce((SELECT max(incident) FROM action), 0))",
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(fault)?;
        Ok((row.get::<i64, _>(0).unsigned_abs(), row.get::<i64, _>(1).unsigned_abs()))
    }

    pub(crate) async fn fill(&mut self) -> Result<Fill, Error> {
        let mut numbers = [0_i64; 3];
        for (number, pragma) in
            numbers.iter_mut().zip(["PRAGMA page_size", "PRAGMA page_count", "PRAGMA freelist_count"])
        {
            let fault = self.fault("read");
            *number = sqlx::query_scalar(pragma).fetch_one(&mut self.connection).await.map_err(fault)?;
        }
        let [size, pages, free] = numbers.map(i64::unsigned_abs);
        Ok(Fill { used: pages.saturating_sub(free) * size, free: free * size })
    }

    /// Keeps pages free inside the file, whose blocks are already the file's own: a journal line finds room
    /// there when the disk has none. The log beside the file grows with it and keeps its blocks too.
    ///
    /// A fresh connection begins with an empty log, so that it must be done once at each open, `anew`.
    pub(crate) async fn reserve(&mut self, anew: bool) -> Result<(), Error> {
        if !anew && self.fill().await?.free >= RESERVE.unsigned_abs() {
            return Ok(());
        }
        let [insert, delete] = [self.fault("reserve room in"), self.fault("reserve room in")];
        // Written and checkpointed before they are freed: pages freed in the transaction that made them would
        // leave a hole, not blocks.
        sqlx::query("INSERT INTO reserve VALUES (zeroblob(?))")
            .bind(RESERVE)
            .execute(&mut self.connection)
            .await
            .map_err(insert)?;
        self.checkpoint().await?;
        sqlx::query("DELETE FROM reserve").execute(&mut self.connection).await.map(drop).map_err(delete)?;
        self.checkpoint().await
    }

    pub(crate) async fn checkpoint(&mut self) -> Result<(), Error> {
        let fault = self.fault("checkpoint");
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(&mut self.connection)
            .await
            .map(drop)
            .map_err(fault)
    }

    /// Forgets what is older than `before`, except actions that can still be undone.
    pub(crate) async fn forget_before(&mut self, before: Timestamp) -> Result<u64, Error> {
        let mut forgotten = 0;
        for statement in [
            "DELETE FROM finding WHERE time < ?",
            "DELETE FROM incident WHERE time < ?",
            "DELETE FROM action WHERE changed < ? AND undoable = 0",
            "DELETE FROM run WHERE started < ?",
            "DELETE FROM connection WHERE last < ?",
            "DELETE FROM policy WHERE time < ? AND id < (SELECT max(id) FROM policy)",
        ] {
            let fault = self.fault("forget old records in");
            let done =
                sqlx::query(statement).bind(before.0).execute(&mut self.connection).await.map_err(fault)?;
            forgotten += done.rows_affected();
        }
        Ok(forgotten)
    }

    /// Forgets the oldest tenth of everything, except actions that can still be undone.
    pub(crate) async fn forget_oldest_tenth(&mut self) -> Result<u64, Error> {
        let mut forgotten = 0;
        for statement in [
            "DELETE FROM finding WHERE id IN
                (SELECT id FROM finding ORDER BY time LIMIT (SELECT count(*) / 10 + 1 FROM finding))",
            "DELETE FROM incident WHERE id IN
                (SELECT id FROM incident ORDER BY time LIMIT (SELECT count(*) / 10 + 1 FROM incident))",
            "DELETE FROM action WHERE undoable = 0 AND id IN
                (SELECT id FROM action WHERE undoable = 0 ORDER BY id
                 LIMIT (SELECT count(*) / 10 + 1 FROM action))",
            "DELETE FROM policy WHERE id IN
                (SELECT id FROM policy WHERE id < (SELECT max(id) FROM policy) ORDER BY id
                 LIMIT (SELECT count(*) / 10 + 1 FROM policy))",
        ] {
            let fault = self.fault("forget old records in");
            let done = sqlx::query(statement).execute(&mut self.connection).await.map_err(fault)?;
            forgotten += done.rows_affected();
        }
        Ok(forgotten)
    }
}

/// Whether retention must keep the line: it can be undone, or nobody knows yet how it ended.
fn open(record: &ActionRecord) -> bool {
    record.state == ActionState::Intended || (record.undoable && record.state == ActionState::Done)
}

fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

fn json(what: &'static str, value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|source| Error::Record { what, source })
}

/// The JSON name of a plain enum's variant.
fn word(what: &'static str, value: &impl Serialize) -> Result<String, Error> {
    Ok(json(what, value)?.trim_matches('"').to_owned())
}
