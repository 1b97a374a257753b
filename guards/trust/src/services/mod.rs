//! Services, and what they may start.
//!
//! A [`Profile`] says which programs are a service, and which classes of programs nothing that comes from the service may start.
//! The [`Lineage`] knows which processes come from which services, through any number of programs between. [`may_start`] decides,
//! without either: whoever can tell a process's profiles and a program's classes can ask it.

mod command;
mod learned;
mod lineage;
mod profile;

use davy_model::{ClassSet, ProgramClass, Timestamp};
use davy_policy::Services;

pub use command::{Command, shape};
pub use learned::{Learned, Seen};
pub use lineage::{Lineage, Origin, Start};
pub use profile::{Kind, Profile, ProfileError, ProfileId, ProfileSet, Profiles};

/// Whether something from a service may start a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MayStart {
    /// No profile has a word against it.
    Yes,
    /// A profile has, and an exception or the administrator says otherwise: in words.
    Excepted(String),
    /// A profile has.
    No {
        /// Which.
        profile: ProfileId,
        /// What the program is that it has no use for.
        class: ProgramClass,
    },
}

/// Whether what comes from services of these profiles may start a program of these classes with this command.
#[must_use]
pub fn may_start(
    profiles: &Profiles,
    policy: &Services,
    bound: ProfileSet,
    classes: ClassSet,
    command: &Command,
    now: Timestamp,
) -> MayStart {
    let mut excepted = None;
    for (id, profile) in profiles.of(bound) {
        if policy.is_off(&profile.name) {
            continue;
        }
        for class in profile.forbids.and(classes).iter() {
            let allowed = policy
                .allowed(&profile.name, class, now)
                .find(|entry| entry.command.as_deref().is_none_or(|pattern| command.fits(pattern)))
                .map(|entry| format!("the policy allows it: {}", entry.reason));
            let own = || {
                let exceptions = profile.exceptions.iter().filter(|_| !policy.is_strict(&profile.name));
                let fits = exceptions
                    .filter(|e| e.class == class)
                    .find(|e| e.command.iter().any(|pattern| command.fits(pattern)));
                fits.map(|e| format!("it is usual for {}: {}", profile.name, e.reason))
            };
            match allowed.or_else(own) {
                Some(why) => excepted = Some(why),
                None => return MayStart::No { profile: id, class },
            }
        }
    }
    excepted.map_or(MayStart::Yes, MayStart::Excepted)
}

/// What of a profile can be refused by who knows a program's classes and not its command: what no exception speaks of.
#[must_use]
pub fn forbidden_whatever_the_command(profile: &Profile, policy: &Services, now: Timestamp) -> ClassSet {
    if policy.is_off(&profile.name) {
        return ClassSet::NONE;
    }
    let open = profile.forbids.iter().filter(|class| {
        let own = !policy.is_strict(&profile.name) && profile.exceptions.iter().any(|e| e.class == *class);
        own || policy.allowed(&profile.name, *class, now).next().is_some()
    });
    open.fold(profile.forbids, ClassSet::without)
}

#[cfg(test)]
mod tests;
