//! Who may connect to what: real clients in a network namespace and a cgroup of the test's own.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use davy_model::{Finding, FindingKind, Severity};
use davy_test_e2e::{Agent, cgroup2, davy, root_or_skip};
use davy_wire::{Command as Order, OutboundSummary, Query, Reply, RequestBody};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PATIENCE: Duration = Duration::from_secs(30);

/// One test at a time: each agent sees the whole host.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A network namespace with a web server at port 8080 of all its addresses and a name server that knows one address for
/// everything; and a cgroup that is named as a service.
struct World {
    net: String,
    service: String,
    cgroup: PathBuf,
    folder: tempfile::TempDir,
}

/// Where the name server says that everything is.
const NAMED: &str = "203.0.113.7";
/// An address that no name leads to.
const NAMELESS: &str = "203.0.113.8";
const RESOLVER: &str = "198.51.100.53";

impl World {
    fn make(name: &str) -> Self {
        let net = format!("davy-e2e-{name}-{}", std::process::id());
        let service = format!("{net}.service");
        let cgroup = cgroup2().unwrap().join(&service);
        std::fs::create_dir(&cgroup).unwrap();
        let folder = tempfile::Builder::new().prefix("davy-outbound-").tempdir().unwrap();
        std::fs::write(folder.path().join("resolv.conf"), format!("nameserver {RESOLVER}\n")).unwrap();
        let world = Self { net, service, cgroup, folder };
        let net = &world.net;
        let addresses: String =
            [NAMED, NAMELESS, RESOLVER].map(|a| format!(" && ip -n {net} addr add {a}/32 dev lo")).concat();
        let line = format!("ip netns add {net} && ip -n {net} link set lo up{addresses}");
        assert!(Command::new("sh").arg("-c").arg(line).status().unwrap().success());
        // At 853 as well, where name servers answer in TLS.
        let (webs, names) = world.inside_net(|| {
            let webs = [8080, 853].map(|port| TcpListener::bind(("0.0.0.0", port)).unwrap());
            (webs, UdpSocket::bind((RESOLVER, 53)).unwrap())
        });
        for web in webs {
            std::thread::spawn(move || {
                for stream in web.incoming().flatten() {
                    std::thread::spawn(move || serve(stream));
                }
            });
        }
        std::thread::spawn(move || answer_names(&names));
        world
    }

    fn inside_net<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let handle = File::open(format!("/run/netns/{}", self.net)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                task()
            });
            thread.join().unwrap()
        })
    }

    /// Runs a shell's line in the namespace with its name server, in the service or outside of it.
    fn run(&self, in_service: bool, line: &str) -> Output {
        let mut command = Command::new("sh");
        let enter = "if [ -n \"$0\" ]; then echo $$ > \"$0\"; fi; exec nsenter --net=\"$1\" unshare --mount sh -c \
                     'mount --bind \"$0\" /etc/resolv.conf && eval \"$1\"' \"$2\" \"$3\"";
        command.arg("-c").arg(enter);
        command.arg(if in_service { self.cgroup.join("cgroup.procs") } else { PathBuf::new() });
        command.arg(format!("/run/netns/{}", self.net)).arg(self.folder.path().join("resolv.conf")).arg(line);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Whether a web page comes from there. It is asked from another address, or it would be no other host that answers.
    fn reaches(&self, in_service: bool, host: &str) -> bool {
        let curl = format!("curl -sS --noproxy '*' --interface {RESOLVER} --max-time 10 http://{host}:8080/");
        let output = self.run(in_service, &curl);
        let came = output.stdout == b"hello";
        assert_eq!(came, output.status.success(), "{output:?}");
        came
    }

    /// What comes of a way round the policy.
    fn tries(&self, way: &str) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ways_round.py");
        let (procs, folder) = (self.cgroup.join("cgroup.procs"), self.folder.path());
        let (procs, folder) = (procs.display(), folder.display());
        let line = format!("python3 {script} \"{way}\" {procs} {NAMELESS} {RESOLVER} {folder}");
        let output = self.run(false, &line);
        assert!(output.status.success(), "{way}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn policy(&self, mode: &str, rest: &str) -> String {
        format!(
            "[scope]\ncgroups = [\"/{0}\"]\n[outbound]\nmode = \"{mode}\"\nresolvers = [\"{RESOLVER}\"]\n\
             [[outbound.allow]]\nservice = \"{0}\"\nto = [\"*.example.org\"]\nports = 8080\nprotocol = \"tcp\"\n\
             reason = \"its applications\"\n{rest}",
            self.service
        )
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.net]).status();
        let _ = std::fs::write(self.cgroup.join("cgroup.kill"), "1");
        let end = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir(&self.cgroup).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn serve(mut stream: std::net::TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = stream.read(&mut [0; 1024]);
    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
}

/// Answers every question for an address (RFC 1035).
fn answer_names(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let Some(name) = buffer[12..length].iter().position(|byte| *byte == 0) else { continue };
        let end = 12 + name + 5;
        let wants_v4 = buffer[end - 4..end - 2] == [0, 1];
        let mut answer = buffer[..end].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(wants_v4), 0, 0, 0, 0]);
        if wants_v4 {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
            answer.extend(NAMED.parse::<Ipv4Addr>().unwrap().octets());
        }
        let _ = socket.send_to(&answer, from);
    }
}

fn summary(agent: &Agent) -> OutboundSummary {
    match agent.ask(RequestBody::Query(Query::Outbound)).unwrap().pop() {
        Some(Reply::Outbound(summary)) => summary,
        other => panic!("not a summary: {other:?}"),
    }
}

fn reload(agent: &Agent, policy: &str) {
    std::fs::write(agent.base().join("etc/davy.toml"), policy).unwrap();
    agent.ask(RequestBody::Command(Order::Reload)).unwrap();
    // The thread that tells the kernel looks five times a second.
    std::thread::sleep(Duration::from_millis(600));
}

fn finding(agent: &Agent, severity: Severity, words: &str) -> Finding {
    let wanted = |f: &Finding| {
        f.kind == FindingKind::Outbound
            && f.severity == severity
            && f.evidence.iter().any(|e| e.text.contains(words))
    };
    let look = |agent: &Agent| Ok(agent.findings()?.into_iter().find(&wanted));
    agent.wait_for(&format!("a finding about {words}"), PATIENCE, look).unwrap()
}

fn said(agent: &Agent, verb: &[&str]) -> String {
    let output = Command::new(davy()).arg("--base-dir").arg(agent.base()).args(verb).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_service_reaches_its_names_and_nothing_else_and_everyone_else_is_let_go() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("out");
    let agent = Agent::start(&world.policy("enforce", "")).unwrap();
    let line = format!("no rule of {}:4 allows it", agent.base().join("etc/davy.toml").display());

    assert!(!world.reaches(true, "app.example.net"), "by a name that no entry is about");
    assert!(world.reaches(true, "app.example.org"), "by one that an entry is about");
    assert!(world.reaches(true, "app.example.net"), "the address is one that both share");
    let before = Instant::now();
    assert!(!world.reaches(true, NAMELESS));
    let found = finding(&agent, Severity::Medium, &format!("kept from connecting to {NAMELESS}:8080"));
    let took = before.elapsed();
    println!("told {took:?} after the client began");
    assert!(took < Duration::from_secs(5));
    assert!(found.summary.contains(&world.service) && found.summary.contains(&line), "{}", found.summary);
    let python = world.run(
        true,
        &format!("python3 -c 'import socket; socket.create_connection((\"{NAMELESS}\", 8081), 5)'"),
    );
    assert!(String::from_utf8_lossy(&python.stderr).contains("PermissionError"), "{python:?}");
    let explained = said(&agent, &["explain", &format!("f{}", found.id.0)]);
    assert!(explained.contains(&line) && explained.contains("curl"), "{explained}");
    let events = said(&agent, &["events", "--kind", "outbound"]);
    assert!(events.contains("refused") && events.contains(NAMELESS), "{events}");

    // Outside of the scope nothing is refused, and what no entry allows is told.
    assert!(world.reaches(false, NAMELESS));
    let let_go = finding(&agent, Severity::Low, &format!("connected to {NAMELESS}:8080"));
    assert!(let_go.summary.contains("no rule of"), "{}", let_go.summary);

    // The agent's own canary was refused as well, and is not told of.
    let proven = agent.wait_for("the canary", PATIENCE, |agent| Ok(agent.status()?.last_canary)).unwrap();
    assert!(proven.tally.all_held() && proven.tally.of >= 6, "{proven:?}");
    assert!(agent.findings().unwrap().iter().all(|f| !f.summary.contains("davy-canary")));

    let summary = summary(&agent);
    assert!(summary.refused >= 3 && summary.would >= 1 && summary.faults.is_empty(), "{summary:?}");
    let named = summary.names.iter().find(|n| n.name == "app.example.org").unwrap();
    assert_eq!(
        (named.address.to_string().as_str(), named.shared_with.as_slice()),
        (NAMED, &["app.example.net".to_owned()][..])
    );
    let status = said(&agent, &["outbound", "status"]);
    assert!(status.contains("app.example.org") && status.contains(NAMED), "{status}");
    assert!(said(&agent, &["status"]).contains("outbound"));

    // A policy that says something else holds at once, and none at all lets everyone go.
    reload(
        &agent,
        &world.policy(
            "enforce",
            &format!("[[outbound.allow]]\nto = [\"{NAMELESS}\"]\nreason = \"now it may\"\n"),
        ),
    );
    assert!(world.reaches(true, NAMELESS) && world.reaches(true, "app.example.org"));
    reload(&agent, &world.policy("enforce", ""));
    assert!(!world.reaches(true, NAMELESS));
    reload(&agent, &world.policy("observe", ""));
    assert!(world.reaches(true, NAMELESS));
    reload(&agent, &world.policy("off", ""));
    assert!(world.reaches(true, NAMELESS));
    reload(&agent, &world.policy("enforce", ""));
    assert!(!world.reaches(true, NAMELESS));
    drop(agent);
    assert!(world.reaches(true, NAMELESS), "nothing is left of an agent that keeps nothing");
}

#[test]
fn a_spike_of_refusals_falls_back_where_it_was() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("spike");
    let policy = world.policy("enforce", "[failsafe]\ndenials_per_minute = 5\n");
    let agent = Agent::start(&policy).unwrap();
    assert!(!world.reaches(true, NAMELESS));
    let scan = "python3 -c 'import socket\nfor port in range(9000, 9020):\n    s = socket.socket(); s.settimeout(1); s.connect_ex((\"203.0.113.8\", port)); s.close()'";
    assert!(world.run(true, scan).status.success());
    let fell = agent.wait_for("the fall back", PATIENCE, |agent| {
        let fell = agent.status()?.fallen_back;
        Ok(fell.into_iter().find(|why| why.contains("outbound") && why.contains(&world.service)))
    });
    assert!(fell.unwrap().contains("it only observes there"));
    std::thread::sleep(Duration::from_millis(600));
    assert!(world.reaches(true, NAMELESS), "it only observes");
    agent.ask(RequestBody::Command(Order::Arm)).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    assert!(!world.reaches(true, NAMELESS), "armed again");
    agent.ask(RequestBody::Command(Order::Disarm { seconds: 60 })).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    assert!(world.reaches(true, NAMELESS), "break-glass");
}

#[test]
fn what_was_seen_becomes_entries_that_allow_it() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("learn");
    let agent = Agent::start(&world.policy("observe", "")).unwrap();
    for host in ["app.example.net", "db.example.net", NAMELESS] {
        assert!(world.reaches(true, host));
    }
    let learned = agent.wait_for("what was seen", PATIENCE, |agent| {
        let learned = said(agent, &["outbound", "learn", "--quiet"]);
        let told = ["*.example.net", NAMELESS].iter().all(|to| learned.contains(to));
        Ok((learned.contains(&world.service) && told).then_some(learned))
    });
    let learned = learned.unwrap();
    let own: Vec<&str> = learned.split("\n\n").filter(|entry| entry.contains(&world.service)).collect();
    assert_eq!(own.len(), 1, "one entry for all that one service did: {learned}");
    assert!(own[0].contains("learned: curl"), "{}", own[0]);
    let policy = format!(
        "[scope]\ncgroups = [\"/{}\"]\n[outbound]\nmode = \"enforce\"\nresolvers = [\"{RESOLVER}\"]\n{}",
        world.service, own[0]
    );
    reload(&agent, &policy);
    for host in ["app.example.net", "db.example.net", NAMELESS] {
        assert!(world.reaches(true, host), "{host} by {}", own[0]);
    }
    assert!(!world.reaches(true, "198.51.100.53"), "nobody saw it go there");

    // What a policy would have refused is known before it does, and what it lacks is added to it.
    let bare = format!(
        "[scope]\ncgroups = [\"/{}\"]\n[outbound]\nmode = \"enforce\"\nresolvers = [\"{RESOLVER}\"]\n",
        world.service
    );
    let file = agent.base().join("etc/davy.toml");
    std::fs::write(&file, &bare).unwrap();
    let missing = || -> Vec<String> {
        let replayed: serde_json::Value =
            serde_json::from_str(&said(&agent, &["outbound", "replay", "--since", "1h", "--json"])).unwrap();
        let missing = replayed["missing"].as_array().unwrap().iter();
        let own = missing.filter(|entry| entry["service"] == world.service.as_str());
        own.map(|entry| entry["to"].to_string()).collect()
    };
    let found = missing();
    assert!(found.iter().any(|to| to.contains(NAMELESS)), "{found:?}");
    let diff = said(&agent, &["outbound", "learn", "--accept", "--quiet"]);
    assert!(diff.contains(&format!("+service = \"{}\"", world.service)), "{diff}");
    assert!(std::fs::read_to_string(&file).unwrap().starts_with(&bare));
    assert_eq!(missing(), [] as [String; 0]);
    agent.ask(RequestBody::Command(Order::Reload)).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    for host in ["app.example.net", "db.example.net", NAMELESS] {
        assert!(world.reaches(true, host), "{host} by {diff}");
    }
}

/// What gets through is in docs/concepts/limits.md.
#[test]
fn what_gets_round_it_is_what_the_limits_say() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("ways");
    let agent = Agent::start(&world.policy("observe", "")).unwrap();
    let (open, go_on) = (world.folder.path().join("open"), world.folder.path().join("go-on"));
    std::thread::scope(|scope| {
        let before = scope.spawn(|| world.tries("open before the policy"));
        agent.wait_for("an open connection", PATIENCE, |_| Ok(open.exists().then_some(()))).unwrap();
        reload(&agent, &world.policy("enforce", ""));
        std::fs::write(&go_on, "").unwrap();
        assert_eq!(before.join().unwrap(), "gets through");
    });
    assert!(!world.reaches(true, NAMELESS), "it does enforce");
    for (way, came) in [
        ("inherited open", "gets through"),
        ("inherited unconnected", "refused"),
        ("passed open", "gets through"),
        ("passed unconnected", "refused"),
        ("a proxy behind a Unix socket", "gets through"),
        ("frames of its own", "gets through"),
        ("a raw socket", "refused"),
        ("a datagram", "refused"),
        ("a datagram to where its socket leads", "refused"),
    ] {
        assert_eq!(world.tries(way), came, "{way}");
    }
}

#[test]
fn a_policy_that_cannot_be_applied_is_told_and_disarmed_all_the_same() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("part");
    let agent = Agent::start(&world.policy("enforce", "")).unwrap();
    assert!(world.reaches(true, "app.example.org") && !world.reaches(true, NAMELESS));
    // More names than the kernel's table has room for.
    let many: String = (0..10)
        .map(|entry| {
            let names: Vec<String> = (0..500).map(|name| format!("n{name}.e{entry}.example")).collect();
            format!("[[outbound.allow]]\nto = {names:?}\nreason = \"many\"\n")
        })
        .collect();
    reload(&agent, &world.policy("enforce", &many));
    let told = agent.wait_for("the fault", PATIENCE, |agent| Ok(summary(agent).faults.pop())).unwrap();
    assert!(told.contains("the table of names") && told.contains("holds on"), "{told}");
    let status = agent.status().unwrap();
    let shown = status.protections.iter().find(|protection| protection.name == "outbound").unwrap();
    assert!(shown.note.contains(&told) && shown.proven == Some(false), "{shown:?}");
    assert!(world.reaches(true, "app.example.org") && !world.reaches(true, NAMELESS), "as before");
    agent.ask(RequestBody::Command(Order::Disarm { seconds: 60 })).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    assert!(world.reaches(true, NAMELESS), "break-glass");
    agent.ask(RequestBody::Command(Order::Arm)).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    assert!(world.reaches(true, "app.example.org") && !world.reaches(true, NAMELESS), "as before");
    reload(
        &agent,
        &world.policy("enforce", &format!("[[outbound.allow]]\nto = [\"{NAMELESS}\"]\nreason = \"r\"\n")),
    );
    assert!(world.reaches(true, NAMELESS));
    assert_eq!(summary(&agent).faults, [] as [String; 0]);
}

#[test]
fn name_servers_of_nobodys_configuration_are_told() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("dot");
    let agent = Agent::start(&world.policy("observe", "")).unwrap();
    let asks = |host: &str| {
        let line = format!(
            "python3 -c 'import socket; s = socket.create_connection((\"{host}\", 853), 5, (\"{NAMED}\", 0)); s.send(b\"x\")'"
        );
        let output = world.run(true, &line);
        assert!(output.status.success(), "{output:?}");
    };
    asks(RESOLVER);
    asks(NAMELESS);
    asks(NAMELESS);
    let words = format!("asks a name server that is none of this host's, {NAMELESS}:853");
    let found = finding(&agent, Severity::Low, &words);
    assert!(found.summary.contains("python3") && found.evidence[0].process.is_some(), "{found:?}");
    let all = agent.findings().unwrap();
    let told: Vec<&str> =
        all.iter().map(|f| f.summary.as_str()).filter(|told| told.contains("asks a name server")).collect();
    assert_eq!(
        told.iter().filter(|told| told.contains(&world.service) || told.contains(":853")).count(),
        1,
        "{told:?}"
    );
}

/// Without a section nothing is loaded, and nothing is told.
#[test]
fn nothing_is_looked_at_unless_the_policy_says_so() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("off");
    let agent = Agent::start("").unwrap();
    assert!(world.reaches(true, NAMELESS));
    std::thread::sleep(Duration::from_millis(1500));
    assert!(agent.findings().unwrap().iter().all(|f| f.kind != FindingKind::Outbound));
    let summary = summary(&agent);
    assert_eq!((summary.mode, summary.would, summary.names.len()), (davy_model::Mode::Off, 0, 0));
    assert!(said(&agent, &["outbound", "status"]).contains("[outbound] is off"));
}
