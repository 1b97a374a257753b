//! Who goes from this host to others: a service in a cgroup that is named as one, and hosts that are addresses in a network namespace.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use davy_model::{Finding, FindingKind, Severity};
use davy_test_e2e::{Agent, TwoHosts, cgroup2, davy, root_or_skip};

const PATIENCE: Duration = Duration::from_secs(30);

/// One test at a time: each agent sees the whole host.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host with a cgroup that is named as a service, and another host with ten addresses.
struct World {
    hosts: TwoHosts,
    service: String,
    cgroup: PathBuf,
}

impl World {
    fn make(name: &str) -> Self {
        let there: Vec<String> = (1..=10).map(|n| format!("10.79.3.{n}/16")).collect();
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        let hosts = TwoHosts::make(&["10.79.0.1/16"], &there).unwrap();
        let service = format!("davy-e2e-{name}-{}.service", std::process::id());
        let cgroup = cgroup2().unwrap().join(&service);
        std::fs::create_dir(&cgroup).unwrap();
        Self { hosts, service, cgroup }
    }

    /// Runs a program of Python in the service.
    fn run(&self, program: &str) -> Output {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg("echo $$ > \"$0\" && exec \"$@\"").arg(self.cgroup.join("cgroup.procs"));
        let inside = self.hosts.command(0);
        shell.arg(inside.get_program()).args(inside.get_args()).args(["python3", "-c", program]);
        shell.stdin(Stdio::null()).output().unwrap()
    }

    /// Connects from the service to these addresses at a port; whether anybody answers there is all the same.
    fn connect(&self, hosts: std::ops::RangeInclusive<u32>, port: u16) {
        self.connect_all(&[(hosts, port)]);
    }

    /// The same, one after another, by one process.
    fn connect_all(&self, reached: &[(std::ops::RangeInclusive<u32>, u16)]) {
        let each = reached.iter().map(|(hosts, port)| {
            let (first, last) = (hosts.start(), hosts.end() + 1);
            format!(
                "for n in range({first}, {last}):\n    s = socket.socket(); s.settimeout(1); \
                 s.connect_ex((f'10.79.3.{{n}}', {port})); s.close()\n"
            )
        });
        let output = self.run(&format!("import socket\n{}", each.collect::<String>()));
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::write(self.cgroup.join("cgroup.kill"), "1");
        let end = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir(&self.cgroup).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn moves(agent: &Agent, service: &str) -> Vec<Finding> {
    let mut found = agent.findings().unwrap();
    found.retain(|f| f.kind == FindingKind::Lateral && f.summary.contains(service));
    found
}

fn said(agent: &Agent, verb: &[&str]) -> String {
    let output = Command::new(davy()).arg("--base-dir").arg(agent.base()).args(verb).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_service_that_goes_through_the_network_is_found_and_explained_and_its_own_peers_are_not() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("lateral");
    let policy = "[lateral]\nlearn_for = \"0s\"\n[outbound]\nmode = \"observe\"\n[[outbound.allow]]\n\
                  to = [\"10.79.3.0/24\"]\nports = 6379\nreason = \"too wide\"\n";
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start_in(folder.path(), policy, Command::new(davy()), &[]).unwrap();
    // One database and a new one are no move.
    world.connect(1..=2, 5432);
    std::thread::sleep(Duration::from_secs(4));
    assert!(moves(&agent, &world.service).is_empty());

    world.connect_all(&[(1..=8, 22), (3..=6, 6379)]);
    let look = |agent: &Agent| {
        let mut found = moves(agent, &world.service);
        found.retain(|f| f.summary.contains("Redis") && f.severity == Severity::High);
        Ok(found.pop())
    };
    let found = agent.wait_for("a finding about the move", PATIENCE, look).unwrap();
    let evidence = &found.evidence[0].text;
    for words in
        ["SSH at 10.79.3.1", "PostgreSQL at 10.79.3.1, 10.79.3.2", "never spoke to", "davy.toml:5 lets it"]
    {
        assert!(evidence.contains(words), "{words}: {evidence}");
    }
    assert!(found.techniques.iter().any(|t| t.0.starts_with("T1021")), "{:?}", found.techniques);
    let explained = said(&agent, &["explain", &format!("f{}", found.id.0)]);
    assert!(explained.contains("SSH at") && explained.contains("python3"), "{explained}");
    let incidents = agent.incidents().unwrap();
    let incident = incidents.iter().find(|i| i.findings.iter().any(|f| f.id == found.id)).unwrap();
    assert!(incident.timeline.iter().any(|e| e.text.contains("SSH at")), "{:?}", incident.timeline);
    // Events are written down up to half a second after the finding that rests on them.
    let kept = |agent: &Agent| {
        let events = said(agent, &["events", "--kind", "lateral"]);
        Ok(events.contains("SSH at").then_some(()))
    };
    agent.wait_for("the event", PATIENCE, kept).unwrap();
    assert_eq!(moves(&agent, &world.service).len(), 1, "one finding grows");

    // What was told is known from then on, for the next agent too.
    drop(agent);
    let agent = Agent::start_in(folder.path(), policy, Command::new(davy()), &[]).unwrap();
    let before = moves(&agent, &world.service).len();
    world.connect(1..=8, 22);
    world.connect(1..=2, 5432);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(moves(&agent, &world.service).len(), before, "{:?}", moves(&agent, &world.service));
}

#[test]
fn what_is_there_on_the_first_day_is_learned_and_what_is_off_is_not_told() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("learning");
    let agent = Agent::start("").unwrap();
    world.connect(1..=8, 5432);
    world.connect(1..=2, 22);
    world.connect(3..=10, 22);
    // Judged after a second and a half, and told within the next.
    std::thread::sleep(Duration::from_secs(4));
    assert!(moves(&agent, &world.service).is_empty(), "the first round of monitoring, after installation");
    drop(agent);

    let off = World::make("off");
    let agent = Agent::start("[lateral]\nmode = \"off\"\nlearn_for = \"0s\"\n").unwrap();
    off.connect(1..=10, 22);
    std::thread::sleep(Duration::from_secs(4));
    assert!(moves(&agent, &off.service).is_empty());
}

/// What a stranger makes a web server do.
#[test]
fn a_web_server_that_is_made_to_log_in_next_door_is_told_at_the_first_host() {
    if !root_or_skip() {
        return;
    }
    if !Path::new("/usr/sbin/nginx").exists() {
        println!("SKIPPED: nginx is not installed");
        return;
    }
    let _alone = alone();
    let world = World::make("web");
    let folder = tempfile::Builder::new().prefix("davy-lateral-").tempdir().unwrap();
    let dir = folder.path().display();
    let temp =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|k| format!("{k}_temp_path {dir}/{k};"));
    let config = format!(
        "daemon off; pid {dir}/pid; error_log {dir}/log; events {{}} http {{ access_log off; {} server {{ listen \
         127.0.0.1:8080; location ~ ^/to/(.*)$ {{ proxy_pass http://$1; proxy_connect_timeout 2s; }} }} }}",
        temp.concat()
    );
    std::fs::write(folder.path().join("conf"), config).unwrap();
    let agent = Agent::start("[lateral]\nlearn_for = \"0s\"\n").unwrap();
    let server = format!("nginx -c {dir}/conf -e {dir}/log");
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg("echo $$ > \"$0\" && exec \"$@\"").arg(world.cgroup.join("cgroup.procs"));
    let inside = world.hosts.command(0);
    shell.arg(inside.get_program()).args(inside.get_args()).args(server.split(' '));
    let mut nginx = shell.stdin(Stdio::null()).spawn().unwrap();
    let asked = |to: &str| {
        let url = format!("http://127.0.0.1:8080/to/{to}");
        let mut curl = world.hosts.command(0);
        curl.args(["curl", "-s", "--noproxy", "*", "-o", "/dev/null", "--max-time", "10", &url]);
        let end = Instant::now() + PATIENCE;
        // Until the server listens.
        while !curl.status().unwrap().success() {
            assert!(Instant::now() < end, "nginx does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    asked("10.79.3.2:8000");
    std::thread::sleep(Duration::from_secs(3));
    assert!(moves(&agent, &world.service).is_empty(), "an application behind it");
    asked("10.79.3.3:22");
    let look = |agent: &Agent| Ok(moves(agent, &world.service).pop());
    let found = agent.wait_for("a finding about the move", PATIENCE, look);
    let _ = nginx.kill();
    let _ = nginx.wait();
    let found = found.unwrap();
    assert!(
        found.summary.contains("comes from nginx") && found.summary.contains("SSH at 10.79.3.3"),
        "{found:?}"
    );
    assert_eq!(found.severity, Severity::Medium);
    assert_eq!(found.techniques[0].0, "T1021.004");
}
