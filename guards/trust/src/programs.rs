//! Programs with a role in trust: those that write code which is trusted for a time, those that make code in memory, and the
//! classes of programs that services have no use for.

use std::collections::BTreeMap;

use davy_model::{ClassSet, ProgramClass};
use serde::Deserialize;
use thiserror::Error;

use crate::services::ProfileSet;

/// Davy's own list.
const BUILT_IN: &str = include_str!("../../../content/trust/programs.toml");

/// What is wrong with a list of programs.
#[derive(Debug, Error)]
#[error("the list of programs with a role: {0}")]
pub struct ProgramsError(#[from] toml::de::Error);

/// Path patterns of programs with a role.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Programs {
    installers: Vec<String>,
    hands: Vec<String>,
    writers: Vec<String>,
    written_code: Vec<String>,
    interpreters: Vec<String>,
    #[serde(default)]
    class: BTreeMap<ProgramClass, Vec<String>>,
}

/// Programs that are many, each by the name that they are started under.
const MULTI_CALL: [&str; 3] = ["busybox", "busybox.static", "toybox"];

/// What a program may do beyond running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// What it writes is trusted for a time.
    pub writer: bool,
    /// That holds only while root runs it.
    pub as_root: bool,
    /// It is one when a trusted writer started it.
    pub for_writers: bool,
    /// It makes memory executable after it wrote it.
    pub written_code: bool,
    /// It runs what its arguments name.
    pub interpreter: bool,
    /// It may run without a file.
    pub nameless: bool,
    /// What it is that services may have no use for.
    pub classes: ClassSet,
    /// The profiles whose service it is.
    pub services: ProfileSet,
    /// The profiles that do not bind what it begins.
    pub releases: ProfileSet,
}

impl Programs {
    /// Davy's own list.
    ///
    /// # Errors
    /// When it is no such list; a test sees to it that it is.
    pub fn built_in() -> Result<Self, ProgramsError> {
        Self::parse(BUILT_IN)
    }

    /// Reads a list.
    ///
    /// # Errors
    /// When the text is not TOML, or has other keys.
    pub fn parse(text: &str) -> Result<Self, ProgramsError> {
        Ok(toml::from_str(text)?)
    }

    /// The rights of the packaged program at this path. The caller has seen that its content is the package's.
    #[must_use]
    pub fn rights(&self, path: &str) -> Rights {
        let listed = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, path));
        let installs = listed(&self.installers);
        let writes = listed(&self.writers);
        Rights {
            writer: writes || installs,
            as_root: installs && !writes,
            for_writers: listed(&self.hands),
            written_code: listed(&self.written_code),
            interpreter: listed(&self.interpreters),
            nameless: false,
            classes: self.classes(path, &[]),
            ..Rights::default()
        }
    }

    /// The classes of a program by the name of its file, wherever it lies: what is in a class is refused and never allowed for
    /// it, so that a name that lies harms nobody but who gave it. `args` tell what a program of many names is.
    #[must_use]
    pub fn classes(&self, path: &str, args: &[String]) -> ClassSet {
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        let mut name = base_name(path);
        if MULTI_CALL.contains(&name) {
            let applet = args.iter().take(2).map(|arg| base_name(arg)).find(|arg| !MULTI_CALL.contains(arg));
            // A shell that was logged in with is called with a dash before its name.
            name = applet.map_or(name, |applet| applet.trim_start_matches('-'));
        }
        let listed = |(class, names): (&ProgramClass, &Vec<String>)| {
            names.iter().any(|pattern| part_matches(pattern, name)).then_some(*class)
        };
        self.class.iter().filter_map(listed).collect()
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a path fits a pattern, part by part; `*` stands for any run of characters inside one part.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if part_matches(pattern, part) => {}
            _ => return false,
        }
    }
}

fn part_matches(pattern: &str, part: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == part };
    let Some(mut left) = part.strip_prefix(first) else { return false };
    let mut pieces = rest.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return left.ends_with(piece);
        }
        match left.find(piece) {
            Some(at) => left = &left[at + piece.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_built_in_list_names_what_installs_and_what_translates() {
        let programs = Programs::built_in().unwrap();
        let installs = Rights { writer: true, as_root: true, ..Rights::default() };
        assert_eq!(programs.rights("/usr/bin/dpkg"), installs);
        assert_eq!(programs.rights("/usr/bin/tar"), Rights { for_writers: true, ..Rights::default() });
        assert!(programs.rights("/usr/lib/gcc/x86_64-linux-gnu/12/cc1").writer);
        assert!(programs.rights("/usr/bin/x86_64-linux-gnu-ld.bfd").writer);
        assert!(programs.rights("/usr/lib/jvm/java-17-openjdk-amd64/bin/java").written_code);
        for path in ["/usr/bin/curl", "/usr/bin/cp", "/bin/sh", "/usr/bin/tar", "/usr/bin/install"] {
            let rights = programs.rights(path);
            assert!(!rights.writer && !rights.written_code, "{path}");
        }
    }

    #[test]
    fn programs_have_classes_by_name_and_those_of_many_names_by_the_one_they_are_called() {
        use ProgramClass::{Compiler, Downloader, Interpreter, NetworkTool, PersistenceTool, Shell};
        let programs = Programs::built_in().unwrap();
        let table: [(&str, &[&str], Option<ProgramClass>); 18] = [
            ("/usr/bin/dash", &["sh"], Some(Shell)),
            ("/bin/bash", &["anything"], Some(Shell)),
            ("/tmp/bash (deleted)", &[], Some(Shell)),
            ("/bin/busybox", &["sh", "-c", "id"], Some(Shell)),
            ("/bin/busybox", &["busybox", "wget", "x"], Some(Downloader)),
            ("/bin/busybox", &["/bin/busybox", "-sh"], Some(Shell)),
            ("/bin/busybox", &["cat", "sh"], None),
            ("/bin/busybox", &[], None),
            ("/usr/bin/python3.11", &[], Some(Interpreter)),
            ("/usr/bin/perl", &[], Some(Interpreter)),
            ("/usr/sbin/php-fpm8.2", &[], None),
            ("/usr/bin/curl", &[], Some(Downloader)),
            ("/usr/bin/x86_64-linux-gnu-gcc-12", &[], Some(Compiler)),
            ("/usr/lib/gcc/x86_64-linux-gnu/12/cc1", &[], Some(Compiler)),
            ("/usr/bin/nc.openbsd", &[], Some(NetworkTool)),
            ("/usr/bin/crontab", &[], Some(PersistenceTool)),
            ("/usr/bin/env", &["env", "sh"], None),
            ("", &[], None),
        ];
        for (path, args, class) in table {
            let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
            let found: Vec<_> = programs.classes(path, &args).iter().collect();
            assert_eq!(found, Vec::from_iter(class), "{path} {args:?}");
        }
    }

    #[test]
    fn a_star_stays_inside_its_part() {
        assert!(matches("/a/*/c", "/a/b/c") && matches("/a/x*z", "/a/xyz") && matches("/a/x*", "/a/x"));
        assert!(matches("/a/*b*d", "/a/abcd") && matches("/a/*-ld", "/a/x-y-ld"));
        for (pattern, path) in [
            ("/a/*", "/a/b/c"),
            ("/a/*/c", "/a/c"),
            ("/a/x*z", "/a/xy"),
            ("/a/*b*d", "/a/adb"),
            ("/a", "/a/"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }
}
