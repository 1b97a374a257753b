//! Which processes come from which services.

use std::collections::HashMap;

use davy_model::{Event, EventKind, ProcessInfo, ProcessKey};

use super::{ProfileSet, Profiles};

/// The most processes that are known to come from a service; of more nothing is known, and they are counted.
const MAX_HELD: usize = 32_768;

/// Where a process comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The profiles of all services that it comes from or is: a service that starts another binds it as well.
    pub profiles: ProfileSet,
    /// The process of the last of them.
    pub root: ProcessKey,
}

/// Something from a service executed a program, or was found running it.
#[derive(Clone, Copy, Debug)]
pub struct Start<'e> {
    /// Where it comes from.
    pub origin: Origin,
    /// What is known of it.
    pub info: &'e ProcessInfo,
}

/// Every process that comes from a service. It is held by processes and handed on when they fork, so that who ended meanwhile, and
/// whom the kernel gave another parent, changes nothing.
#[derive(Debug, Default)]
pub struct Lineage {
    held: HashMap<ProcessKey, Origin>,
    refused: u64,
}

impl Lineage {
    /// Takes in what happened. Says when a program began that comes from a service and is not the service itself.
    pub fn take<'e>(&mut self, profiles: &Profiles, event: &'e Event) -> Option<Start<'e>> {
        match &event.kind {
            EventKind::Fork { child, .. } => {
                let origin = self.origin(&event.process?)?;
                self.hold(*child, origin);
                None
            }
            EventKind::Exec(info) | EventKind::Found(info) => self.began(profiles, info),
            EventKind::Exit(_) => {
                self.held.remove(&event.process?);
                None
            }
            _ => None,
        }
    }

    /// Where a process comes from; nothing when from no service.
    #[must_use]
    pub fn origin(&self, process: &ProcessKey) -> Option<Origin> {
        self.held.get(process).copied()
    }

    /// Processes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Processes that were not held because the table was full.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn began<'e>(&mut self, profiles: &Profiles, info: &'e ProcessInfo) -> Option<Start<'e>> {
        // The fork may have been lost, or fall between two looks at /proc.
        let from = self.origin(&info.key).or_else(|| self.origin(&info.parent?));
        let bound =
            from.map(|origin| profiles.released(origin.profiles, &info.image.path)).unwrap_or_default();
        if let Some(profile) = profiles.recognise(info) {
            // Its own workers and helpers are the service; who started it as a service is remembered.
            let root =
                from.filter(|origin| origin.profiles.has(profile)).map_or(info.key, |origin| origin.root);
            self.hold(info.key, Origin { profiles: bound.with(profile), root });
            return None;
        }
        if bound.is_empty() {
            self.held.remove(&info.key);
            return None;
        }
        let origin = Origin { profiles: bound, ..from? };
        self.hold(info.key, origin);
        Some(Start { origin, info })
    }

    fn hold(&mut self, process: ProcessKey, origin: Origin) {
        if self.held.len() < MAX_HELD || self.held.contains_key(&process) {
            self.held.insert(process, origin);
        } else {
            self.refused += 1;
        }
    }
}
