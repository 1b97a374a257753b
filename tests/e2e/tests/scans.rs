//! Scans of ports by real tools between network namespaces of the test's own, and what happens every day, which is none.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use davy_model::{Finding, FindingKind, IncidentState, ScanSource, Severity};
use davy_test_e2e::{Agent, davy, root_or_skip};
use davy_wire::{Command as Order, Query, Reply, RequestBody};

const PATIENCE: Duration = Duration::from_secs(30);

/// One test at a time: each agent sees the whole host.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether all of it can be tried here; says loudly what is missing.
fn have(tools: &[&str]) -> bool {
    let there = |tool: &&str| {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|folder| folder.join(tool).exists());
        if !found {
            println!("SKIPPED: {tool} is not installed");
        }
        found
    };
    root_or_skip() && tools.iter().all(there)
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A namespace for the agent and one for each client, each client at a cable of its own.
struct World {
    host: String,
    clients: Vec<String>,
}

impl World {
    fn make(name: &str, clients: usize) -> Self {
        let host = format!("davy-{name}-h-{}", std::process::id());
        run("ip", &["netns", "add", &host]);
        let mut world = Self { host, clients: Vec::new() };
        run("ip", &["-n", &world.host, "link", "set", "lo", "up"]);
        for at in 0..clients {
            let client = format!("davy-{name}-{at}-{}", std::process::id());
            run("ip", &["netns", "add", &client]);
            world.clients.push(client);
            let (client, end) = (&world.clients[at], format!("c{at}"));
            run(
                "ip",
                &[
                    "-n",
                    &world.host,
                    "link",
                    "add",
                    &end,
                    "type",
                    "veth",
                    "peer",
                    "name",
                    "eth",
                    "netns",
                    client,
                ],
            );
            for (namespace, device, number) in [(&world.host, end.as_str(), 1), (client, "eth", 2)] {
                let address = format!("10.80.{at}.{number}/24");
                run("ip", &["-n", namespace, "address", "add", &address, "dev", device]);
                let six = format!("fd80:{at}::{number}/64");
                run("ip", &["-n", namespace, "address", "add", &six, "dev", device, "nodad"]);
                run("ip", &["-n", namespace, "link", "set", device, "up"]);
            }
        }
        world
    }

    /// A command in the host's namespace.
    fn host(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.host)).arg(program);
        command
    }

    /// A command of a client's, for two minutes at most.
    fn client(&self, at: usize, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.clients[at])).args(["timeout", "120", program]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        command
    }

    /// The agent, which sees this world alone.
    fn agent(&self, base: &Path, policy: &str) -> Agent {
        let agent = Agent::start_in(base, policy, self.host(davy()), &[]).unwrap();
        let standing = agent.status().unwrap();
        let scans = standing.protections.iter().find(|p| p.name == "scans").unwrap().clone();
        if policy.contains("mode = \"off\"") {
            assert_eq!(scans.mode, davy_model::Mode::Off);
        } else {
            agent
                .wait_for("the watch begins", PATIENCE, |agent| {
                    let status = agent.status()?;
                    let scans = status.protections.iter().find(|p| p.name == "scans");
                    Ok(scans.filter(|p| p.note.contains("visits to this host succeed")).map(drop))
                })
                .unwrap();
        }
        agent
    }

    /// A server of the host's that takes connections at these ports and answers with a line; and datagrams.
    fn serve(&self, tcp: &[u16], udp: &[u16]) -> Background {
        let script = format!(
            "import socket,selectors\ns=selectors.DefaultSelector()\n\
             for p in {tcp:?}:\n t=socket.create_server(('',p),backlog=512); s.register(t,1,0)\n\
             for p in {udp:?}:\n u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.bind(('',p)); s.register(u,1,1)\n\
             while True:\n for k,_ in s.select():\n  try:\n   if k.data: b,a=k.fileobj.recvfrom(999); k.fileobj.sendto(b,a)\n   \
             else:\n    c=k.fileobj.accept()[0]; c.settimeout(1); c.recv(999); c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nhello\\n'); c.close()\n  \
             except OSError: pass\n"
        );
        let mut command = self.host("python3");
        let child = command.args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        Background(child)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for namespace in self.clients.iter().chain([&self.host]) {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

/// A process of the test's own.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn scans(agent: &Agent) -> Vec<Finding> {
    agent.findings().unwrap().into_iter().filter(|finding| finding.kind == FindingKind::Scan).collect()
}

/// Waits for the scan of whom the summary names.
fn scan_of(agent: &Agent, who: &str) -> Finding {
    let named = |finding: &Finding| finding.summary.contains(who);
    agent
        .wait_for(&format!("a scan of {who}"), PATIENCE, |agent| Ok(scans(agent).into_iter().find(named)))
        .unwrap()
}

fn number(finding: &Finding, name: &str) -> f64 {
    finding.evidence.iter().find_map(|evidence| evidence.numbers.get(name).copied()).unwrap_or(0.0)
}

/// What the reference says of each scan: after how many probes at most it is known.
fn published() -> Vec<(String, f64)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/scans.md");
    let page = std::fs::read_to_string(file).unwrap();
    page.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            let name = cells.next()?.strip_suffix('`')?.to_owned();
            Some((name, cells.next()?.parse().ok()?))
        })
        .collect()
}

/// Scans of the reference's table by their names there, and what they send.
const SCANS: [(&str, &str); 16] = [
    ("nmap -sS", "SYN"),
    ("nmap -sT", "SYN"),
    ("nmap -sF", "FIN"),
    ("nmap -sX", "XMAS"),
    ("nmap -sN", "NULL"),
    ("nmap -sM", "FIN+ACK"),
    ("nmap -sA", "ACK"),
    ("nmap -sW", "ACK"),
    ("nmap -sU", "UDP"),
    ("nmap -sO", "IP protocols"),
    ("nmap -O", "SYN"),
    ("nmap -sS -f", "fragments"),
    ("nmap -sS -T4", "SYN"),
    ("nmap -sS -T2", "SYN"),
    ("nmap -6 -sS", "SYN"),
    ("nmap -sS, dropped", "SYN"),
];

#[test]
fn every_kind_of_scan_is_told_after_as_few_probes_as_published() {
    if !have(&["nmap", "ip", "python3", "nft"]) {
        return;
    }
    let _alone = alone();
    let world = World::make("kinds", SCANS.len());
    let _server = world.serve(&[25], &[]);
    run(
        "nsenter",
        &[
            &format!("--net=/run/netns/{}", world.host),
            "nft",
            "add table inet t; add chain inet t in { type filter hook input priority 0; }; add rule inet t in tcp dport 9000-9999 drop",
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let agent = world.agent(folder.path(), "");
    let published = published();
    for (at, (name, kind)) in SCANS.into_iter().enumerate() {
        let (options, ports) = match name {
            "nmap -sS, dropped" => ("-sS --max-retries 0", "9000-9099"),
            "nmap -sU" => ("-sU --max-retries 0 -T4", "60-89"),
            "nmap -sO" => ("-sO --max-retries 0 -T4", "100-130"),
            "nmap -sS -T2" => ("-sS -T2", "30-41"),
            "nmap -O" => ("-O", "20-49"),
            other => (other.strip_prefix("nmap ").unwrap(), "20-119"),
        };
        let (host, source) = match name {
            "nmap -6 -sS" => (format!("fd80:{at}::1"), format!("fd80:{at}::2")),
            _ => (format!("10.80.{at}.1"), format!("10.80.{at}.2")),
        };
        let mut nmap = world.client(at, "nmap");
        nmap.args(["-n", "-Pn"]).args(options.split(' ')).args(["-p", ports, &host]);
        assert!(nmap.status().unwrap().success(), "{name}");
        let found = scan_of(&agent, &source);
        let needed = number(&found, "until_known");
        println!("{name}: known after {needed}: {}", found.summary);
        assert!(found.summary.contains(kind), "{name}: {}", found.summary);
        let most = published
            .iter()
            .find(|(row, _)| row == name)
            .unwrap_or_else(|| panic!("{name} is not published"));
        assert!(needed >= 1.0 && needed <= most.1, "{name}: {needed}, published are {}", most.1);
        assert!(found.severity >= Severity::Medium && found.techniques[0].0 == "T1046", "{found:#?}");
        // Only who connected is proven.
        assert_eq!(number(&found, "proven") > 0.0, name == "nmap -sT", "{name}: {}", found.summary);
    }
    let told = scans(&agent);
    assert_eq!(
        told.len(),
        SCANS.len(),
        "each is one finding: {:#?}",
        told.iter().map(|f| &f.summary).collect::<Vec<_>>()
    );
    // Each is an incident, and it says so to people.
    let incidents = agent.incidents().unwrap();
    let ours = incidents.iter().filter(|incident| incident.title.starts_with("port scan"));
    assert_eq!(ours.clone().count(), SCANS.len());
    assert!(ours.clone().all(|incident| incident.findings.len() == 1 && !incident.timeline.is_empty()));
    let verb = |arguments: &[&str]| {
        let output =
            Command::new(davy()).arg("--base-dir").arg(agent.base()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let sources: Vec<serde_json::Value> = serde_json::from_str(&verb(&["scans", "--json"])).unwrap();
    assert_eq!(sources.iter().filter(|source| source["told"] == true).count(), SCANS.len());
    assert!(verb(&["scans"]).contains("10.80.1.2"));
    let about = format!("f{}", told[0].id.0);
    assert!(verb(&["explain", &about, "--json"]).contains("visits to this host succeed"));
    assert!(verb(&["explain", &about]).contains("port scan"));
    assert!(verb(&["findings"]).contains("port scan"));
}

#[test]
fn decoys_are_one_scan_without_a_name_and_masscan_is_known() {
    if !have(&["nmap", "masscan", "ip", "python3"]) {
        return;
    }
    let _alone = alone();
    let world = World::make("decoy", 2);
    let folder = tempfile::tempdir().unwrap();
    let agent = world.agent(folder.path(), "");
    let mut nmap = world.client(0, "nmap");
    nmap.args(["-n", "-Pn", "-sS", "-p", "20-219", "-D", "10.80.0.50,10.80.0.51,ME,10.80.0.52", "10.80.0.1"]);
    assert!(nmap.status().unwrap().success());
    let found = scan_of(&agent, "one of 4 addresses");
    assert!(found.summary.contains("nmap") && number(&found, "proven") == 0.0, "{}", found.summary);
    let mac = Command::new("ip").args(["-n", &world.host, "-o", "link", "show", "c1"]).output().unwrap();
    let mac = String::from_utf8(mac.stdout).unwrap();
    let mac =
        mac.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().replace(':', "-");
    // Once both know each other's hardware address the answers leave at once.
    let ping = "import socket\nr=socket.socket(socket.AF_INET,socket.SOCK_RAW,1); r.settimeout(5)\n\
         r.sendto(b'\\x08\\x00\\xf7\\xfe\\x00\\x01\\x00\\x00',('10.80.1.1',0)); r.recv(99)\n";
    assert!(world.client(1, "python3").args(["-c", ping]).status().unwrap().success());
    let mut masscan = world.client(1, "masscan");
    masscan.args(["--adapter", "eth", "--adapter-ip", "10.80.1.2", "--router-mac", &mac, "--wait", "0"]);
    masscan.args(["-p1-300", "--rate", "100", "10.80.1.1"]);
    assert!(masscan.status().unwrap().success());
    let found = scan_of(&agent, "10.80.1.2");
    assert!(found.summary.contains("masscan"), "{}", found.summary);
    println!("masscan: {}", found.summary);
    assert!(number(&found, "until_known") <= published().iter().find(|(row, _)| row == "masscan").unwrap().1);
    assert_eq!(scans(&agent).len(), 2, "{:#?}", scans(&agent));
}

#[test]
fn what_happens_every_day_is_no_scan() {
    if !have(&["curl", "ip", "python3"]) {
        return;
    }
    let _alone = alone();
    let world = World::make("daily", 5);
    let folder = tempfile::tempdir().unwrap();
    let server = world.serve(&[80, 443, 22, 8080], &[53, 123]);
    let agent = world.agent(folder.path(), "");
    let python = |at: usize, script: &str| {
        world.client(at, "python3").args(["-c", script]).status().unwrap().success()
    };
    // A browser with many connections, one after the other and at once.
    for _ in 0..5 {
        let url = "http://10.80.0.1/[1-30]";
        assert!(
            world.client(0, "curl").args(["-s", "-Z", "-o", "/dev/null", url]).status().unwrap().success()
        );
        assert!(
            world
                .client(0, "curl")
                .args(["-s", "-o", "/dev/null", "http://10.80.0.1:443/"])
                .status()
                .unwrap()
                .success()
        );
    }
    // Monitoring of five ports, of which two are down, and of the time; a ping now and then.
    let monitoring = "import socket\nfor r in range(12):\n for p in (22,80,443,5432,3306):\n  \
         try: socket.create_connection(('10.80.1.1',p),2).close()\n  except OSError: pass\n \
         u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.settimeout(2); u.sendto(b'x',('10.80.1.1',123)); u.recv(9)\n";
    assert!(python(1, monitoring));
    let pings = "import socket\nr=socket.socket(socket.AF_INET,socket.SOCK_RAW,1)\n\
         for n in range(5): r.sendto(b'\\x08\\x00\\xf7\\xfe\\x00\\x01\\x00\\x00',('10.80.1.1',0))\n";
    assert!(python(1, pings));
    // Health checks of a port where nothing listens yet, and name questions over a port each.
    let checks = "import socket,time\nfor r in range(40):\n \
         try: socket.create_connection(('10.80.2.1',9090),2).close()\n except OSError: pass\n \
         u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.settimeout(2); u.sendto(b'x',('10.80.2.1',53)); u.recv(9); time.sleep(0.05)\n";
    assert!(python(2, checks));
    // An administrator who knocks at four ports and then comes in.
    let knock = "import socket\nfor p in (7000,8000,9000,10000):\n \
         try: socket.create_connection(('10.80.3.1',p),1)\n except OSError: pass\n\
         socket.create_connection(('10.80.3.1',22),2).close()\n";
    assert!(python(3, knock));
    // What traceroute sends: datagrams to ports that rise, the last of them still with few hops to go.
    let trace = "import socket\nu=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nfor n in range(48):\n \
         u.setsockopt(0,2,1+n//3); u.sendto(b'x',('10.80.4.1',33434+n))\n";
    assert!(python(4, trace));
    // And this host asks others, over many ports of its own, and is answered.
    let asks = "import socket\nl=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); l.bind(('10.80.2.2',5300)); l.settimeout(20)\n\
         for r in range(60):\n b,a=l.recvfrom(9); l.sendto(b,a)\n";
    let mut answers = Background(world.client(2, "python3").args(["-c", asks]).spawn().unwrap());
    std::thread::sleep(Duration::from_millis(700));
    let own = "import socket\nfor r in range(60):\n u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.settimeout(5)\n \
         u.sendto(b'x',('10.80.2.2',5300)); u.recv(9)\n \
         try: socket.create_connection(('10.80.2.2',81),1)\n except OSError: pass\n";
    assert!(world.host("python3").args(["-c", own]).status().unwrap().success());
    assert!(answers.0.wait().unwrap().success());
    // Longer than an answer is waited for, and a scan is let ripen.
    std::thread::sleep(Duration::from_secs(7));
    let sources = watched(&agent);
    assert_eq!(scans(&agent), [], "{sources:#?}");
    // That somebody failed at all was seen, so that nothing told is not nothing seen.
    assert!(
        sources.iter().any(|source| source.source.to_string() == "10.80.3.2" && source.failed == 4),
        "{sources:#?}"
    );
    drop(server);
}

fn watched(agent: &Agent) -> Vec<ScanSource> {
    let replies = agent.ask(RequestBody::Query(Query::Scans { limit: 100 })).unwrap();
    replies.into_iter().filter_map(|r| if let Reply::ScanSource(s) = r { Some(s) } else { None }).collect()
}

#[test]
fn the_policy_says_whether_where_and_of_whom() {
    if !have(&["nmap", "ip"]) {
        return;
    }
    let _alone = alone();
    let world = World::make("policy", 3);
    let folder = tempfile::tempdir().unwrap();
    let agent = world.agent(folder.path(), "[scans]\nmode = \"off\"\n");
    let nmap = |at: usize, ports: &str| {
        let host = format!("10.80.{at}.1");
        assert!(
            world
                .client(at, "nmap")
                .args(["-n", "-Pn", "-sS", "-p", ports, &host])
                .status()
                .unwrap()
                .success()
        );
    };
    nmap(0, "20-119");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((scans(&agent), watched(&agent)), (vec![], vec![]));
    let policy = "[scans]\ndecoy_ports = [\"2300-2400\"]\n[[scans.ignore]]\nnetwork = \"10.80.1.0/24\"\nreason = \"ours\"\n";
    std::fs::write(folder.path().join("etc/davy.toml"), policy).unwrap();
    agent.ask(RequestBody::Command(Order::Reload)).unwrap();
    let begun = Instant::now();
    agent
        .wait_for("the watch begins", PATIENCE, |agent| {
            let status = agent.status()?;
            let scans = status.protections.iter().find(|p| p.name == "scans");
            Ok(scans.filter(|p| p.note.contains("visits to this host succeed")).map(drop))
        })
        .unwrap();
    println!("it watches {:?} after the reload", begun.elapsed());
    nmap(1, "20-119");
    nmap(2, "2323");
    let found = scan_of(&agent, "10.80.2.2");
    assert!(
        found.summary.contains("decoy port 2323") && number(&found, "until_known") == 1.0,
        "{}",
        found.summary
    );
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(scans(&agent).len(), 1, "{:#?}", scans(&agent));
    let incident = agent.incidents().unwrap().into_iter().find(|i| i.title.starts_with("port scan")).unwrap();
    assert_eq!((incident.state, incident.severity), (IncidentState::Running, Severity::High));
    // Off again: the incident is not watched to its end, and a scan after the next beginning is another.
    let off = "[scans]\nmode = \"off\"\n";
    std::fs::write(folder.path().join("etc/davy.toml"), off).unwrap();
    agent.ask(RequestBody::Command(Order::Reload)).unwrap();
    let over = |agent: &Agent| {
        let incidents = agent.incidents()?;
        Ok(incidents.into_iter().find(|i| i.id == incident.id && i.state == IncidentState::Ended))
    };
    let over = agent.wait_for("the incident ends", PATIENCE, over).unwrap();
    assert!(over.title.ends_with("not watched to its end"), "{}", over.title);
    std::fs::write(folder.path().join("etc/davy.toml"), "[scans]\nmode = \"observe\"\n").unwrap();
    agent.ask(RequestBody::Command(Order::Reload)).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    nmap(0, "20-119");
    scan_of(&agent, "10.80.0.2");
    assert_eq!(scans(&agent).len(), 2, "{:#?}", scans(&agent));
}
