//! How database files are opened, and what happens to one that is not a database any more.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    migrate::Migrator,
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::Error;

const BUSY: Duration = Duration::from_secs(5);

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To write the ledger: every commit is on the disk before it is answered.
    Ledger,
    /// To write a day file: a power failure may cost the last seconds, never the file.
    Day,
}

fn base(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY)
        .foreign_keys(false)
        .disable_statement_logging()
}

/// Opens for writing, made if missing, and brings the schema up to date.
pub(crate) async fn writer(
    path: &Path,
    purpose: Purpose,
    migrator: &Migrator,
) -> Result<SqliteConnection, Error> {
    let synchronous = match purpose {
        Purpose::Ledger => SqliteSynchronous::Full,
        Purpose::Day => SqliteSynchronous::Normal,
    };
    // The ledger's log keeps its blocks, which are a part of its reserve of 256 pages, and is emptied before it
    // outgrows them. A day's log may grow for speed and is cut afterwards.
    let (log_limit, checkpoint_pages) = match purpose {
        Purpose::Ledger => ("-1", "200"),
        Purpose::Day => ("4194304", "1000"),
    };
    let mut connection = base(path)
        .create_if_missing(true)
        .pragma("journal_size_limit", log_limit)
        .pragma("wal_autocheckpoint", checkpoint_pages)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .thread_name(|_| "davy-store".into())
        .connect()
        .await
        .map_err(|source| Error::Database { operation: "open", path: path.into(), source })?;
    let result = prepare(&mut connection, path, purpose, migrator).await;
    match result {
        Ok(()) => Ok(connection),
        Err(error) => {
            let _ = connection.close().await;
            Err(error)
        }
    }
}

async fn prepare(
    connection: &mut SqliteConnection,
    path: &Path,
    purpose: Purpose,
    migrator: &Migrator,
) -> Result<(), Error> {
    // The ledger is small and precious: it is read through at each open. A day file can be hundreds of
    // megabytes; there a fault is found when it is met, and the file is set aside then.
    if purpose == Purpose::Ledger {
        let verdict: String =
            sqlx::query_scalar("PRAGMA quick_check(1)")
                .fetch_one(&mut *connection)
                .await
                .map_err(|source| Error::Database { operation: "check", path: path.into(), source })?;
        if verdict != "ok" {
            return Err(Error::Corrupt { path: path.into(), fault: verdict });
        }
    }
    migrator
        .run_direct(None, &mut *connection, false)
        .await
        .map_err(|source| Error::Schema { path: path.into(), source })
}

/// Opens an existing file for reading only.
pub(crate) async fn reader(path: &Path) -> Result<SqliteConnection, Error> {
    base(path).create_if_missing(false).read_only(true).connect().await.map_err(|source| Error::Database {
        operation: "open",
        path: path.into(),
        source,
    })
}

/// The file and what SQLite keeps beside it.
pub(crate) fn with_companions(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}

/// Renames a broken file out of the way, as `NAME.corrupt-N`, and says how it is called now.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".corrupt-{n}"));
        PathBuf::from(name)
    };
    let target = (1..=u32::MAX)
        .map(aside)
        .find(|candidate| !candidate.exists())
        .ok_or_else(|| io::Error::other("no name is free"))?;
    let [file, wal, shm] = with_companions(path);
    let [target_file, target_wal, _] = with_companions(&target);
    fs::rename(file, &target_file)?;
    let _ = fs::rename(wal, target_wal);
    let _ = fs::remove_file(shm);
    Ok(target_file)
}

/// Removes a database and what lies beside it.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let [file, wal, shm] = with_companions(path);
    let _ = fs::remove_file(wal);
    let _ = fs::remove_file(shm);
    fs::remove_file(file)
}
