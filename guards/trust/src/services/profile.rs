//! What is known of each service, as data.

use davy_model::{ClassSet, ProcessInfo, ProgramClass, Technique};
use serde::Deserialize;
use thiserror::Error;

use crate::programs::matches;

/// Davy's own, by the name of their file. The order is that in which a program is looked for: what tells a service apart by its
/// arguments comes before what takes every program of that kind.
const BUILT_IN: [(&str, &str); 12] = [
    ("nginx", include_str!("../../../../content/profiles/nginx.toml")),
    ("apache", include_str!("../../../../content/profiles/apache.toml")),
    ("php-fpm", include_str!("../../../../content/profiles/php-fpm.toml")),
    ("jenkins", include_str!("../../../../content/profiles/jenkins.toml")),
    ("tomcat", include_str!("../../../../content/profiles/tomcat.toml")),
    ("java-server", include_str!("../../../../content/profiles/java-server.toml")),
    ("redis", include_str!("../../../../content/profiles/redis.toml")),
    ("postgresql", include_str!("../../../../content/profiles/postgresql.toml")),
    ("mysql", include_str!("../../../../content/profiles/mysql.toml")),
    ("docker", include_str!("../../../../content/profiles/docker.toml")),
    ("kubelet", include_str!("../../../../content/profiles/kubelet.toml")),
    ("cron", include_str!("../../../../content/profiles/cron.toml")),
];

/// The most profiles there can be: one bit each.
const MAX_PROFILES: usize = 32;

/// Of a process's arguments, that are looked at.
const MAX_ARGUMENTS: usize = 64;

/// What is wrong with a profile.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// It cannot be read.
    #[error("the profile {name}: {error}")]
    Text {
        /// Whose.
        name: String,
        /// The reader's message.
        error: toml::de::Error,
    },
    /// It is called otherwise than its file, or as another one.
    #[error("the profile {0}: its name is not its file's, or not its alone")]
    Name(String),
    /// There is no bit for it.
    #[error("there are more than 32 profiles")]
    TooMany,
}

/// What a service is for: it says what is meant by a shell that comes from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It answers requests from the web.
    Web,
    /// It keeps data.
    Database,
    /// It runs containers.
    Containers,
    /// It runs what others wrote down, as its work.
    Jobs,
}

/// What a service starts although its profile has no use for that class, as a matter of course.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// The class.
    pub class: ProgramClass,
    /// Patterns of whole commands, as [`Command::fits`](super::Command::fits) has them.
    pub command: Vec<String>,
    /// Why, for people.
    pub reason: String,
}

/// A test that a profile carries.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileTest {
    /// Programs one after the other, from the service to the one in question: the path, and after it the arguments.
    pub chain: Vec<Vec<String>>,
    /// The class that the last one is refused for; nothing when it is not.
    #[serde(default)]
    pub refused: Option<ProgramClass>,
}

/// What is known of one service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name, for the policy and for people.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// Paths at which its programs are installed; `*` stands for any part of one name.
    pub programs: Vec<String>,
    /// Words of which one must be among its arguments, where its program is that of many services.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// systemd units, of which its cgroup may be one instead.
    #[serde(default)]
    pub units: Vec<String>,
    /// Classes of programs that it has no use for.
    #[serde(deserialize_with = "classes")]
    pub forbids: ClassSet,
    /// Programs that begin something else, which the profile does not bind: a container.
    #[serde(default)]
    pub releases: Vec<String>,
    /// What it starts all the same.
    #[serde(default, rename = "exception")]
    pub exceptions: Vec<Exception>,
    /// Its tests.
    #[serde(default, rename = "test")]
    pub tests: Vec<ProfileTest>,
}

fn classes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ClassSet, D::Error> {
    Ok(Vec::<ProgramClass>::deserialize(deserializer)?.into_iter().collect())
}

impl Profile {
    /// Whether the packaged or installed file at this path is the service whatever its arguments are.
    #[must_use]
    pub fn is_by_path(&self, path: &str) -> bool {
        self.arguments.is_empty() && self.units.is_empty() && self.has_program(path)
    }

    fn has_program(&self, path: &str) -> bool {
        self.programs.iter().any(|pattern| matches(pattern, path))
    }

    fn is(&self, path: &str, args: &[String], cgroup: &str) -> bool {
        let says = |arg: &String| {
            let arg = arg.to_ascii_lowercase();
            self.arguments.iter().any(|word| arg.contains(word.as_str()))
        };
        let in_unit = || cgroup.split('/').any(|part| self.units.iter().any(|unit| matches(unit, part)));
        self.has_program(path)
            && (self.is_by_path(path) || args.iter().take(MAX_ARGUMENTS).any(says) || in_unit())
    }

    /// Whether the program at this path begins something else, which the profile does not bind.
    #[must_use]
    pub fn releases(&self, path: &str) -> bool {
        self.releases.iter().any(|pattern| matches(pattern, path))
    }

    /// The technique that starting a program of this class from the service belongs to.
    #[must_use]
    pub fn technique(&self, class: ProgramClass) -> Technique {
        Technique::new(match class {
            ProgramClass::Shell if self.kind == Kind::Web => "T1505.003",
            ProgramClass::Shell => "T1059.004",
            ProgramClass::Interpreter => "T1059",
            ProgramClass::Downloader => "T1105",
            ProgramClass::Compiler => "T1027.004",
            ProgramClass::NetworkTool => "T1095",
            ProgramClass::PersistenceTool => "T1053",
        })
    }
}

/// One of [`Profiles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileId(u8);

/// Some of [`Profiles`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProfileSet(u32);

impl ProfileSet {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one is among them.
    #[must_use]
    pub const fn has(self, id: ProfileId) -> bool {
        self.0 & 1 << id.0 != 0
    }

    /// With one more.
    #[must_use]
    pub const fn with(self, id: ProfileId) -> Self {
        Self(self.0 | 1 << id.0)
    }

    /// As the kernel's programs have it: one bit each, in the profiles' order.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    const fn without(self, id: ProfileId) -> Self {
        Self(self.0 & !(1 << id.0))
    }
}

/// All profiles.
#[derive(Clone, Debug, Default)]
pub struct Profiles(Vec<Profile>);

impl Profiles {
    /// Davy's own.
    ///
    /// # Errors
    /// When one of them is none; a test sees to it that they are.
    pub fn built_in() -> Result<Self, ProfileError> {
        Self::parse(&BUILT_IN)
    }

    /// Reads profiles, each with the name of its file.
    ///
    /// # Errors
    /// When a text is not TOML, has other keys, or a name that is not its file's.
    pub fn parse(texts: &[(&str, &str)]) -> Result<Self, ProfileError> {
        let mut profiles: Vec<Profile> = Vec::new();
        for (name, text) in texts {
            let profile: Profile = toml::from_str(text)
                .map_err(|error| ProfileError::Text { name: (*name).to_owned(), error })?;
            if profile.name != *name || profiles.iter().any(|known| known.name == profile.name) {
                return Err(ProfileError::Name((*name).to_owned()));
            }
            profiles.push(profile);
        }
        if profiles.len() > MAX_PROFILES { Err(ProfileError::TooMany) } else { Ok(Self(profiles)) }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ProfileId, &Profile)> {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(index, profile)| Some((ProfileId(u8::try_from(index).ok()?), profile)))
    }

    /// Those of a set, in order.
    pub fn of(&self, set: ProfileSet) -> impl Iterator<Item = (ProfileId, &Profile)> {
        self.iter().filter(move |(id, _)| set.has(*id))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: ProfileId) -> Option<&Profile> {
        self.0.get(usize::from(id.0))
    }

    /// The service that a process is, by its program, arguments and cgroup.
    #[must_use]
    pub fn recognise(&self, info: &ProcessInfo) -> Option<ProfileId> {
        let path = info.image.path.strip_suffix(" (deleted)").unwrap_or(&info.image.path);
        let is =
            |(id, profile): (ProfileId, &Profile)| profile.is(path, &info.args, &info.cgroup).then_some(id);
        self.iter().find_map(is)
    }

    /// Without those that the program at this path begins something else for.
    #[must_use]
    pub fn released(&self, bound: ProfileSet, path: &str) -> ProfileSet {
        let gone = self.of(bound).filter(|(_, profile)| profile.releases(path));
        gone.fold(bound, |set, (id, _)| set.without(id))
    }
}
