//! What services start: who comes from one is known in the engine's thread, what that may start is decided here, and what was
//! seen and is not allowed waits for the administrator.

mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use davy_model::{ClassSet, Event, EventKind, Mode, ProcessInfo, ServiceBreach, ServiceStart, Timestamp};
use davy_policy::{Policy, ServiceMode, Services};
use davy_trust::services::{
    Command, Learned, MayStart, Origin, ProfileId, ProfileSet, Profiles, Seen,
    forbidden_whatever_the_command, may_start,
};
use davy_trust::{Programs, host};

use crate::shared::{Shared, lock};
use crate::standing::Limit;

pub(crate) use watch::{Bind, Look, ServiceWatch};

/// The protection's name in the policy.
pub(crate) const PROTECTION: &str = "services";

/// A program that began, and comes from a service.
#[derive(Clone, Debug)]
pub(crate) struct Began {
    pub(crate) time: Timestamp,
    pub(crate) origin: Origin,
    /// The program; of one that was refused, who tried to start it.
    pub(crate) info: Box<ProcessInfo>,
    /// The names of the processes from the service down to its parent.
    pub(crate) chain: Vec<String>,
}

/// What is known of services. Shared by the engine, the thread that reads contents, and the sockets that ask.
pub(crate) struct ServiceDesk {
    pub(crate) profiles: Profiles,
    pub(crate) programs: Programs,
    shared: Arc<Shared>,
    /// What was seen and is not allowed, and whether it is written down.
    learned: Mutex<(Learned, bool)>,
    file: PathBuf,
}

impl ServiceDesk {
    /// With Davy's own profiles, and what was seen before.
    pub(crate) fn open(file: PathBuf, shared: Arc<Shared>) -> Self {
        let profiles = Profiles::built_in().unwrap_or_else(|fault| {
            tracing::error!("services are not bound: {fault}");
            Profiles::default()
        });
        let programs = Programs::built_in().unwrap_or_else(|fault| {
            tracing::error!("services are not bound: {fault}");
            Programs::default()
        });
        let learned = host::load(&file).unwrap_or_else(|error| {
            tracing::error!("what services started before is lost: {error}");
            Learned::default()
        });
        Self { profiles, programs, shared, learned: Mutex::new((learned, false)), file }
    }

    /// Decides about a program of these classes. Gives what the detector is to hear, if anything.
    pub(crate) fn judge(&self, began: &Began, classes: ClassSet, user: Option<&str>) -> Option<Event> {
        let policy = lock(&self.shared.rulebook).policy();
        let rehearsed = self.rehearsed(&began.info.cgroup, began.time);
        let services = if rehearsed { &Services::default() } else { &policy.services };
        let command = Command::new(&began.info.args, began.info.args_cut);
        let may = may_start(&self.profiles, services, began.origin.profiles, classes, &command, began.time);
        let MayStart::No { profile, class } = may else { return None };
        let profile = self.profiles.get(profile)?;
        if !rehearsed {
            let (service, path) = (profile.name.as_str(), began.info.image.path.as_str());
            let seen = Seen { time: began.time, service, class, path, command: &command, user };
            let mut learned = lock(&self.learned);
            learned.0.see(seen);
            learned.1 = true;
        }
        if services.mode_of(&profile.name) == ServiceMode::Learn {
            return None;
        }
        let breach = ServiceBreach {
            service: profile.name.clone(),
            root: began.origin.root,
            class,
            path: began.info.image.path.clone(),
            command: command.shown(),
            chain: began.chain.clone(),
            refused: false,
            technique: profile.technique(class),
        };
        Some(event(began, breach))
    }

    /// The kernel refused a program by its content; which profile it was for is found again by the program's name.
    fn refused(&self, began: &Began, path: &str) -> Option<Event> {
        self.count_refusal(began);
        let classes = self.programs.classes(path, &[]);
        let by = self.profiles.of(began.origin.profiles);
        let by = by.filter_map(|(_, p)| Some((p, p.forbids.and(classes).iter().next()?))).next();
        let (profile, class) = by?;
        let breach = ServiceBreach {
            service: profile.name.clone(),
            root: began.origin.root,
            class,
            path: path.to_owned(),
            command: path.to_owned(),
            chain: began.chain.clone(),
            refused: true,
            technique: profile.technique(class),
        };
        Some(event(began, breach))
    }

    /// A spike of refusals is more likely a gap in the profiles than an attack: what comes from
    /// that service, or from any where several have a part in it, is then only observed, loudly.
    fn count_refusal(&self, began: &Began) {
        let failsafe = lock(&self.shared.rulebook).policy().failsafe.clone();
        let limit =
            Limit { per_minute: failsafe.denials_per_minute, grace_secs: failsafe.grace.as_secs_f64() };
        let cgroup = &began.info.cgroup;
        if !self.rehearsed(cgroup, began.time)
            && let Some(why) = lock(&self.shared.standing).acted(PROTECTION, cgroup, limit, began.time)
        {
            tracing::error!("a spike of refusals: {why}");
        }
    }

    fn rehearsed(&self, cgroup: &str, now: Timestamp) -> bool {
        lock(&self.shared.standing).circumstances(PROTECTION, cgroup, now).rehearsal.is_some()
    }

    /// What waits for the administrator, the odd first.
    pub(crate) fn starts(&self, limit: usize, now: Timestamp) -> Vec<ServiceStart> {
        let mut all = self.settled(now).0.all();
        all.truncate(limit);
        all
    }

    /// Everything that was seen, without what the policy allows by now.
    fn settled(&self, now: Timestamp) -> MutexGuard<'_, (Learned, bool)> {
        let policy = lock(&self.shared.rulebook).policy();
        let mut learned = lock(&self.learned);
        let before = learned.0.len();
        learned.0.settle(|start| {
            policy.services.allowed(&start.service, start.class, now).any(|entry| {
                entry.command.is_none() || entry.command.as_deref() == Some(start.command.as_str())
            })
        });
        learned.1 |= learned.0.len() != before;
        learned
    }

    /// Forgets what the policy allows now, and writes down what changed.
    pub(crate) fn tend(&self, now: Timestamp) {
        let mut learned = self.settled(now);
        if learned.1 {
            match host::save(&learned.0, &self.file) {
                Ok(()) => learned.1 = false,
                Err(error) => {
                    tracing::error!(
                        "what services started is not written down: {}: {error}",
                        self.file.display()
                    );
                }
            }
        }
    }
}

fn event(began: &Began, breach: ServiceBreach) -> Event {
    let kind = EventKind::ServiceBreach(Box::new(breach));
    Event { time: began.time, process: Some(began.info.key), kind }
}

/// What the kernel is to refuse of each profile, in the profiles' order: nothing where it is only observed.
pub(crate) fn refused_by_kernel(profiles: &Profiles, policy: &Policy, now: Timestamp) -> Vec<ClassSet> {
    let of = |(_, profile): (ProfileId, &davy_trust::services::Profile)| {
        if policy.services.mode_of(&profile.name).plain() == Mode::Enforce {
            forbidden_whatever_the_command(profile, &policy.services, now)
        } else {
            ClassSet::NONE
        }
    };
    profiles.iter().map(of).collect()
}

/// The profiles whose service the packaged program at this path is, and those that let it go on unbound.
pub(crate) fn by_path(profiles: &Profiles, path: &str) -> (ProfileSet, ProfileSet) {
    profiles.iter().fold(Default::default(), |(is, lets_go), (id, profile)| {
        let add = |set: ProfileSet, wanted: bool| if wanted { set.with(id) } else { set };
        (add(is, profile.is_by_path(path)), add(lets_go, profile.releases(path)))
    })
}
