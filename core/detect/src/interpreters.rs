//! What interpreters are told to run by their command lines.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::process_table::base_name;

/// Arguments looked at.
const MAX_ARGUMENTS: usize = 256;

/// How one family of interpreters takes its program.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Interpreter {
    names: Vec<String>,
    code: Vec<String>,
    clustered: bool,
    script: Vec<String>,
    module: Vec<String>,
    input: Vec<String>,
    values: Vec<String>,
    attached: Vec<String>,
    code_first: bool,
    applet: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    interpreter: Vec<Interpreter>,
}

/// Where an interpreter's program comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// The command line holds it.
    Code(String),
    /// The command line names a file.
    Script(String),
    /// The command line names it in the language's own way, as a module or class.
    Module(String),
    /// Standard input, or the person at the terminal.
    Input,
}

/// The interpreters that are known.
#[derive(Clone, Debug, Default)]
pub struct Interpreters(Arc<HashMap<String, Arc<Interpreter>>>);

impl Interpreters {
    /// Those that come with Davy.
    #[must_use]
    pub fn builtin() -> Self {
        // A test holds that the built-in file reads; without it no script would be told from data.
        Self::parse(include_str!("../../../content/interpreters.toml")).unwrap_or_default()
    }

    /// Reads a file of interpreters.
    ///
    /// # Errors
    /// The TOML reader's message with line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut known = HashMap::new();
        for interpreter in file.interpreter.into_iter().map(Arc::new) {
            for name in &interpreter.names {
                known.insert(name.clone(), interpreter.clone());
            }
        }
        Ok(Self(Arc::new(known)))
    }

    /// What a program of this file name, started with these arguments (its own name first), runs; `None` when it is no
    /// interpreter.
    #[must_use]
    pub fn given(&self, program: &str, arguments: &[String]) -> Option<Given> {
        let interpreter = self.find(program)?;
        let mut rest = arguments.iter().skip(1).take(MAX_ARGUMENTS).map(String::as_str);
        if interpreter.applet {
            // Under another name it is that program: /bin/sh is busybox on Alpine.
            let called = base_name(arguments.first()?);
            if self.find(called).is_some_and(|called| !called.applet) {
                return self.given(called, arguments);
            }
            let applet = base_name(arguments.get(1)?);
            return self
                .find(applet)
                .filter(|found| !found.applet)
                .and_then(|_| self.given(applet, &arguments[1..]));
        }
        let has = |list: &[String], argument: &str| list.iter().any(|option| option == argument);
        while let Some(argument) = rest.next() {
            let mut next = || rest.next().unwrap_or_default().to_owned();
            if argument == "-" || has(&interpreter.input, argument) {
                return Some(Given::Input);
            }
            if argument == "--" {
                let first = next();
                return Some(if first.is_empty() { Given::Input } else { interpreter.first(first) });
            }
            if has(&interpreter.code, argument) || interpreter.clusters_code(argument) {
                return Some(Given::Code(next()));
            }
            if has(&interpreter.script, argument) {
                return Some(Given::Script(next()));
            }
            if has(&interpreter.module, argument) {
                return Some(Given::Module(next()));
            }
            if let Some((option, value)) = argument.split_once('=').filter(|_| argument.starts_with("--")) {
                if has(&interpreter.code, option) {
                    return Some(Given::Code(value.to_owned()));
                }
                if has(&interpreter.script, option) {
                    return Some(Given::Script(value.to_owned()));
                }
            }
            if has(&interpreter.values, argument) {
                next();
            } else if !argument.starts_with(['-', '+']) {
                return Some(interpreter.first(argument.to_owned()));
            }
        }
        Some(Given::Input)
    }

    /// The argument that names the script, if one does.
    #[must_use]
    pub fn script(&self, program: &str, arguments: &[String]) -> Option<String> {
        match self.given(program, arguments)? {
            Given::Script(path) => Some(path),
            _ => None,
        }
    }

    fn find(&self, program: &str) -> Option<&Interpreter> {
        let found = self.0.get(program).or_else(|| {
            let plain =
                program.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '_'));
            self.0.get(plain)
        });
        found.map(Arc::as_ref)
    }
}

impl Interpreter {
    fn first(&self, argument: String) -> Given {
        if self.code_first { Given::Code(argument) } else { Given::Script(argument) }
    }

    /// Whether single letters that stand together hold one that is followed by the program.
    fn clusters_code(&self, argument: &str) -> bool {
        let Some(letters) = argument.strip_prefix('-').filter(|_| self.clustered) else { return false };
        letters.len() <= 6
            && letters.bytes().all(|b| b.is_ascii_alphabetic())
            && !self.attached.iter().any(|option| argument.starts_with(option.as_str()))
            && self.code.iter().any(|option| option.len() == 2 && letters.contains(&option[1..]))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn each_takes_its_program_in_its_own_way() {
        let known = Interpreters::parse(include_str!("../../../content/interpreters.toml")).unwrap();
        let code = |text: &str| Some(Given::Code(text.to_owned()));
        let script = |path: &str| Some(Given::Script(path.to_owned()));
        for (program, line, expected) in [
            ("bash", "bash -c id", code("id")),
            ("bash", "-bash", Some(Given::Input)),
            ("dash", "sh -ec id x", code("id")),
            ("bash", "bash -o pipefail -x ./run.sh -c not", script("./run.sh")),
            ("bash", "bash --rcfile /tmp/rc", Some(Given::Input)),
            ("bash", "bash /dev/fd/63", script("/dev/fd/63")),
            ("dash", "sh -s -- --version", Some(Given::Input)),
            ("dash", "sh -", Some(Given::Input)),
            ("python3.11", "python3 -c print()", code("print()")),
            ("python3.11", "python3 -u -W ignore job.py -c x", script("job.py")),
            ("python3.11", "python3 -m http.server 80", Some(Given::Module("http.server".to_owned()))),
            ("perl", "perl -MSocket -e exec", code("exec")),
            ("perl", "perl -wne print", code("print")),
            ("perl", "perl -Mstrict x.pl", script("x.pl")),
            ("ruby3.1", "ruby -rsocket -e exit", code("exit")),
            ("php8.2", "php -d x=1 -r phpinfo();", code("phpinfo();")),
            ("php8.2", "php -f a.php", script("a.php")),
            ("php8.2", "php artisan serve", script("artisan")),
            ("node", "node --eval=1 x", code("1")),
            ("node", "node -r dotenv server.js", script("server.js")),
            ("java", "java -Xmx1g -cp a.jar -jar app.jar", script("app.jar")),
            ("java", "java -cp a.jar Main", script("Main")),
            ("gawk", "awk -F: {print} file", code("{print}")),
            ("gawk", "awk -v a=1 -f prog.awk file", script("prog.awk")),
            ("busybox", "busybox sh -c id", code("id")),
            ("busybox", "sh /tmp/x", script("/tmp/x")),
            ("busybox", "busybox ls /", None),
            ("ls", "ls -c id", None),
        ] {
            assert_eq!(known.given(program, &words(line)), expected, "{program}: {line}");
        }
        assert_eq!(known.script("bash", &words("bash -c id")), None);
        assert!(known.find("python3").is_some() && known.find("lua5.4").is_some());
        assert!(known.find("grep").is_none());
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(Interpreters::parse("[[interpreter]]\nnames = [\"x\"]\ncod = []").is_err());
    }

    proptest! {
        #[test]
        fn no_command_line_makes_it_panic(
            program in "(sh|perl|python3|php|busybox|java|awk|\\PC{0,8})",
            arguments in proptest::collection::vec("(-c|-e|-jar|--|-|--eval=|busybox|\\PC{0,12})", 0..8),
        ) {
            let _ = Interpreters::builtin().given(&program, &arguments);
        }
    }
}
