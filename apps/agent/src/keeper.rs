//! Writes to the store what the engine concludes, without ever making the engine wait.
//!
//! Events go in batches that the store may refuse and count. Findings and incidents are kept by number, the newest text
//! of each, until the store has taken them: a slow disk makes them late, not lost, and there are never more waiting
//! than there are findings and incidents alive.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use davy_model::{Connection, Event, EventKind, Finding, FindingId, Incident, IncidentId, ProcessKey};
use davy_net::map::Changes;
use davy_store::Store;
use tokio::sync::Notify;

use crate::shared::lock;

/// The most findings and incidents that wait; beyond it the oldest number goes, counted by the log.
const MAX_WAITING: usize = 10_000;

/// The most changes of rows of connections that wait; beyond it the lowest numbers go.
const MAX_CONNECTIONS: usize = 32_768;

/// How many of them are written in one transaction.
const CONNECTIONS_AT_ONCE: usize = 256;

/// How long what waits gathers before it is written.
const PERIOD: Duration = Duration::from_millis(300);

/// The engine's side of the keeper.
#[derive(Clone)]
pub(crate) struct Keeper {
    store: Store,
    waiting: Arc<Mutex<Waiting>>,
    /// Told when something waits, so that nothing wakes while nothing does.
    some: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    findings: BTreeMap<FindingId, Finding>,
    incidents: BTreeMap<IncidentId, Incident>,
    /// Rows of connections by number; `None` of those that are no more.
    connections: BTreeMap<u64, Option<Connection>>,
}

impl Keeper {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, waiting: Arc::default(), some: Arc::default() }
    }

    /// Hands over what is worth recording of these events.
    pub(crate) fn events(&self, events: Vec<Event>) {
        let events = worth_recording(events);
        if !events.is_empty() {
            self.store.append(events);
        }
    }

    /// Hands over the newest text of a finding.
    pub(crate) fn finding(&self, finding: Finding) {
        let mut waiting = lock(&self.waiting);
        waiting.findings.insert(finding.id, finding);
        if waiting.findings.len() > MAX_WAITING {
            waiting.findings.pop_first();
            tracing::error!("a finding is lost: the store has not taken any for too long");
        }
        self.some.notify_one();
    }

    /// Hands over the newest text of an incident.
    pub(crate) fn incident(&self, incident: Incident) {
        let mut waiting = lock(&self.waiting);
        waiting.incidents.insert(incident.id, incident);
        if waiting.incidents.len() > MAX_WAITING {
            waiting.incidents.pop_first();
            tracing::error!("an incident is lost: the store has not taken any for too long");
        }
        self.some.notify_one();
    }

    /// Hands over rows of connections that changed.
    pub(crate) fn connections(&self, changes: Changes) {
        if changes.is_empty() {
            return;
        }
        let mut waiting = lock(&self.waiting);
        waiting.connections.extend(changes.written.into_iter().map(|row| (row.id, Some(row))));
        waiting.connections.extend(changes.gone.into_iter().map(|id| (id, None)));
        while waiting.connections.len() > MAX_CONNECTIONS {
            waiting.connections.pop_first();
        }
        self.some.notify_one();
    }

    /// Writes what waits, for ever.
    pub(crate) async fn keep(self) {
        loop {
            self.some.notified().await;
            tokio::time::sleep(PERIOD).await;
            self.flush().await;
        }
    }

    /// Writes what waits now. What the store refuses waits on, and so does what was not reached when this is given up in the
    /// middle: nothing goes before the store has it.
    pub(crate) async fn flush(&self) {
        let ids: Vec<_> = lock(&self.waiting).findings.keys().copied().collect();
        for id in ids {
            let Some(finding) = lock(&self.waiting).findings.get(&id).cloned() else { continue };
            if let Err(e) = self.store.put_finding(&finding).await {
                tracing::warn!("finding {} could not be written yet: {e}", id.0);
                self.some.notify_one();
            } else {
                written(&mut lock(&self.waiting).findings, &id, &finding);
            }
        }
        let ids: Vec<_> = lock(&self.waiting).incidents.keys().copied().collect();
        for id in ids {
            let Some(incident) = lock(&self.waiting).incidents.get(&id).cloned() else { continue };
            if let Err(e) = self.store.put_incident(&incident).await {
                tracing::warn!("incident {} could not be written yet: {e}", id.0);
                self.some.notify_one();
            } else {
                written(&mut lock(&self.waiting).incidents, &id, &incident);
            }
        }
        self.flush_connections().await;
    }

    /// Changes of connections, a few at a time, so that the journal of actions never waits long behind them. What could not be
    /// written is tried again with the next ones, which come in half a minute.
    async fn flush_connections(&self) {
        let changes: Vec<_> = lock(&self.waiting).connections.clone().into_iter().collect();
        for some in changes.chunks(CONNECTIONS_AT_ONCE) {
            let rows = some.iter().filter_map(|(_, row)| row.clone()).collect();
            let gone = some.iter().filter(|(_, row)| row.is_none()).map(|(id, _)| *id).collect();
            if let Err(e) = self.store.put_connections(rows, gone).await {
                return tracing::warn!("who talked to whom could not be written yet: {e}");
            }
            let mut waiting = lock(&self.waiting);
            for (id, row) in some {
                written(&mut waiting.connections, id, row);
            }
        }
    }
}

/// What was written waits no longer, unless there is newer text of it by now.
fn written<K: Ord, V: PartialEq>(waiting: &mut BTreeMap<K, V>, id: &K, text: &V) {
    if waiting.get(id) == Some(text) {
        waiting.remove(id);
    }
}

/// Leaves out what is too fine for the record (messages of flows, looks at memory), and the birth of a process whose program
/// comes with it, for that names its parent too.
fn worth_recording(mut events: Vec<Event>) -> Vec<Event> {
    let programs: HashSet<ProcessKey> = events
        .iter()
        .filter_map(|e| match &e.kind {
            EventKind::Exec(info) if info.parent.is_some() => Some(info.key),
            _ => None,
        })
        .collect();
    events.retain(|event| match &event.kind {
        EventKind::Fork { child, .. } => !programs.contains(child),
        EventKind::FlowChunk(_) | EventKind::Memory(_) | EventKind::Syscalls { .. } | EventKind::Gpu(_) => {
            false
        }
        _ => true,
    });
    events
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use davy_model::{Exit, ProcessInfo, Timestamp};

    use super::*;

    #[tokio::test]
    async fn a_flush_that_is_given_up_in_the_middle_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), davy_store::Limits::default()).await.unwrap();
        let keeper = Keeper::new(store.clone());
        for id in 1..=50 {
            let finding = serde_json::json!({
                "id": id, "kind": "mining", "first": 1, "time": 1, "severity": "low", "confidence": 0.5,
                "subject": null, "processes": [], "summary": "x", "evidence": [], "techniques": []
            });
            keeper.finding(serde_json::from_value(finding).unwrap());
        }
        // As a signal ends the agent while the keeper writes.
        assert!(tokio::time::timeout(Duration::ZERO, keeper.flush()).await.is_err());
        keeper.flush().await;
        assert_eq!(store.findings(None, 100).await.unwrap().len(), 50);
        assert!(lock(&keeper.waiting).findings.is_empty());
    }

    #[test]
    fn a_birth_is_recorded_unless_the_program_that_follows_names_the_parent() {
        let key = |pid| ProcessKey { pid, start_ticks: 1, boot: 1 };
        let event = |pid, kind| Event { time: Timestamp(1), process: Some(key(pid)), kind };
        let fork = |child| event(1, EventKind::Fork { child: key(child), comm: "sh".to_owned() });
        let exec = |pid, parent: Option<u32>| {
            let info: ProcessInfo = serde_json::from_value(serde_json::json!({
                "key": key(pid), "parent": parent.map(key), "comm": "x",
                "image": {"path": "/x", "file": {"dev": 1, "ino": 1}, "kind": "file"},
                "args": [], "args_cut": false, "env": [], "cwd": "/", "tty": null, "cgroup": "/", "cgroup_id": 1,
                "creds": {"uid": 0, "euid": 0, "gid": 0, "caps": 0, "login_uid": null, "session": null},
                "container": null, "ns": {"pid": 1, "mnt": 1, "net": 1, "user": 1}, "kernel_thread": false
            }))
            .unwrap();
            event(pid, EventKind::Exec(Box::new(info)))
        };
        let exit = event(2, EventKind::Exit(Exit::default()));
        let kept = worth_recording(vec![
            fork(2),
            exec(2, Some(1)),
            exit.clone(),
            fork(3),
            fork(4),
            exec(4, None),
            event(4, EventKind::Syscalls { count: 1, cpu_ns: 1 }),
        ]);
        assert_eq!(kept, [exec(2, Some(1)), exit, fork(3), fork(4), exec(4, None)]);
    }
}
