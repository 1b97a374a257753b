//! What the policy says of services and what they may start.

use davy_model::{Mode, ProgramClass, Timestamp};
use serde::{Deserialize, Serialize};

/// The names of the profiles that Davy has, in order.
pub const SERVICES: [&str; 12] = [
    "nginx",
    "apache",
    "php-fpm",
    "jenkins",
    "tomcat",
    "java-server",
    "redis",
    "postgresql",
    "mysql",
    "docker",
    "kubelet",
    "cron",
];

/// What is done when something from a service starts what the service has no use for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceMode {
    /// Nothing is looked at.
    Off,
    /// It is told.
    #[default]
    Observe,
    /// It is taken down as a proposed exception, and not told.
    Learn,
    /// It is refused where the kernel can, and ended elsewhere.
    Enforce,
}

impl ServiceMode {
    /// Its name in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Observe => "observe",
            Self::Learn => "learn",
            Self::Enforce => "enforce",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Off, Self::Observe, Self::Learn, Self::Enforce].into_iter().find(|mode| mode.name() == name)
    }

    /// As every protection has it; what is learned is observed.
    #[must_use]
    pub const fn plain(self) -> Mode {
        match self {
            Self::Off => Mode::Off,
            Self::Observe | Self::Learn => Mode::Observe,
            Self::Enforce => Mode::Enforce,
        }
    }
}

/// What services may start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// What is done about a service that is not named below.
    pub mode: ServiceMode,
    /// Services for which it is otherwise.
    pub profiles: Vec<ServiceProfile>,
    /// What services may start all the same.
    pub allow: Vec<ServiceAllow>,
}

/// A service for which it is otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceProfile {
    /// Its profile's name.
    pub name: String,
    /// What is done; `None` for what is done for all.
    pub mode: Option<ServiceMode>,
    /// Whether the exceptions that the profile brings along hold for nothing.
    pub strict: bool,
}

/// Something that a service may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAllow {
    /// The name of the service's profile.
    pub service: String,
    /// The class of program.
    pub class: ProgramClass,
    /// The pattern that the whole command must fit; `None` for every program of the class.
    pub command: Option<String>,
    /// Why, for whoever reads the policy later.
    pub reason: String,
    /// The first moment the entry no longer holds; `None` means for ever.
    pub until: Option<Timestamp>,
}

impl Services {
    fn own(&self, service: &str) -> Option<&ServiceProfile> {
        self.profiles.iter().find(|profile| profile.name == service)
    }

    /// What is done about this service.
    #[must_use]
    pub fn mode_of(&self, service: &str) -> ServiceMode {
        self.own(service).and_then(|own| own.mode).unwrap_or(self.mode)
    }

    /// Whether nothing is looked at of this service.
    #[must_use]
    pub fn is_off(&self, service: &str) -> bool {
        self.mode_of(service) == ServiceMode::Off
    }

    /// Whether nothing that usually is normal for this service is.
    #[must_use]
    pub fn is_strict(&self, service: &str) -> bool {
        self.own(service).is_some_and(|own| own.strict)
    }

    /// The entries that hold at this moment for a class of programs started by this service.
    pub fn allowed<'s>(
        &'s self,
        service: &'s str,
        class: ProgramClass,
        now: Timestamp,
    ) -> impl Iterator<Item = &'s ServiceAllow> {
        self.allow.iter().filter(move |entry| {
            entry.service == service && entry.class == class && entry.until.is_none_or(|until| now < until)
        })
    }

    /// Whether any service is enforced.
    #[must_use]
    pub fn enforces(&self) -> bool {
        SERVICES.iter().any(|service| self.mode_of(service) == ServiceMode::Enforce)
    }
}
