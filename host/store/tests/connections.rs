//! The map of who talks to whom: what is put in comes out, also of a store that was closed, and within bounds.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use davy_model::*;
use davy_store::{Clock, Limits, Store};

/// 2026-03-01T12:00:00Z.
const NOON: i64 = 1_772_366_400;

fn connection(id: u64, last: i64) -> Connection {
    Connection {
        id,
        talker: Talker {
            program: "/usr/sbin/nginx".to_owned(),
            file: FileId { dev: 1, ino: id },
            service: Some("nginx.service".to_owned()),
            container: None,
            uid: Some(33),
        },
        direction: Heading::Outbound,
        transport: Transport::Tcp,
        port: 443,
        peer: match id % 3 {
            0 => Peer::Others,
            1 => Peer::Name("\u{202e}backend.example'; DROP TABLE connection; --".to_owned()),
            _ => Peer::Address("2001:db8::7".parse().unwrap()),
        },
        named_by: (id % 3 == 1).then_some(Naming::Tls),
        addresses: vec!["203.0.113.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        more_addresses: id.is_multiple_of(2),
        place: Some(Place::Outside),
        tls: true,
        requests: vec!["GET /basket".to_owned()],
        connections: u64::MAX,
        open: 1,
        sent_bytes: id,
        received_bytes: u64::MAX - 1,
        first: Timestamp::from_secs(last - 10),
        last: Timestamp::from_secs(last),
    }
}

async fn open(folder: &Path, limits: Limits) -> Store {
    Store::open(folder, limits).await.unwrap()
}

#[tokio::test]
async fn rows_come_back_after_a_restart_and_the_removed_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Limits::default()).await;
    let rows: Vec<_> = (1..=9).map(|id| connection(id, NOON + id as i64)).collect();
    store.put_connections(rows.clone(), Vec::new()).await.unwrap();
    let newer = Connection { connections: 5, ..connection(3, NOON + 50) };
    store.put_connections(vec![newer.clone()], vec![1, 2, 77]).await.unwrap();
    store.close().await;
    let store = open(folder.path(), Limits::default()).await;
    let mut expected: Vec<_> = rows.into_iter().filter(|row| row.id > 3).collect();
    expected.push(newer.clone());
    assert_eq!(store.connections(100).await.unwrap(), expected, "the latest last");
    assert_eq!(store.connections(1).await.unwrap(), [newer]);
}

#[tokio::test]
async fn rows_beyond_the_bound_go_by_when_they_were_last_seen() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Limits { max_connections: 10, ..Limits::default() }).await;
    let rows = (1..=50).map(|id| connection(id, NOON - id as i64)).collect();
    store.put_connections(rows, Vec::new()).await.unwrap();
    assert_eq!(store.maintain().await.unwrap().records, 40);
    let left: Vec<u64> = store.connections(100).await.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(left, (1..=10).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn old_rows_go_by_age_once_the_clock_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let seconds = Arc::new(AtomicI64::new(0));
    let (wall, steady) = (Arc::clone(&seconds), Arc::clone(&seconds));
    let clock = Clock::new(
        move || Timestamp::from_secs(NOON + wall.load(Relaxed)),
        move || Duration::from_secs(steady.load(Relaxed).unsigned_abs()),
    );
    let limits = Limits { max_age_days: 7, ..Limits::default() };
    let store = Store::open_with(folder.path(), limits, clock).await.unwrap();
    let rows = vec![connection(1, NOON - 8 * 86_400), connection(2, NOON - 86_400)];
    store.put_connections(rows, Vec::new()).await.unwrap();
    assert_eq!(store.maintain().await.unwrap().before, None);
    assert_eq!(store.connections(9).await.unwrap().len(), 2);
    seconds.store(3_700, Relaxed);
    let upkeep = store.maintain().await.unwrap();
    assert_eq!(upkeep.before, Some(Timestamp::from_secs(NOON + 3_700 - 7 * 86_400)));
    let left: Vec<u64> = store.connections(9).await.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(left, [2]);
}

#[tokio::test]
async fn a_ledger_without_room_gives_up_connections_before_findings() {
    let folder = tempfile::tempdir().unwrap();
    // A quarter of it is the ledger's.
    let store = open(folder.path(), Limits { max_bytes: 8 << 20, ..Limits::default() }).await;
    let finding: Finding = serde_json::from_value(serde_json::json!({
        "id": 1, "kind": "mining", "first": 1, "time": 1, "severity": "low", "confidence": 0.5,
        "subject": null, "processes": [], "summary": "x", "evidence": [], "techniques": []
    }))
    .unwrap();
    for id in 1..=500 {
        store.put_finding(&Finding { id: FindingId(id), ..finding.clone() }).await.unwrap();
    }
    let rows = (1..=6_000).map(|id| connection(id, NOON + id as i64)).collect();
    store.put_connections(rows, Vec::new()).await.unwrap();
    store.maintain().await.unwrap();
    let left = store.connections(10_000).await.unwrap();
    assert!(!left.is_empty() && left.len() < 6_000, "{} kept", left.len());
    assert_eq!(left.last().unwrap().id, 6_000, "the latest stay");
    assert_eq!(store.findings(None, 1_000).await.unwrap().len(), 500);
}
