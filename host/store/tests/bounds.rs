//! Bounds of size, age and queue, and clocks that jump.

#![allow(clippy::unwrap_used, missing_docs)]

mod samples;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use davy_model::*;
use davy_store::{Clock, EventFilter, Limits, Store};
use samples::*;

const DAY: i64 = 86_400;

/// Clocks that stand until they are moved.
#[derive(Clone)]
struct Hands {
    wall: Arc<AtomicI64>,
    steady: Arc<AtomicU64>,
}

impl Hands {
    /// 2026-03-01T12:00:00Z.
    fn new() -> Self {
        Self { wall: Arc::new(AtomicI64::new(1_772_366_400)), steady: Arc::new(AtomicU64::new(0)) }
    }

    fn clock(&self) -> Clock {
        let Self { wall, steady } = self.clone();
        Clock::new(
            move || Timestamp::from_secs(wall.load(Relaxed)),
            move || Duration::from_secs(steady.load(Relaxed)),
        )
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.wall.load(Relaxed))
    }

    fn pass(&self, seconds: i64) {
        self.wall.fetch_add(seconds, Relaxed);
        self.steady.fetch_add(seconds as u64, Relaxed);
    }

    fn jump(&self, seconds: i64) {
        self.wall.fetch_add(seconds, Relaxed);
    }
}

async fn open(folder: &Path, limits: Limits, hands: &Hands) -> Store {
    Store::open_with(folder, limits, hands.clock()).await.unwrap()
}

fn bytes(folder: &Path) -> u64 {
    folder.read_dir().unwrap().flatten().map(|entry| entry.metadata().map_or(0, |meta| meta.len())).sum()
}

fn day_files(folder: &Path) -> Vec<String> {
    let names = folder.read_dir().unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter(|name| name.starts_with("events-") && name.ends_with(".db")).collect();
    names.sort();
    names
}

async fn all(store: &Store) -> Vec<Event> {
    store.events(&EventFilter { limit: u32::MAX, ..EventFilter::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_day_that_exceeds_the_bound_loses_its_oldest_hours() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 12 << 20, ..Limits::default() };
    let hands = Hands::new();
    let store = open(folder.path(), limits, &hands).await;
    let begin = hands.now();
    let mut written = 0_u32;
    for round in 0..60 {
        let events =
            (0..1_000).map(|n| exec(begin.plus_secs(f64::from(round * 300)), n, "/usr/bin/gcc")).collect();
        store.append(events);
        written += 1_000;
        store.flush().await.unwrap();
        if round % 5 == 0 {
            store.maintain().await.unwrap();
        }
    }
    store.maintain().await.unwrap();
    store.flush().await.unwrap();
    let left = all(&store).await;
    let size = bytes(folder.path());
    println!("{written} written, {} kept, {size} bytes on disk", left.len());
    assert!(size <= limits.max_bytes + (6 << 20), "{size} bytes, the log of a transaction included");
    assert!(left.len() > 5_000 && left.len() < written as usize, "{} kept", left.len());
    assert_eq!(left.last().unwrap().time, begin.plus_secs(59.0 * 300.0), "the newest is there");
    assert!(left[0].time > begin, "the oldest went first");
    assert_eq!(store.status().events, left.len() as u64);
    let rolled: u64 = store.rollups(None, u32::MAX).await.unwrap().iter().map(|rollup| rollup.events).sum();
    assert_eq!(rolled, u64::from(written), "the roll-ups of forgotten hours stay");
}

#[tokio::test]
async fn the_oldest_day_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 9 << 20, ..Limits::default() };
    let hands = Hands::new();
    let store = open(folder.path(), limits, &hands).await;
    for _ in 0..8 {
        for _ in 0..4 {
            store.append((0..1_000).map(|n| exec(hands.now(), n, "/usr/bin/gcc")).collect());
            store.flush().await.unwrap();
        }
        store.maintain().await.unwrap();
        hands.pass(DAY);
    }
    let days = day_files(folder.path());
    assert!((2..8).contains(&days.len()), "{days:?}");
    assert_eq!(days.last().unwrap(), "events-2026-03-08.db");
    assert!(store.status().bytes <= limits.max_bytes + (6 << 20));
}

#[tokio::test]
async fn old_days_go_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_age_days: 3, ..Limits::default() };
    let hands = Hands::new();
    let store = open(folder.path(), limits, &hands).await;
    for day in 1..=10_u64 {
        store.append(vec![exit(hands.now(), 1)]);
        store.flush().await.unwrap();
        store.put_finding(&finding(day, hands.now())).await.unwrap();
        store.record(&action(hands.now(), None, ActionState::Failed)).await.unwrap();
        store.maintain().await.unwrap();
        hands.pass(DAY);
        store.maintain().await.unwrap();
    }
    let kept = store
        .record(&action(hands.now().plus_secs(-400.0 * DAY as f64), None, ActionState::Done))
        .await
        .unwrap();
    hands.pass(60);
    let upkeep = store.maintain().await.unwrap();
    assert_eq!(upkeep.events, 0, "maintaining each day left nothing over");
    assert_eq!(day_files(folder.path()).len(), 3, "{:?}", day_files(folder.path()));
    assert_eq!(store.findings(None, 99).await.unwrap().len(), 2);
    let journal = store.actions(99).await.unwrap();
    assert_eq!(journal.len(), 3);
    assert_eq!(store.open_actions().await.unwrap()[0].id, kept, "what can be undone is never forgotten");
}

#[tokio::test]
async fn a_clock_that_jumps_deletes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_age_days: 3, ..Limits::default() };
    let hands = Hands::new();
    let store = open(folder.path(), limits, &hands).await;
    store.append(vec![exit(hands.now(), 1)]);
    store.flush().await.unwrap();
    for _ in 0..100 {
        store.maintain().await.unwrap();
        hands.pass(60);
    }
    hands.jump(4_000 * DAY);
    store.append(vec![exit(hands.now(), 2)]);
    store.flush().await.unwrap();
    for _ in 0..30 {
        store.maintain().await.unwrap();
        hands.pass(60);
    }
    hands.jump(-4_000 * DAY);
    store.maintain().await.unwrap();
    store.append(vec![exit(hands.now(), 3)]);
    store.flush().await.unwrap();
    let pids: Vec<_> = all(&store).await.iter().map(|event| event.process.unwrap().pid).collect();
    assert_eq!(pids, [1, 3, 2], "by their times, the one of the wrong clock last");
    // A clock that stays where it jumped to is believed after an hour.
    hands.jump(10 * DAY);
    for _ in 0..70 {
        store.maintain().await.unwrap();
        hands.pass(60);
    }
    let pids: Vec<_> = all(&store).await.iter().map(|event| event.process.unwrap().pid).collect();
    assert_eq!(pids, [2]);
}

#[tokio::test]
async fn times_that_cannot_be_right_are_kept_in_todays_file() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let store = open(folder.path(), Limits::default(), &hands).await;
    let odd = [i64::MIN, -1, 0, 1, i64::MAX - 1, i64::MAX].map(|time| exit(Timestamp(time), 7));
    store.append(odd.to_vec());
    store.append(vec![exit(hands.now(), 8)]);
    store.flush().await.unwrap();
    assert_eq!(day_files(folder.path()), ["events-2026-03-01.db"]);
    let got = all(&store).await;
    assert_eq!(got.len(), 7);
    assert_eq!((got[0].time.0, got[6].time.0), (i64::MIN, i64::MAX));
    assert_eq!(store.status().events, 7);
}

#[tokio::test]
async fn a_file_from_a_wrong_future_goes_before_real_days() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let limits = Limits { max_bytes: 9 << 20, ..Limits::default() };
    hands.jump(4_000 * DAY);
    let store = open(folder.path(), limits, &hands).await;
    store.append((0..2_000).map(|n| exec(hands.now(), n, "/usr/bin/gcc")).collect());
    store.flush().await.unwrap();
    hands.jump(-4_000 * DAY);
    for _ in 0..10 {
        store.append((0..1_000).map(|n| exec(hands.now(), n, "/usr/bin/gcc")).collect());
        store.flush().await.unwrap();
        store.maintain().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(day_files(folder.path()), ["events-2026-03-01.db"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_drops_events_and_never_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let limits = Limits { queue_events: 2_000, ..Limits::default() };
    let store = open(folder.path(), limits, &hands).await;
    let flood = store.clone();
    let now = hands.now();
    let total = 400_000_u64;
    let flooding = tokio::task::spawn_blocking(move || {
        for _ in 0..total / 1_000 {
            flood.append((0..1_000).map(|n| exit(now, n)).collect());
        }
    });
    for n in 0..50 {
        let id = store.record(&action(now, None, ActionState::Done)).await.unwrap();
        assert_eq!(id, ActionId(n + 1));
        store.put_finding(&finding(n + 1, now)).await.unwrap();
    }
    flooding.await.unwrap();
    store.flush().await.unwrap();
    let status = store.status();
    println!("{} written, {} lost of {total}", status.events, status.lost);
    assert_eq!(status.events + status.lost, total, "nothing is lost without being counted");
    assert!(status.lost > 0);
    assert_eq!(all(&store).await.len() as u64, status.events);
    assert_eq!(store.actions(99).await.unwrap().len(), 50);
    assert_eq!(store.findings(None, 99).await.unwrap().len(), 50);
    assert_eq!(status.failing, None);
}

#[tokio::test]
async fn the_ledger_keeps_its_share() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let limits = Limits { max_bytes: 16 << 20, ..Limits::default() };
    let store = open(folder.path(), limits, &hands).await;
    let open_line = store.record(&action(hands.now(), None, ActionState::Done)).await.unwrap();
    let mut long = finding(0, hands.now());
    long.summary = "x".repeat(20_000);
    for n in 1..=400 {
        long.id = FindingId(n);
        long.time = hands.now().plus_secs(n as f64);
        store.put_finding(&long).await.unwrap();
    }
    let upkeep = store.maintain().await.unwrap();
    let left = store.findings(None, 1_000).await.unwrap();
    assert!(upkeep.records > 0 && left.len() < 250 && left.len() > 50, "{upkeep:?}, {} left", left.len());
    assert_eq!(left.last().unwrap().id, FindingId(400));
    assert_eq!(store.open_actions().await.unwrap()[0].id, open_line);
}
