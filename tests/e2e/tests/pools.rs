//! Pools cut off: real miners in a cgroup of the test's own, and a pool on another host, which is a network namespace.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use davy_model::{Action, ActionRecord, ActionState, Finding, FindingKind, Incident};
use davy_test_e2e::{Agent, Scope, TwoHosts, miner, root_or_skip};
use davy_test_pool::{Algorithm, Pool, PoolConfig, Relay, RelayConfig, Wire};
use davy_wire::{Command as Order, Query, Reply, RequestBody};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PATIENCE: Duration = Duration::from_secs(40);

/// The miner's host and the pool's: link-local, so that the miner agrees to dial it.
const HERE: &str = "169.254.77.1/16";
const THERE: &str = "169.254.77.2/16";
const POOL: &str = "169.254.77.2";

/// One test at a time: each agent sees the whole host, and the miners would starve each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came to the pool's port: one entry for each connection.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<Vec<Line>>>);

/// One connection.
#[derive(Clone, Debug)]
struct Line {
    began: Instant,
    bytes: Vec<u8>,
}

impl Heard {
    fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap().clone()
    }

    fn change(&self, at: usize, change: impl FnOnce(&mut Line)) {
        change(&mut self.0.lock().unwrap()[at]);
    }
}

/// Two hosts, and a cgroup in which the first one's processes are.
struct World {
    hosts: TwoHosts,
    scope: Scope,
}

impl World {
    fn make(name: &str) -> Self {
        Self { hosts: TwoHosts::make(&[HERE], &[THERE]).unwrap(), scope: Scope::make(name).unwrap() }
    }

    /// Runs something in the pool's namespace; threads that it starts stay there.
    fn there<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let handle = File::open(self.hosts.namespace(1)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                task()
            });
            thread.join().unwrap()
        })
    }

    /// Listens at a port of the pool's host and carries what comes to an address there, taking it down.
    fn listen(&self, port: u16, to: SocketAddr) -> Heard {
        let heard = Heard::default();
        let shared = heard.clone();
        self.there(move || {
            let listener = TcpListener::bind((POOL, port)).unwrap();
            std::thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    let (shared, at) = (shared.clone(), shared.lines().len());
                    let began = Instant::now();
                    let line = Line { began, bytes: Vec::new() };
                    shared.0.lock().unwrap().push(line);
                    std::thread::spawn(move || carry(client, to, &shared, at));
                }
            });
        });
        heard
    }

    fn miner(&self, in_scope: bool, options: &[&str]) -> Child {
        let mut command = self.hosts.command(0);
        command.arg(miner()).args(["--mode", "light", "--for", "60"]).args(options);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).stdin(Stdio::null());
        if in_scope { self.spawn_in_scope(&command) } else { command.spawn().unwrap() }
    }

    fn spawn_in_scope(&self, command: &Command) -> Child {
        let procs = self.scope.dir().join("cgroup.procs");
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg("echo $$ > \"$0\" && exec \"$@\"").arg(procs);
        shell.arg(command.get_program()).args(command.get_args());
        shell.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap()
    }

    /// Runs a program of Python on the miner's host, in the scope.
    fn python(&self, program: &str) -> Output {
        let mut command = self.hosts.command(0);
        command.args(["python3", "-c", program]);
        self.spawn_in_scope(&command).wait_with_output().unwrap()
    }

    /// Whether a connection to the pool's port can be made from the scope.
    fn reaches(&self, port: u16) -> bool {
        let connect = format!("import socket; socket.create_connection(('{POOL}', {port}), 3)");
        let output = self.python(&connect);
        let refused = String::from_utf8_lossy(&output.stderr).contains("PermissionError");
        assert!(output.status.success() || refused, "{output:?}");
        output.status.success()
    }

    fn policy(&self, rest: &str) -> String {
        format!("[scope]\ncgroups = [\"{}\"]\n{rest}", self.scope.name())
    }
}

fn carry(mut client: TcpStream, to: SocketAddr, heard: &Heard, at: usize) {
    let Ok(mut pool) = TcpStream::connect(to) else { return };
    let (mut back, mut answers) = (client.try_clone().unwrap(), pool.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut back);
    });
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        heard.change(at, |line| {
            line.bytes.extend_from_slice(&buffer[..length]);
        });
        if pool.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = pool.shutdown(Shutdown::Both);
}

fn cuts(agent: &Agent) -> Vec<ActionRecord> {
    let replies = agent.ask(RequestBody::Query(Query::Actions { limit: 1000 })).unwrap();
    let records = replies.into_iter().filter_map(|r| if let Reply::Action(a) = r { Some(a) } else { None });
    records
        .filter(|r| {
            let there = |address: std::net::IpAddr| address.to_string() == POOL;
            matches!(r.action, Action::Cut { destination, .. } if there(destination.address))
        })
        .collect()
}

fn cut(agent: &Agent) -> ActionRecord {
    let done = |agent: &Agent| Ok(cuts(agent).into_iter().find(|r| r.state == ActionState::Done));
    agent.wait_for("the pool is cut off", PATIENCE, done).unwrap()
}

/// The incident that an action belongs to, once it tells of it.
fn incident(agent: &Agent, record: &ActionRecord) -> Incident {
    let whole = |agent: &Agent| {
        let mut incidents = agent.incidents()?.into_iter();
        Ok(incidents.find(|i| i.actions.iter().any(|a| a.id == record.id && a.state == record.state)))
    };
    agent.wait_for("the incident that the cut belongs to", PATIENCE, whole).unwrap()
}

fn pool(algorithm: Algorithm) -> Pool {
    Pool::start(PoolConfig { max_connections: 8, ..PoolConfig::new(algorithm) }).unwrap()
}

#[test]
fn a_miner_is_cut_at_its_first_line_and_kept_away_until_undone() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("pools");
    let pool = world.there(|| pool(Algorithm::RandomX));
    let heard = world.listen(3333, pool.addr());
    let agent = Agent::start(&world.policy("[pools]\nmode = \"enforce\"\ncut_for = \"1h\"\n")).unwrap();
    let target = format!("{POOL}:3333");

    let mut first = world.miner(true, &["--algo", "randomx", "--pool", &target]);
    let record = cut(&agent);
    assert!(matches!(record.action, Action::Cut { seconds: 3600, .. }), "{record:?}");
    assert!(record.note.contains("1 connection ended"), "{}", record.note);
    let mut complaint = String::new();
    first.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert!(complaint.contains("pool: "), "it was hung up on: {complaint}");
    first.wait().unwrap();
    let line = heard.lines().remove(0);
    println!("{} bytes came to the pool", line.bytes.len());
    let said = String::from_utf8(line.bytes).unwrap();
    assert!(said.contains("\"login\"") && said.lines().count() == 1, "no more than the login: {said}");
    assert_eq!(pool.stats().accepted, 0);

    // It is told in one incident with what else is known of the program, and nobody was frozen or ended: mining is only observed.
    let incident = incident(&agent, &record);
    assert!(incident.findings.iter().any(|f| Some(f.id) == record.finding), "{incident:?}");
    let done = |a: &&ActionRecord| a.state == ActionState::Done;
    assert!(incident.actions.iter().filter(done).all(|a| matches!(a.action, Action::Cut { .. })));

    // A second miner, and whoever else in the scope, are refused before a byte; outside of the scope nobody is.
    let before = heard.lines().len();
    let second = world.miner(true, &["--algo", "randomx", "--pool", &target]).wait_with_output().unwrap();
    let why = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && why.contains("not permitted"), "{why}");
    assert!(!world.reaches(3333));
    assert_eq!(heard.lines().len(), before);
    let mut outside = world.miner(false, &["--algo", "randomx", "--pool", &target]);
    let came = |_: &Agent| Ok((heard.lines().len() > before).then_some(()));
    agent.wait_for("the miner outside", PATIENCE, came).unwrap();
    outside.kill().unwrap();
    outside.wait().unwrap();

    agent.ask(RequestBody::Command(Order::UndoAction { id: record.id })).unwrap();
    assert!(world.reaches(3333), "undo brings it back");
}

#[test]
fn every_pool_of_a_list_is_cut_as_the_miner_goes_through_it() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("failover");
    let pool = world.there(|| pool(Algorithm::RandomX));
    let heard: Vec<Heard> = (3333..3337).map(|port| world.listen(port, pool.addr())).collect();
    let agent = Agent::start(&world.policy("[pools]\nmode = \"enforce\"\n")).unwrap();
    // One process that dials the next pool as soon as it is hung up on, and says more whenever it is answered.
    let program = format!(
        "import socket, time
login = b'{{\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"login\",\"params\":{{\"login\":\"a\",\"pass\":\"x\",\"agent\":\"a/1\"}}}}\\n'
alive = b'{{\"id\":2,\"jsonrpc\":\"2.0\",\"method\":\"keepalived\",\"params\":{{}}}}\\n'
for port in range(3333, 3337):
    began = time.monotonic()
    try:
        s = socket.create_connection(('{POOL}', port), 5)
        s.settimeout(15)
        s.sendall(login)
        while s.recv(4096):
            pass
    except OSError as e:
        print(port, e, 'after', round(time.monotonic() - began, 3), 's')"
    );
    let began = Instant::now();
    let output = world.python(&program);
    println!("four pools were cut in {:?}: {output:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(15), "none of them was waited for in vain");
    for (n, heard) in heard.iter().enumerate() {
        let lines = heard.lines();
        assert_eq!(lines.len(), 1, "pool {n}");
        assert_eq!(String::from_utf8_lossy(&lines[0].bytes).lines().count(), 1, "pool {n}");
    }
    let of_pools: Vec<_> = cuts(&agent).into_iter().filter(|r| r.state == ActionState::Done).collect();
    assert_eq!(of_pools.len(), 4, "{of_pools:?}");
    let incidents: BTreeSet<_> = of_pools.iter().filter_map(|r| r.incident).collect();
    assert_eq!(incidents.len(), 1, "one incident tells all of it");
}

/// The shortest cut that a policy can have is a minute.
#[test]
fn who_dials_the_pool_again_when_its_time_is_over_is_cut_off_again() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("again");
    let pool = world.there(|| pool(Algorithm::RandomX));
    let heard = world.listen(3333, pool.addr());
    let agent = Agent::start(&world.policy("[pools]\nmode = \"enforce\"\ncut_for = \"1m\"\n")).unwrap();
    // The same process, and so the same finding.
    let program = format!(
        "import socket, time
login = b'{{\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"login\",\"params\":{{\"login\":\"a\",\"pass\":\"x\",\"agent\":\"a/1\"}}}}\\n'
cut = 0
end = time.monotonic() + 100
while cut < 2 and time.monotonic() < end:
    try:
        s = socket.create_connection(('{POOL}', 3333), 5)
    except PermissionError:
        time.sleep(0.5)
        continue
    try:
        s.settimeout(15)
        s.sendall(login)
        while s.recv(4096):
            pass
    except OSError:
        pass
    cut += 1"
    );
    let output = world.python(&program);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(heard.lines().len(), 2, "once, and once more when it was open");
    let twice = |agent: &Agent| {
        let cuts = cuts(agent);
        let states: Vec<ActionState> = cuts.iter().map(|r| r.state).collect();
        println!("cuts: {states:?}");
        Ok((states == [ActionState::Expired, ActionState::Done]).then_some(cuts))
    };
    let cuts = agent.wait_for("two cuts", PATIENCE, twice).unwrap();
    assert_eq!(cuts[0].incident, cuts[1].incident);
}

#[test]
fn a_pool_that_no_entry_of_outbound_allows_gets_no_byte() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("unlearned");
    let pool = world.there(|| pool(Algorithm::RandomX));
    let heard = world.listen(3333, pool.addr());
    let agent = Agent::start(&world.policy("[outbound]\nmode = \"enforce\"\n")).unwrap();
    let target = format!("{POOL}:3333");
    let output = world.miner(true, &["--algo", "randomx", "--pool", &target]).wait_with_output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && why.contains("not permitted"), "{why}");
    assert!(heard.lines().is_empty(), "not even a connection");
    let refused = |agent: &Agent| {
        let found = agent.findings()?.into_iter().find(|f| f.kind == FindingKind::Outbound);
        Ok(found.filter(|f| f.evidence.iter().any(|e| e.text.contains(&target))))
    };
    agent.wait_for("the finding about it", PATIENCE, refused).unwrap();
}

#[test]
fn a_relay_in_tls_is_cut_by_its_shape_once_it_is_mining_for_certain() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("relay");
    let pool = world.there(|| pool(Algorithm::Scrypt));
    let config =
        RelayConfig { inward: Wire { tls: true, websocket: false }, ..RelayConfig::new(pool.addr()) };
    let relay = world.there(|| Relay::start(config).unwrap());
    let heard = world.listen(443, relay.addr());
    let agent = Agent::start(&world.policy("[pools]\nmode = \"enforce\"\n")).unwrap();
    let target = format!("{POOL}:443");
    let options = ["--algo", "scrypt", "--threads", "2", "--tls", "--pool", &target];
    let mut child = world.miner(true, &options);
    let record = cut(&agent);
    println!("cut {:?} after it connected", heard.lines()[0].began.elapsed());
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert!(complaint.contains("pool: "), "it was hung up on: {complaint}");
    child.wait().unwrap();
    // Findings are written down up to a third of a second after the answer.
    let finding = |agent: &Agent| Ok(agent.findings()?.into_iter().find(|f| Some(f.id) == record.finding));
    let mining = agent.wait_for("the finding that it was cut for", PATIENCE, finding).unwrap();
    assert_eq!(mining.kind, FindingKind::Mining, "{}", mining.summary);
    assert!(!world.reaches(443));
}

#[test]
fn a_web_page_of_a_listed_pool_is_told_and_nobody_is_cut_off() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let world = World::make("page");
    let web = world.there(|| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let to = web.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in web.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.read(&mut [0; 1024]);
            let page = "{\"method\":\"mining.notify\",\"params\":[]}";
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
            let _ = stream.write_all(format!("{head}{page}").as_bytes());
        }
    });
    let heard = world.listen(8117, to);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("etc")).unwrap();
    std::fs::write(folder.path().join("etc/pools.txt"), format!("{POOL}\n")).unwrap();
    let policy = world.policy("[mining.pools]\ncidrs = [\"pools.txt\"]\n[pools]\nmode = \"enforce\"\n");
    let agent = Agent::start_in(folder.path(), &policy, Command::new(davy_test_e2e::davy()), &[]).unwrap();
    let read = format!("import urllib.request; print(urllib.request.urlopen('http://{POOL}:8117/').read())");
    for _ in 0..2 {
        let output = world.python(&read);
        assert!(String::from_utf8_lossy(&output.stdout).contains("mining.notify"), "{output:?}");
    }
    let told = |agent: &Agent| {
        let of_list =
            |f: &Finding| f.kind == FindingKind::PoolContact && f.summary.contains("stands on list");
        Ok(agent.findings()?.into_iter().find(of_list))
    };
    agent.wait_for("the finding about the page", PATIENCE, told).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(cuts(&agent).is_empty(), "{:?}", cuts(&agent));
    assert!(world.reaches(8117) && heard.lines().len() >= 3);
    // Whoever goes there and asks for no page is cut off.
    let binary = format!(
        "import socket,time; s=socket.create_connection(('{POOL}',9999),5)\nfor _ in range(40): s.sendall(b'x'*32); time.sleep(0.2)"
    );
    let mined = world.listen(9999, to);
    let output = world.python(&binary);
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(cut(&agent).state, ActionState::Done);
    assert_eq!(mined.lines().len(), 1);
}
