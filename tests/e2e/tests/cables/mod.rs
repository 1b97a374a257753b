//! Hosts at cables of their own around the one whose agent is watched, and what tests of scans of ports ask it.
#![allow(dead_code, unreachable_pub)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use davy_model::{Finding, FindingKind, ScanSource};
use davy_test_e2e::{Agent, davy, root_or_skip};
use davy_wire::{Query, Reply, RequestBody};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// One test at a time: each agent sees the whole host.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether all of it can be tried here; says loudly what is missing.
pub fn have(tools: &[&str]) -> bool {
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

pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A namespace for the agent and one for each client, each client at a cable of its own.
pub struct World {
    pub host: String,
    pub clients: Vec<String>,
}

impl World {
    pub fn make(name: &str, clients: usize) -> Self {
        let host = format!("davy-{name}-h-{}", std::process::id());
        run("ip", &["netns", "add", &host]);
        let mut world = Self { host, clients: Vec::new() };
        run("ip", &["-n", &world.host, "link", "set", "lo", "up"]);
        for at in 0..clients {
            let client = format!("davy-{name}-{at}-{}", std::process::id());
            run("ip", &["netns", "add", &client]);
            world.clients.push(client);
            let (client, end) = (&world.clients[at], format!("c{at}"));
            let pair = ["link", "add", &end, "type", "veth", "peer", "name", "eth", "netns", client];
            run("ip", &[&["-n", &world.host][..], &pair].concat());
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
    pub fn host(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.host)).arg(program);
        command
    }

    /// A command of a client's, for two minutes at most.
    pub fn client(&self, at: usize, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.clients[at])).args(["timeout", "120", program]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        command
    }

    /// Runs a command of a client's, which must succeed.
    pub fn must(&self, at: usize, program: &str, arguments: &[&str]) {
        let status = self.client(at, program).args(arguments).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}: {status}");
    }

    /// The hardware address of the host's end of a client's cable, as scanners write it.
    pub fn hardware_address(&self, at: usize, between: &str) -> String {
        let end = format!("c{at}");
        let text = Command::new("ip").args(["-n", &self.host, "-o", "link", "show", &end]).output().unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        let address = text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
        address.replace(':', between)
    }

    /// The agent, which sees this world alone.
    pub fn agent(&self, base: &Path, policy: &str) -> Agent {
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
    pub fn serve(&self, tcp: &[u16], udp: &[u16]) -> Background {
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
pub struct Background(pub Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn scans(agent: &Agent) -> Vec<Finding> {
    agent.findings().unwrap().into_iter().filter(|finding| finding.kind == FindingKind::Scan).collect()
}

/// Waits for the scan of whom the summary names.
pub fn scan_of(agent: &Agent, who: &str) -> Finding {
    let named = |finding: &Finding| finding.summary.contains(who);
    agent
        .wait_for(&format!("a scan of {who}"), PATIENCE, |agent| Ok(scans(agent).into_iter().find(named)))
        .unwrap()
}

pub fn number(finding: &Finding, name: &str) -> f64 {
    finding.evidence.iter().find_map(|evidence| evidence.numbers.get(name).copied()).unwrap_or(0.0)
}

/// Asserts that a scan was known after no more probes than the reference says.
pub fn assert_as_published(name: &str, found: &Finding) {
    let needed = number(found, "until_known");
    println!("{name}: known after {needed}: {}", found.summary);
    let published = published();
    let most =
        published.iter().find(|(row, _)| row == name).unwrap_or_else(|| panic!("{name} is not published"));
    assert!(needed >= 1.0 && needed <= most.1, "{name}: {needed}, published are {}", most.1);
}

/// What the reference says of each scan: after how many probes at most it is known.
pub fn published() -> Vec<(String, f64)> {
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

pub fn watched(agent: &Agent) -> Vec<ScanSource> {
    let replies = agent.ask(RequestBody::Query(Query::Scans { limit: 100 })).unwrap();
    replies.into_iter().filter_map(|r| if let Reply::ScanSource(s) = r { Some(s) } else { None }).collect()
}
