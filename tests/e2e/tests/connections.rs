//! Who talks to whom, told by a live agent that watches two hosts in namespaces of their own.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use davy_model::{Connection, Heading, Naming, Peer, Place, Transport};
use davy_test_e2e::{Agent, Scope, TwoHosts, davy, root_or_skip};
use davy_wire::{Query, Reply, RequestBody};

const PATIENCE: Duration = Duration::from_secs(30);
/// What this process is told to be instead of a test.
const ACT: &str = "DAVY_E2E_CONNECTIONS_ACT";
/// The first host, and the second under its inner and its outer address.
const CLIENT: &str = "10.77.0.1";
const INNER: &str = "10.77.0.2";
const OUTER: &str = "203.0.113.7";

/// One test at a time: each agent sees the whole host.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer to a question for the address of a name (RFC 1035).
fn answer(question: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut message = question.to_vec();
    (message[2], message[3], message[7]) = (0x81, 0x80, 1);
    message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    message.extend(address);
    message
}

fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// A TLS 1.2 hello with nothing but a server name (RFC 5246, RFC 6066).
fn hello(name: &str) -> Vec<u8> {
    let name = name.as_bytes();
    let length = |of: usize| u16::try_from(of).unwrap().to_be_bytes();
    let entry = [&[0][..], &length(name.len()), name].concat();
    let list = [&length(entry.len())[..], &entry].concat();
    let extension = [&[0, 0][..], &length(list.len()), &list].concat();
    let body =
        [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &length(extension.len()), &extension].concat();
    let handshake = [&[1, 0][..], &length(body.len()), &body].concat();
    [&[22, 3, 1][..], &length(handshake.len()), &handshake].concat()
}

/// Serves names, and answers whatever comes at four ports with ten bytes.
fn serve() {
    let names = UdpSocket::bind((INNER, 53)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((n, from)) = names.recv_from(&mut buffer) {
            let outer = buffer[..n].windows(4).any(|bytes| bytes == b"shop");
            let address: IpAddr = if outer { OUTER } else { INNER }.parse().unwrap();
            let IpAddr::V4(address) = address else { return };
            let _ = names.send_to(&answer(&buffer[..n], address.octets()), from);
        }
    });
    for port in [80, 443, 5432] {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let (mut stream, mut buffer) = (stream, [0; 2048]);
                    while stream.read(&mut buffer).is_ok_and(|n| n > 0)
                        && stream.write_all(b"0123456789").is_ok()
                    {}
                });
            }
        });
    }
    let echo = UdpSocket::bind((INNER, 9999)).unwrap();
    let mut buffer = [0; 512];
    while let Ok((n, from)) = echo.recv_from(&mut buffer) {
        let _ = echo.send_to(&buffer[..n], from);
    }
}

fn resolve(name: &str) -> IpAddr {
    let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
    socket.connect((INNER, 53)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&question(name)).unwrap();
    let mut buffer = [0; 512];
    let n = socket.recv(&mut buffer).unwrap();
    <[u8; 4]>::try_from(&buffer[n - 4..n]).unwrap().into()
}

/// Says something and waits for the answer.
fn say(to: SocketAddr, words: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    stream.write_all(words).unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    stream
}

/// Talks in every way once, holds one connection, and stays until it is ended.
fn talk() {
    let shop = resolve("shop.example");
    say((shop, 80).into(), b"GET /upload.php?x=1 HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    say((shop, 443).into(), &hello("pay.example"));
    let held: Vec<TcpStream> = (0..3)
        .map(|_| {
            let database = resolve("db.example");
            say((database, 5432).into(), &[b'x'; 100])
        })
        .skip(2)
        .collect();
    let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
    socket.connect((INNER, 9999)).unwrap();
    for _ in 0..3 {
        socket.send(&[b'y'; 50]).unwrap();
        socket.recv(&mut [0; 512]).unwrap();
    }
    drop(socket);
    println!("said everything");
    std::thread::sleep(Duration::from_secs(120));
    drop(held);
}

/// Knocks at 600 ports of which none is open.
fn knock() {
    for port in 10_000..10_600 {
        assert!(
            TcpStream::connect_timeout(&(INNER.parse::<IpAddr>().unwrap(), port).into(), PATIENCE).is_err()
        );
    }
}

/// Not a test: what the tests start on their hosts.
#[test]
fn an_actor() {
    match std::env::var(ACT).as_deref() {
        Ok("serve") => serve(),
        Ok("talk") => talk(),
        Ok("knock") => knock(),
        _ => {}
    }
}

/// A process of the test's own.
struct Actor(Child);

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cgroup inside the scope that is called as a service's is.
struct Service(PathBuf);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        let end = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Two hosts, a server on the second, and a program on the first that is known by its name.
struct Stage {
    hosts: TwoHosts,
    talker: PathBuf,
    _server: Actor,
    service: Service,
    scope: Scope,
    folder: tempfile::TempDir,
}

impl Stage {
    fn set(name: &str) -> Self {
        let scope = Scope::make(name).unwrap();
        let service = Service(scope.dir().join("davy-shop.service"));
        std::fs::create_dir(&service.0).unwrap();
        let inner = format!("{INNER}/24");
        let hosts = TwoHosts::make(&[&format!("{CLIENT}/24")], &[&inner, &format!("{OUTER}/32")]).unwrap();
        let folder = tempfile::Builder::new().prefix("davy-connections-").tempdir().unwrap();
        let talker = folder.path().join("davy-talker");
        std::fs::copy(std::env::current_exe().unwrap(), &talker).unwrap();
        let server = act(hosts.command(1), &scope, scope.dir(), &std::env::current_exe().unwrap(), "serve");
        let stage = Self { hosts, talker, _server: server, service, scope, folder };
        let ready = "i=0; until ss -Hltn 'sport = :5432' | grep -q . ; do \
                     i=$((i+1)); test $i -lt 100 || exit 1; sleep 0.1; done";
        stage.hosts.shell(1, ready).unwrap();
        stage
    }

    fn starts(&self, what: &str) -> Actor {
        act(self.hosts.command(0), &self.scope, &self.service.0, &self.talker, what)
    }

    fn base(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    fn agent(&self) -> Agent {
        std::fs::create_dir_all(self.base()).unwrap();
        Agent::start_in(&self.base(), "", Command::new(davy()), &[]).unwrap()
    }
}

/// This very test program as an actor, inside a cgroup.
fn act(mut command: Command, scope: &Scope, cgroup: &Path, program: &Path, what: &str) -> Actor {
    command.args(["/bin/sh", "-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(cgroup.join("cgroup.procs"));
    command.arg(program).args(["--exact", "an_actor", "--nocapture"]).env(ACT, what);
    Actor(scope.spawn(&mut command).unwrap())
}

fn rows(agent: &Agent, process: &str) -> Vec<Connection> {
    let query = Query::Connections {
        since: None,
        limit: 10_000,
        service: None,
        process: Some(process.to_owned()),
        outside: None,
    };
    let replies = agent.ask(RequestBody::Query(query)).unwrap();
    let row = |reply| match reply {
        Reply::Connection(entry) => entry.connection,
        other => panic!("not a connection: {other:?}"),
    };
    replies.into_iter().map(row).collect()
}

fn row<'a>(rows: &'a [Connection], peer: &Peer, port: u16) -> Option<&'a Connection> {
    rows.iter().find(|row| row.peer == *peer && row.port == port)
}

fn name(name: &str) -> Peer {
    Peer::Name(name.to_owned())
}

/// What `davy connections` with these arguments prints.
fn shown(agent: &Agent, args: &[&str]) -> String {
    let output = Command::new(davy())
        .arg("--base-dir")
        .arg(agent.base())
        .arg("connections")
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_connection_has_an_owner_and_a_name_and_outlives_the_agent() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let stage = Stage::set("connections");
    let agent = stage.agent();
    let client = stage.starts("talk");
    let mut last = Vec::new();
    let all = agent
        .wait_for("everything that was said", PATIENCE, |agent| {
            let rows = rows(agent, "davy-talker");
            let complete = row(&rows, &name("db.example"), 5432).is_some_and(|row| row.connections == 3)
                && row(&rows, &name("pay.example"), 443).is_some()
                && rows.iter().any(|row| row.port == 9999);
            last.clone_from(&rows);
            Ok(complete.then_some(rows))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {last:#?}"));
    assert!(
        all.iter().all(|row| row.direction == Heading::Outbound
            && row.talker.program == stage.talker.display().to_string()
            && row.talker.service.as_deref() == Some("davy-shop.service")
            && row.talker.file.ino != 0
            && row.talker.uid == Some(0)),
        "{all:#?}"
    );

    let shop = row(&all, &name("shop.example"), 80).unwrap();
    assert_eq!((shop.place, shop.named_by, shop.tls), (Some(Place::Outside), Some(Naming::Http), false));
    assert_eq!(shop.requests, ["GET /upload.php"], "without the query, which may be a secret");
    assert_eq!((shop.received_bytes, shop.open, &shop.addresses[..]), (10, 0, &[OUTER.parse().unwrap()][..]));
    let pay = row(&all, &name("pay.example"), 443).unwrap();
    assert_eq!((pay.place, pay.named_by, pay.tls), (Some(Place::Outside), Some(Naming::Tls), true));
    let database = row(&all, &name("db.example"), 5432).unwrap();
    assert_eq!((database.place, database.named_by), (Some(Place::Inside), Some(Naming::Dns)));
    assert_eq!((database.connections, database.open), (3, 1), "three are one row, and one of them is open");
    assert_eq!((database.sent_bytes, database.received_bytes), (300, 30));
    let echo = all.iter().find(|row| row.port == 9999).unwrap();
    assert_eq!((echo.transport, echo.sent_bytes, echo.received_bytes), (Transport::Udp, 150, 150));

    // The server's side: who came, at which port, and what was asked for.
    let server = std::env::current_exe().unwrap();
    let served = rows(&agent, server.to_str().unwrap());
    let visitor = row(&served, &Peer::Address(CLIENT.parse().unwrap()), 80).unwrap();
    assert_eq!((visitor.direction, visitor.place), (Heading::Inbound, Some(Place::Inside)));
    assert_eq!(visitor.requests, ["GET shop.example/upload.php"]);

    let graph = shown(&agent, &["--graph", "--service", "davy-shop", "--outside"]);
    assert!(graph.starts_with("davy-shop.service\n└─ davy-talker (root)\n"), "{graph}");
    assert!(graph.contains("→ pay.example:443 (203.0.113.7) outside, tls"), "{graph}");
    assert!(!graph.contains("db.example"), "{graph}");
    assert!(shown(&agent, &["--inside", "--process", "davy-talker"]).contains("db.example:5432"));
    assert_eq!(
        shown(&agent, &["--since", "2099-01-01T00:00:00Z"]),
        "Nobody talked, as far as was asked for.\n"
    );

    // The agent is stopped and started again while one connection is open.
    drop(agent);
    let agent = stage.agent();
    let again = agent
        .wait_for("the open connection in its row", PATIENCE, |agent| {
            let rows = rows(agent, "davy-talker");
            let found = row(&rows, &name("db.example"), 5432).is_some_and(|row| row.open == 1);
            Ok(found.then_some(rows))
        })
        .unwrap();
    let kept = row(&again, &name("db.example"), 5432).unwrap();
    assert_eq!((kept.id, kept.connections, kept.sent_bytes), (database.id, 3, 300), "{again:#?}");
    assert_eq!(row(&again, &name("shop.example"), 80).unwrap(), shop);
    // The kernel counts questions to name servers once a second, so some came after the look.
    let without = |rows: &[Connection]| rows.iter().filter(|row| row.port != 53).count();
    assert_eq!(without(&again), without(&all), "{again:#?}");
    drop(client);
}

#[test]
fn a_program_that_talks_to_everybody_takes_no_room_from_others() {
    if !root_or_skip() {
        return;
    }
    let _alone = alone();
    let stage = Stage::set("knocking");
    let agent = stage.agent();
    let mut knocking = stage.starts("knock");
    assert!(knocking.0.wait().unwrap().success());
    let sum = |rows: &[Connection]| rows.iter().map(|row| row.connections).sum::<u64>();
    let all = agent
        .wait_for("600 knocks", PATIENCE, |agent| {
            let rows = rows(agent, "davy-talker");
            Ok((sum(&rows) >= 600).then_some(rows))
        })
        .unwrap();
    assert_eq!((sum(&all), all.len()), (600, 257), "256 ports, and the rest together");
    let others = all.iter().find(|row| row.peer == Peer::Others).unwrap();
    assert_eq!((others.connections, others.port), (344, 0));
    let counted = agent
        .wait_for("the count in the status", PATIENCE, |agent| {
            let drops = agent.status()?.drops;
            Ok(drops.into_iter().find(|drop| drop.kind.starts_with("connections summed up")))
        })
        .unwrap();
    assert!(counted.count >= 344, "{counted:?}");
}
