//! Files that are no databases any more are set aside, and the store goes on.

#![allow(clippy::unwrap_used, missing_docs)]

mod samples;

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use davy_model::*;
use davy_store::{EventFilter, Limits, Store};
use samples::*;

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(now.as_micros() as i64)
}

fn overwrite(path: &Path, from: u64, bytes: usize) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    file.write_all(&vec![0xa5; bytes]).unwrap();
}

fn day_file(folder: &Path) -> PathBuf {
    let names = folder.read_dir().unwrap().flatten().map(|entry| entry.path());
    names
        .into_iter()
        .find(|path| path.to_str().unwrap().ends_with(".db") && !path.ends_with("main.db"))
        .unwrap()
}

async fn filled(folder: &Path) -> Store {
    let store = Store::open(folder, Limits::default()).await.unwrap();
    store.append((0..3_000).map(|n| exec(now(), n, "/usr/bin/gcc")).collect());
    store.flush().await.unwrap();
    for n in 1..=50 {
        store.put_finding(&finding(n, now())).await.unwrap();
        store.record(&action(now(), None, ActionState::Done)).await.unwrap();
    }
    store
}

#[tokio::test]
async fn a_broken_ledger_is_set_aside_at_the_start() {
    for (case, (from, bytes)) in [(0, 4096), (4096, 40_000), (0, 10)].into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path()).await.close().await;
        overwrite(&folder.path().join("main.db"), from, bytes);
        let store = Store::open(folder.path(), Limits::default()).await.unwrap();
        let notices = store.notices();
        assert!(notices.len() == 1 && notices[0].contains("main.db.corrupt-1"), "case {case}: {notices:?}");
        assert!(store.notices().is_empty(), "told once");
        assert!(folder.path().join("main.db.corrupt-1").exists());
        store.record(&action(now(), None, ActionState::Done)).await.unwrap();
        assert_eq!(store.actions(9).await.unwrap().len(), 1);
        assert_eq!(
            store.events(&EventFilter { limit: 9_999, ..EventFilter::default() }).await.unwrap().len(),
            3_000
        );
        store.close().await;
    }
}

#[tokio::test]
async fn a_broken_day_is_set_aside_and_the_day_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await.close().await;
    overwrite(&day_file(folder.path()), 0, 4096);
    let store = Store::open(folder.path(), Limits::default()).await.unwrap();
    assert!(
        store.events(&EventFilter::default()).await.unwrap().is_empty(),
        "a question is answered all the same"
    );
    store.append(vec![exit(now(), 7)]);
    store.flush().await.unwrap();
    assert_eq!(store.events(&EventFilter::default()).await.unwrap().len(), 1);
    assert_eq!(store.actions(99).await.unwrap().len(), 50, "the ledger is untouched");
    let notices = store.notices();
    assert!(notices.len() == 1 && notices[0].contains(".db.corrupt-1"), "{notices:?}");
    assert_eq!(store.status().failing, None);
}

#[tokio::test]
async fn a_day_that_breaks_while_it_is_written_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path()).await;
    // The log is emptied into the file first, so that the broken pages are what is read next.
    store.close().await;
    let path = day_file(folder.path());
    let length = fs::metadata(&path).unwrap().len() as usize;
    overwrite(&path, 8 * 4096, length - 8 * 4096);
    let store = Store::open(folder.path(), Limits::default()).await.unwrap();
    for _ in 0..5 {
        store.append((0..2_000).map(|n| exec(now(), n, "/usr/bin/other")).collect());
        store.flush().await.unwrap();
    }
    let events = store.events(&EventFilter { limit: 99_999, ..EventFilter::default() }).await.unwrap();
    let new = events
        .iter()
        .filter(|event| matches!(&event.kind, EventKind::Exec(info) if info.image.path == "/usr/bin/other"));
    assert_eq!(new.count(), 10_000);
    let notices = store.notices();
    assert!(notices.len() == 1 && notices[0].contains(".db.corrupt-1"), "{notices:?}");
    assert_eq!(store.status().lost, 0);
    assert_eq!(store.status().failing, None);
}

#[tokio::test]
async fn files_set_aside_are_numbered_and_go_first() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 8 << 20, ..Limits::default() };
    for n in 1..=3 {
        filled(folder.path()).await.close().await;
        overwrite(&folder.path().join("main.db"), 0, 4096);
        let store = Store::open(folder.path(), limits).await.unwrap();
        assert!(folder.path().join(format!("main.db.corrupt-{n}")).exists());
        store.close().await;
    }
    let store = Store::open(folder.path(), limits).await.unwrap();
    store.maintain().await.unwrap();
    assert!(!folder.path().join("main.db.corrupt-1").exists());
    assert!(folder.path().join("main.db").exists());
}
