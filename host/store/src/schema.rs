//! The schemas and how they came to be. A migration that was released is never changed; later ones only add, so
//! that an older Davy can still read the file after a downgrade.

use std::sync::LazyLock;

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

const LEDGER: [(i64, &str, &str); 3] = [
    (1, "ledger", include_str!("../migrations/ledger/0001_ledger.sql")),
    (2, "runs and policies", include_str!("../migrations/ledger/0002_runs_and_policies.sql")),
    (3, "undoable", include_str!("../migrations/ledger/0003_undoable.sql")),
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
