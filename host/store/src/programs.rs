use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use davy_model::{Event, EventKind, ProcessKey};

/// Processes remembered; the one known longest goes first, and its events are then rolled up without a path.
const MAX_PROCESSES: usize = 32_768;

/// Which program each process runs, learnt from the events themselves, for the roll-ups.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    paths: HashMap<ProcessKey, Arc<str>>,
    order: VecDeque<ProcessKey>,
}

impl Programs {
    /// The path of the process that the event belongs to; empty where unknown.
    pub(crate) fn learn(&mut self, event: &Event) -> Arc<str> {
        match &event.kind {
            EventKind::Exec(info) | EventKind::Found(info) => {
                self.remember(info.key, info.image.path.as_str().into());
            }
            EventKind::Fork { child, .. } => {
                if let Some(path) = event.process.and_then(|parent| self.paths.get(&parent)).cloned() {
                    self.remember(*child, path);
                }
            }
            _ => {}
        }
        let subject = match &event.kind {
            EventKind::Exec(info) | EventKind::Found(info) => Some(info.key),
            _ => event.process,
        };
        let path = subject.and_then(|key| self.paths.get(&key)).cloned().unwrap_or_default();
        if let (EventKind::Exit(_), Some(key)) = (&event.kind, event.process) {
            self.paths.remove(&key);
        }
        path
    }

    fn remember(&mut self, key: ProcessKey, path: Arc<str>) {
        if self.paths.insert(key, path).is_some() {
            return;
        }
        self.order.push_back(key);
        while self.paths.len() > MAX_PROCESSES {
            let Some(oldest) = self.order.pop_front() else { break };
            self.paths.remove(&oldest);
        }
        // Keys of processes that ended stay in the order until they come to its front; here they are dropped
        // when they are the most of it.
        if self.order.len() > 2 * MAX_PROCESSES {
            let paths = &self.paths;
            self.order.retain(|key| paths.contains_key(key));
        }
    }
}
