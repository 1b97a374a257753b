//! What is put in comes out: events, findings, incidents, the journal and the rest.

#![allow(clippy::unwrap_used, missing_docs)]

mod samples;

use davy_model::*;
use davy_store::{Clock, EventFilter, Limits, PolicyEntry, Store};
use proptest::prelude::*;
use samples::*;

/// 2026-03-01T12:00:00Z.
const NOON: Timestamp = Timestamp(1_772_366_400_000_000);

fn at(seconds: f64) -> Timestamp {
    NOON.plus_secs(seconds)
}

fn noon() -> Clock {
    Clock::new(|| NOON, || std::time::Duration::ZERO)
}

async fn fresh() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_with(folder.path(), Limits::default(), noon()).await.unwrap();
    (folder, store)
}

async fn all(store: &Store) -> Vec<Event> {
    store.events(&EventFilter { limit: u32::MAX, ..EventFilter::default() }).await.unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[tokio::test]
async fn events_are_selected_and_the_newest_kept_in_order() {
    let (_folder, store) = fresh().await;
    let events: Vec<_> = (0..1_000_u32)
        .map(|n| match n % 2 {
            0 => exec(at(f64::from(n)), n % 10, "/tmp/xmrig"),
            _ => exit(at(f64::from(n)), n % 10),
        })
        .collect();
    store.append(events.clone());
    store.flush().await.unwrap();
    assert_eq!(all(&store).await, events);
    let newest = store.events(&EventFilter { limit: 7, ..EventFilter::default() }).await.unwrap();
    assert_eq!(newest, events[993..]);
    let since = EventFilter { since: Some(at(990.0)), ..EventFilter::default() };
    assert_eq!(store.events(&since).await.unwrap(), events[990..]);
    let of_pid = EventFilter { pid: Some(3), limit: 5, ..EventFilter::default() };
    let found = store.events(&of_pid).await.unwrap();
    assert_eq!(found.len(), 5);
    assert!(found.iter().all(|event| event.process == Some(key(3))));
    let execs = EventFilter { kinds: vec!["exec".into(), "fork".into()], ..EventFilter::default() };
    assert_eq!(store.events(&execs).await.unwrap().len(), 500);
    let none = EventFilter { kinds: vec!["'; DROP TABLE event; --".into()], ..EventFilter::default() };
    assert!(store.events(&none).await.unwrap().is_empty());
    assert_eq!(store.status().events, 1_000);
}

#[tokio::test]
async fn days_lie_in_files_of_their_own() {
    let (folder, store) = fresh().await;
    let events =
        vec![exit(at(-86_400.0), 1), exit(at(-1.0), 2), exit(at(43_199.0), 3), exit(at(43_200.0), 4)];
    store.append(events.clone());
    store.flush().await.unwrap();
    assert_eq!(all(&store).await, events);
    for day in ["2026-02-28", "2026-03-01", "2026-03-02"] {
        assert!(folder.path().join(format!("events-{day}.db")).exists(), "{day}");
    }
    let newest = store.events(&EventFilter { limit: 2, ..EventFilter::default() }).await.unwrap();
    assert_eq!(newest, events[2..]);
    store.close().await;
    let store = Store::open_with(folder.path(), Limits::default(), noon()).await.unwrap();
    assert_eq!(all(&store).await, events);
    store.flush().await.unwrap();
    assert_eq!(store.status().events, 4);
}

#[tokio::test]
async fn hours_are_rolled_up_by_program() {
    let (_folder, store) = fresh().await;
    let mut events = vec![exec(at(0.0), 10, "/usr/bin/gcc"), fork(at(1.0), 10, 11), fork(at(2.0), 11, 12)];
    events.extend((0..5).map(|n| exit(at(3_600.0 + f64::from(n)), 12)));
    events.push(exit(at(3_700.0), 999));
    store.append(events);
    store.flush().await.unwrap();
    let rollups = store.rollups(None, 100).await.unwrap();
    let told: Vec<_> = rollups.iter().map(|r| (r.hour, r.kind.as_str(), r.path.as_str(), r.events)).collect();
    // The first exit takes process 12 out of the table; what a dead process does is nobody's.
    let expected = [
        (at(3_600.0), "exit", "", 5),
        (at(3_600.0), "exit", "/usr/bin/gcc", 1),
        (at(0.0), "fork", "/usr/bin/gcc", 2),
        (at(0.0), "exec", "/usr/bin/gcc", 1),
    ];
    assert_eq!(told, expected);
    assert_eq!(store.rollups(Some(at(3_600.0)), 100).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_flood_of_program_names_is_bounded_in_the_rollups() {
    let (_folder, store) = fresh().await;
    for start in (0..6_000_u32).step_by(1_000) {
        store.append((start..start + 1_000).map(|n| exec(at(1.0), n, &format!("/tmp/{n}"))).collect());
    }
    store.flush().await.unwrap();
    let rollups = store.rollups(None, u32::MAX).await.unwrap();
    assert_eq!(rollups.len(), 4_097);
    let others = rollups.iter().find(|rollup| rollup.path == "(others)").unwrap();
    assert_eq!(others.events, 6_000 - 4_096);
}

#[tokio::test]
async fn records_come_back_with_their_newest_text() {
    let (folder, store) = fresh().await;
    assert_eq!((store.new_finding_id(), store.new_incident_id()), (FindingId(1), IncidentId(1)));
    let mut first = finding(1, at(1.0));
    store.put_finding(&first).await.unwrap();
    store.put_incident(&incident(1, at(2.0), vec![first.clone()])).await.unwrap();
    first.confidence = 0.99;
    first.time = at(9.0);
    store.put_finding(&first).await.unwrap();
    store.put_finding(&finding(2, at(5.0))).await.unwrap();

    let mut record = action(at(3.0), Some(1), ActionState::Intended);
    record.id = store.record(&record).await.unwrap();
    assert_eq!(record.id, ActionId(1));
    record.state = ActionState::Done;
    record.undoable = true;
    record.note = "2 processes frozen".into();
    store.change(&record).await.unwrap();
    let other = store.record(&action(at(4.0), None, ActionState::Failed)).await.unwrap();
    assert_eq!(other, ActionId(2));

    assert_eq!(store.finding(FindingId(1)).await.unwrap(), Some(first.clone()));
    assert_eq!(store.finding(FindingId(99)).await.unwrap(), None);
    let ids = |findings: Vec<Finding>| findings.into_iter().map(|f| f.id.0).collect::<Vec<_>>();
    assert_eq!(ids(store.findings(None, 10).await.unwrap()), [2, 1], "newest last");
    assert_eq!(ids(store.findings(None, 1).await.unwrap()), [1]);
    assert_eq!(ids(store.findings(Some(at(6.0)), 10).await.unwrap()), [1]);
    let whole = store.incident(IncidentId(1)).await.unwrap().unwrap();
    assert_eq!(whole.findings, [first]);
    assert_eq!(whole.actions, [record.clone()]);
    assert_eq!(whole.timeline.len(), 1);
    let listed = store.incidents(None, 10).await.unwrap();
    assert!(listed.len() == 1 && listed[0].timeline.is_empty());
    let journal = store.actions(10).await.unwrap();
    assert_eq!(journal.iter().map(|line| line.id.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(store.action(ActionId(1)).await.unwrap(), Some(record.clone()));
    assert_eq!(store.open_actions().await.unwrap(), [record.clone()]);

    store.close().await;
    let store = Store::open_with(folder.path(), Limits::default(), noon()).await.unwrap();
    assert_eq!((store.new_finding_id(), store.new_incident_id()), (FindingId(3), IncidentId(2)));
    assert_eq!(store.open_actions().await.unwrap(), [record]);
    assert_eq!(store.record(&action(at(5.0), None, ActionState::Done)).await.unwrap(), ActionId(3));
}

#[tokio::test]
async fn counters_runs_and_policies_outlive_the_agent() {
    let (folder, store) = fresh().await;
    store.count("stopped", 2).await.unwrap();
    store.count("stopped", 3).await.unwrap();
    let run = store.begin_run(7, "0.1.0").await.unwrap();
    store.end_run(run).await.unwrap();
    store.begin_run(8, "0.1.1").await.unwrap();
    let policy =
        PolicyEntry { time: at(1.0), path: None, text: "mode = \"observe\"".into(), faults: String::new() };
    store.put_policy(&policy).await.unwrap();
    store.close().await;
    let store = Store::open_with(folder.path(), Limits::default(), noon()).await.unwrap();
    assert_eq!(store.counter("stopped").await.unwrap(), 5);
    assert_eq!(store.counter("nothing").await.unwrap(), 0);
    let runs = store.runs(9).await.unwrap();
    assert_eq!(
        runs.iter().map(|run| (run.boot, run.ended)).collect::<Vec<_>>(),
        [(7, Some(NOON)), (8, None)]
    );
    assert_eq!(store.policies(9).await.unwrap(), [policy]);
}

#[tokio::test]
async fn futures_can_be_spawned() {
    let (_folder, store) = fresh().await;
    let asked = store.clone();
    let all = tokio::spawn(async move {
        asked.record(&action(NOON, None, ActionState::Done)).await.unwrap();
        asked.put_finding(&finding(1, NOON)).await.unwrap();
        asked.events(&EventFilter::default()).await.unwrap();
        asked.rollups(None, 1).await.unwrap();
        asked.findings(None, 1).await.unwrap();
        asked.incident(IncidentId(1)).await.unwrap();
        asked.maintain().await.unwrap();
        asked.actions(1).await.unwrap().len()
    });
    assert_eq!(all.await.unwrap(), 1);
    store.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_events_come_back(mut events in prop::collection::vec(any_event(), 1..120)) {
        let (given, got, lost) = runtime().block_on(async {
            let (_folder, store) = fresh().await;
            store.append(events.clone());
            store.flush().await.unwrap();
            let got = all(&store).await;
            events.sort_by_key(|event| event.time);
            (events, got, store.status().lost)
        });
        prop_assert_eq!(lost, 0);
        // Events of one time may come in another order when they lie in different files.
        let text = |events: &[Event]| {
            let mut lines: Vec<_> = events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
            lines.sort();
            lines
        };
        prop_assert_eq!(text(&got), text(&given));
    }
}
