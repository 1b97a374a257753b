//! The schemas and how they came to be. A migration that was released is never changed; later ones only add, so
//! that an older Davy can still read the file after a downgrade.

use std::sync::LazyLock;

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

const LEDGER: [(i64, &str, &str); 4] = [
    (1, "ledger", include_str!("../migrations/ledger/0001_ledger.sql")),
    (2, "runs and policies", include_str!("../migrations/ledger/0002_runs_and_policies.sql")),
    (3, "undoable", include_str!("../migrations/ledger/0003_undoable.sql")),
    (4, "connections", include_str!("../migrations/ledger/0004_connections.sql")),
];

const DAY: [(i64, &str, &str); 1] = [(1, "events", include_str!("../migrations/day/0001_events.sql"))];

/// Migrations of `main.db`.
pub(crate) static LEDGER_MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| migrator(&LEDGER));

/// Migrations of `events-YYYY-MM-DD.db`.
pub(crate) static DAY_MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| migrator(&DAY));

fn migrator(steps: &[(i64, &'static str, &'static str)]) -> Migrator {
    let steps = steps.iter().map(|&(version, description, sql)| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(steps.collect());
    migrator.set_ignore_missing(true);
    migrator
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use davy_model::{ActionId, ActionState, FindingId};

    use super::*;
    use crate::{Limits, Store, opening};

    /// A ledger as the first version of the schema had it, with one record of each kind.
    async fn first_version(path: &std::path::Path) {
        let first = migrator(&LEDGER[..1]);
        let mut connection = opening::writer(path, opening::Purpose::Ledger, &first).await.unwrap();
        let action = r#"{"id":0,"time":5,"changed":6,"incident":null,"finding":2,"action":"alert","state":"STATE",
            "note":"","undoable":UNDOABLE,"undo":""}"#;
        let line = |state: &str, undoable: &str| action.replace("STATE", state).replace("UNDOABLE", undoable);
        for (json, state) in [(line("done", "true"), "done"), (line("failed", "false"), "failed")] {
            sqlx::query("INSERT INTO action (time, changed, state, json) VALUES (5, 6, ?, ?)")
                .bind(state)
                .bind(json)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        sqlx::Connection::close(connection).await.unwrap();
    }

    #[tokio::test]
    async fn an_older_ledger_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        first_version(&folder.path().join("main.db")).await;
        let store = Store::open(folder.path(), Limits::default()).await.unwrap();
        assert!(store.notices().is_empty());
        let journal = store.actions(9).await.unwrap();
        assert_eq!(journal.len(), 2);
        assert_eq!(journal[0].id, ActionId(1));
        let open = store.open_actions().await.unwrap();
        assert_eq!(open.iter().map(|line| line.state).collect::<Vec<_>>(), [ActionState::Done]);
        store.begin_run(1, "0.1.0").await.unwrap();
        assert_eq!(store.runs(9).await.unwrap().len(), 1);
        assert_eq!(store.new_finding_id(), FindingId(3), "the journal names finding 2");
    }

    #[tokio::test]
    async fn a_newer_ledger_is_read_after_a_downgrade() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.db");
        let mut steps = LEDGER.to_vec();
        steps.push((99, "from the future", "CREATE TABLE later (x INTEGER) STRICT;"));
        let newer = migrator(&steps);
        let connection = opening::writer(&path, opening::Purpose::Ledger, &newer).await.unwrap();
        sqlx::Connection::close(connection).await.unwrap();
        let store = Store::open(folder.path(), Limits::default()).await.unwrap();
        assert!(store.notices().is_empty());
        store.count("starts", 1).await.unwrap();
        assert_eq!(store.counter("starts").await.unwrap(), 1);
    }
}
