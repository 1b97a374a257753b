//! The engine's end: who comes from which service.

use std::collections::VecDeque;
use std::sync::Arc;

use davy_detect::Detector;
use davy_kernel::TrustGate;
use davy_model::{CodeKind, CodeOutcome, Event, EventKind, ImageKind, ProcessKey};
use davy_proc::Users;
use davy_trust::services::{Kind, Lineage, Origin, ProfileSet};

use super::{Began, ServiceDesk};

/// For how many of the newest breaches it is remembered whose they are.
const MAX_BREACHES: usize = 1024;

/// Names of a chain that are told.
const MAX_CHAIN: usize = 8;

/// What came of looking at an event.
pub(crate) enum Look {
    /// Nothing to do with services.
    Nothing,
    /// What the detector is to hear as well.
    Told(Event),
    /// Its name says nothing of the program: its content is to be looked at.
    Unknown(Box<Began>),
}

/// Who comes from which service, as events tell.
pub(crate) struct ServiceWatch {
    desk: Arc<ServiceDesk>,
    lineage: Lineage,
    breaches: VecDeque<(ProcessKey, String)>,
    users: Users,
    bind: Bind,
}

/// Tells the kernel whom profiles bind, where it decides.
#[derive(Clone, Default)]
pub(crate) struct Bind(Option<Arc<TrustGate>>);

impl Bind {
    /// By this gate, if there is one.
    pub(crate) fn new(gate: Option<Arc<TrustGate>>) -> Self {
        Self(gate)
    }

    fn call(&self, pid: u32, profiles: ProfileSet) {
        if let Some(gate) = &self.0
            && let Err(error) = gate.bind_process(pid, profiles.bits())
        {
            tracing::warn!("the kernel does not know that {pid} comes from a service: {error}");
        }
    }
}

impl ServiceWatch {
    /// Nobody is known yet.
    pub(crate) fn new(desk: Arc<ServiceDesk>, bind: Bind) -> Self {
        Self { desk, lineage: Lineage::default(), breaches: VecDeque::new(), users: Users::new(), bind }
    }

    /// Takes in an event, after the detector.
    pub(crate) fn see(&mut self, event: &Event, detector: &Detector) -> Look {
        match &event.kind {
            EventKind::CodeJudged(judged)
                if judged.kind == CodeKind::Service && judged.outcome == CodeOutcome::Denied =>
            {
                let path = judged.path.as_deref().unwrap_or_default();
                let told = self.tried(event, detector).and_then(|began| self.desk.refused(&began, path));
                return told.map_or(Look::Nothing, Look::Told);
            }
            EventKind::ServiceBreach(breach) => {
                if let Some(process) = event.process {
                    if self.breaches.len() >= MAX_BREACHES {
                        self.breaches.pop_front();
                    }
                    self.breaches.push_back((process, breach.service.clone()));
                }
                return Look::Nothing;
            }
            _ => {}
        }
        let start = self.lineage.take(&self.desk.profiles, event);
        if let (EventKind::Exec(info) | EventKind::Found(info), Some(origin)) =
            (&event.kind, event.process.and_then(|key| self.lineage.origin(&key)))
        {
            // By content the kernel knows neither what runs already, nor services that are told by their arguments, nor those
            // of container images. What they start it knows by descent, and better than who is told of it afterwards.
            if start.is_none() || matches!(event.kind, EventKind::Found(_)) {
                self.bind.call(info.key.pid, origin.profiles);
            }
        }
        let Some(start) = start else { return Look::Nothing };
        let (origin, info) = (start.origin, start.info.clone());
        let chain = chain(detector, &origin, &info.key);
        let began = Began { time: event.time, origin, info: Box::new(info), chain };
        let classes = self.desk.programs.classes(&began.info.image.path, &began.info.args);
        if classes.is_empty() {
            return self.unknown(began, detector);
        }
        let user = self.users.name_or_number(began.info.creds.euid);
        self.desk.judge(&began, classes, Some(&user)).map_or(Look::Nothing, Look::Told)
    }

    /// Looks anew at everybody who was there before the agent: children may have been found before their parents.
    pub(crate) fn settle(&mut self, detector: &Detector) -> Vec<Event> {
        let mut found: Vec<_> = detector.processes().iter().filter(|p| p.alive()).collect();
        let depth = |key: &ProcessKey| detector.processes().ancestors(key).count();
        found.sort_by_cached_key(|process| (depth(&process.key), process.key.pid));
        let again = found.into_iter().map(|process| Event {
            time: process.first,
            process: Some(process.key),
            kind: EventKind::Found(Box::new(process.info())),
        });
        let told = again.filter_map(|event| match self.see(&event, detector) {
            Look::Told(told) => Some(told),
            Look::Nothing | Look::Unknown(_) => None,
        });
        told.collect()
    }

    /// The service that one of these processes came from.
    pub(crate) fn service_of(&self, processes: impl Iterator<Item = ProcessKey>) -> Option<&str> {
        let mut found = processes.filter_map(|key| self.breaches.iter().rev().find(|(of, _)| *of == key));
        found.next().map(|(_, service)| service.as_str())
    }

    /// The service that answers the web which a process is, or comes from.
    pub(crate) fn web_service_of(&self, process: &ProcessKey) -> Option<&str> {
        let origin = self.lineage.origin(process)?;
        let mut profiles = self.desk.profiles.of(origin.profiles).map(|(_, profile)| profile);
        profiles.find(|profile| profile.kind == Kind::Web).map(|profile| profile.name.as_str())
    }

    /// Processes that could not be taken in.
    pub(crate) fn lost(&self) -> u64 {
        self.lineage.refused()
    }

    /// A program under a name that says nothing may be a copy of one. What the system's own folders hold is no copy.
    fn unknown(&self, began: Began, detector: &Detector) -> Look {
        let image = &began.info.image;
        let own = image.kind == ImageKind::File && detector.is_system(&image.path);
        if own { Look::Nothing } else { Look::Unknown(Box::new(began)) }
    }

    fn tried(&self, event: &Event, detector: &Detector) -> Option<Began> {
        let key = event.process?;
        let origin = self.lineage.origin(&key)?;
        let info = detector.processes().get(&key)?.info();
        let mut chain = chain(detector, &origin, &key);
        chain.push(info.comm.clone());
        Some(Began { time: event.time, origin, info: Box::new(info), chain })
    }
}

/// The names from the service down to the parent; of a long way its ends.
fn chain(detector: &Detector, origin: &Origin, key: &ProcessKey) -> Vec<String> {
    let mut names = Vec::new();
    for above in detector.processes().ancestors(key) {
        names.push(above.comm.clone());
        if above.key == origin.root {
            break;
        }
    }
    if names.len() > MAX_CHAIN {
        names.splice(MAX_CHAIN / 2..names.len() - MAX_CHAIN / 2, ["...".to_owned()]);
    }
    names.reverse();
    names
}
