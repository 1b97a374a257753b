//! Writes to the store what the engine concludes, without ever making the engine wait.
//!
//! Events go in batches that the store may refuse and count. Findings and incidents are kept by number, the newest text
//! of each, until the store has taken them: a slow disk makes them late, not lost, and there are never more waiting
//! than there are findings and incidents alive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use davy_model::{Event, EventKind, Finding, FindingId, Incident, IncidentId};
use davy_store::Store;

use crate::shared::lock;

/// The most findings and incidents that wait; beyond it the oldest number goes, counted by the log.
const MAX_WAITING: usize = 10_000;

/// How often what waits is written.
const PERIOD: Duration = Duration::from_millis(300);

/// The engine's side of the keeper.
#[derive(Clone)]
pub(crate) struct Keeper {
    store: Store,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    findings: BTreeMap<FindingId, Finding>,
    incidents: BTreeMap<IncidentId, Incident>,
}

impl Keeper {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, waiting: Arc::default() }
    }

    /// Hands events over. What is too fine for the record (messages of flows, looks at memory) is left out.
    pub(crate) fn events(&self, mut events: Vec<Event>) {
        events.retain(|e| {
            !matches!(
                e.kind,
                EventKind::FlowChunk(_)
                    | EventKind::Memory(_)
                    | EventKind::Syscalls { .. }
                    | EventKind::Gpu(_)
            )
        });
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
    }

    /// Hands over the newest text of an incident.
    pub(crate) fn incident(&self, incident: Incident) {
        let mut waiting = lock(&self.waiting);
        waiting.incidents.insert(incident.id, incident);
        if waiting.incidents.len() > MAX_WAITING {
            waiting.incidents.pop_first();
            tracing::error!("an incident is lost: the store has not taken any for too long");
        }
    }

    /// Writes what waits, for ever.
    pub(crate) async fn keep(self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.flush().await;
        }
    }

    /// Writes what waits now. What the store refuses waits on.
    pub(crate) async fn flush(&self) {
        let Waiting { findings, incidents } = std::mem::take(&mut *lock(&self.waiting));
        for (id, finding) in findings {
            if let Err(e) = self.store.put_finding(&finding).await {
                tracing::warn!("finding {} could not be written yet: {e}", id.0);
                lock(&self.waiting).findings.entry(id).or_insert(finding);
            }
        }
        for (id, incident) in incidents {
            if let Err(e) = self.store.put_incident(&incident).await {
                tracing::warn!("incident {} could not be written yet: {e}", id.0);
                lock(&self.waiting).incidents.entry(id).or_insert(incident);
            }
        }
    }
}
