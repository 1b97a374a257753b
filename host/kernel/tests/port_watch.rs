//! Who looks for open ports, told by real tools between two network namespaces of the test's own.
#![allow(clippy::unwrap_used, missing_docs)]

mod live;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use davy_kernel::PortWatch;
use davy_model::{Capability, PortNews, PortProbeKind, PortSight};
use live::Live;

/// Two namespaces with a cable between them; this thread is in the first, whose address ends in 1.
struct Pair {
    names: [String; 2],
    net: String,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Pair {
    /// `number` is the third part of the addresses, another for each test.
    fn make(number: u8) -> Self {
        let names = ["a", "b"].map(|end| format!("davy-kt{number}-{end}-{}", std::process::id()));
        let pair = Self { names, net: format!("10.77.{number}.") };
        let [a, b] = &pair.names;
        run("ip", &["netns", "add", a]);
        run("ip", &["netns", "add", b]);
        run("ip", &["-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b]);
        for (name, end) in [(a, 1), (b, 2)] {
            run("ip", &["-n", name, "address", "add", &format!("{}{end}/24", pair.net), "dev", "cable"]);
            let six = format!("fd77:{number}::{end}/64");
            run("ip", &["-n", name, "address", "add", &six, "dev", "cable", "nodad"]);
            run("ip", &["-n", name, "link", "set", "cable", "up"]);
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        let namespace = std::fs::File::open(format!("/run/netns/{a}")).unwrap();
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).unwrap();
        pair
    }

    fn here(&self) -> IpAddr {
        format!("{}1", self.net).parse().unwrap()
    }

    fn there(&self) -> IpAddr {
        format!("{}2", self.net).parse().unwrap()
    }

    /// A command of the other end.
    fn other(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.names[1])).args(["timeout", "60", program]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn nmap(&self, arguments: &str) {
        let here = self.here().to_string();
        let status =
            self.other("nmap").args(["-n", "-Pn"]).args(arguments.split(' ')).arg(here).status().unwrap();
        assert!(status.success(), "nmap {arguments}");
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

/// Whether all of it can be tried here; says loudly what is missing.
fn tools(tools: &[&str]) -> bool {
    tools.iter().all(|tool| {
        let there = ["/usr/bin", "/usr/sbin", "/sbin", "/bin"]
            .iter()
            .any(|folder| std::path::Path::new(folder).join(tool).exists());
        if !there {
            eprintln!("SKIPPED: {tool} is not installed");
        }
        there
    })
}

fn open(live: &Live) -> PortWatch {
    live.sensors.port_watches().start().unwrap()
}

/// Everything told until nothing more is for a while.
fn all(watch: &mut PortWatch) -> Vec<PortSight> {
    let (mut all, mut quiet) = (Vec::new(), Instant::now());
    while quiet.elapsed() < Duration::from_millis(600) {
        let more = watch.read(Duration::from_millis(100));
        if !more.is_empty() {
            quiet = Instant::now();
        }
        all.extend(more);
    }
    all
}

fn ports(sights: &[PortSight], is: impl Fn(&PortNews) -> bool) -> BTreeSet<u16> {
    sights.iter().filter(|sight| is(&sight.news)).map(|sight| sight.port).collect()
}

fn probes(kind: PortProbeKind) -> impl Fn(&PortNews) -> bool {
    move |news| matches!(news, PortNews::Probe { kind: told, .. } if *told == kind)
}

#[test]
fn every_kind_of_probe_is_told_once_with_what_became_of_it() {
    if !tools(&["nmap", "ip"]) {
        return;
    }
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let pair = Pair::make(1);
    let listener = TcpListener::bind((pair.here(), 25)).unwrap();
    let mut watch = open(&live);
    use PortProbeKind::{Ack, Fin, Fragment, Maimon, Null, Syn, Udp, Xmas};
    for (arguments, kind, refused) in [
        ("-sS -p20-29", Syn, true),
        ("-sF -p20-29", Fin, true),
        ("-sN -p20-29", Null, true),
        ("-sX -p20-29", Xmas, true),
        ("-sM -p30-39", Maimon, false),
        ("-sA -p30-39", Ack, false),
        ("-sS -f -p40-49", Fragment, true),
        ("-sU --max-retries 0 -p60-69", Udp, true),
    ] {
        pair.nmap(arguments);
        let told = all(&mut watch);
        let from = arguments.rsplit_once("-p").unwrap().1.split_once('-').unwrap().0.parse::<u16>().unwrap();
        let tried: BTreeSet<u16> = (from..from + 10).collect();
        assert_eq!(ports(&told, probes(kind)), tried, "{arguments}: {told:#?}");
        let count = told.iter().filter(|sight| probes(kind)(&sight.news)).count();
        assert_eq!(count, 10, "each is told once: {arguments}");
        assert!(told.iter().all(|sight| (sight.source, sight.local) == (pair.there(), pair.here())));
        // What was refused by an earlier scan is not told again.
        if refused && !matches!(kind, Fin | Null | Xmas) {
            assert!(ports(&told, |news| *news == PortNews::Refused).len() >= 5, "{arguments}: {told:#?}");
        }
        if kind == Syn {
            assert_eq!(ports(&told, |news| *news == PortNews::Open), BTreeSet::from([25]));
        }
        // A raw SYN is answered and goes no further, so nothing is proven.
        assert!(ports(&told, |news| matches!(news, PortNews::Handshake { .. })).is_empty());
    }
    drop(listener);
}

#[test]
fn connections_prove_themselves_and_what_belongs_to_them_is_no_probe() {
    if !tools(&["nmap", "ip", "python3"]) {
        return;
    }
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let pair = Pair::make(2);
    let listener = TcpListener::bind((pair.here(), 8080)).unwrap();
    let echo = UdpSocket::bind((pair.here(), 5353)).unwrap();
    let mut watch = open(&live);
    pair.nmap("-sT -p8070-8089");
    let told = all(&mut watch);
    assert_eq!(ports(&told, |news| matches!(news, PortNews::Handshake { .. })), BTreeSet::from([8080]));
    assert_eq!(ports(&told, |news| *news == PortNews::Refused).len(), 19);
    // A conversation over both, opened from there, and one opened from here: no further news but of the ports.
    let script = format!(
        "import socket\nfor i in range(20):\n s=socket.create_connection(('{0}',8080)); s.sendall(b'x'*9000); s.close()\n\
         u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nfor i in range(20): u.sendto(b'x',('{0}',5353)); u.recv(9)\n\
         l=socket.create_server(('{1}',9000)); c=l.accept()[0]; c.recv(9); c.sendall(b'y'*9000); c.close()\n",
        pair.here(),
        pair.there()
    );
    let mut python = pair.other("python3").args(["-c", &script]).spawn().unwrap();
    echo.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for _ in 0..20 {
        let mut byte = [0; 9];
        let (_, from) = echo.recv_from(&mut byte).unwrap();
        echo.send_to(b"y", from).unwrap();
    }
    let address = SocketAddr::new(pair.there(), 9000);
    let mut client = (0..100)
        .find_map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            TcpStream::connect(address).ok()
        })
        .unwrap();
    use std::io::{Read, Write};
    client.write_all(b"x").unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    drop(client);
    assert!(python.wait().unwrap().success());
    let told = all(&mut watch);
    let udp = |news: &PortNews| probes(PortProbeKind::Udp)(news);
    assert_eq!(ports(&told, udp), BTreeSet::from([5353]));
    let others: Vec<_> = told.iter().filter(|s| s.port != 5353).collect();
    assert_eq!(others, [] as [&PortSight; 0]);
    drop(listener);

    // Whoever answers a question to everybody is no scanner, and who asks at another port is none the less one.
    let asking = UdpSocket::bind((pair.here(), 0)).unwrap();
    asking.set_broadcast(true).unwrap();
    asking.send_to(b"who?", (format!("{}255", pair.net), 1900)).unwrap();
    let port = asking.local_addr().unwrap().port();
    let script = format!(
        "import socket\nu=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nfor p in ({port},4): u.sendto(b'me',('{}',p))\n",
        pair.here()
    );
    assert!(pair.other("python3").args(["-c", &script]).status().unwrap().success());
    assert_eq!(ports(&all(&mut watch), udp), BTreeSet::from([4]));
}

#[test]
fn both_families_are_seen_and_loopback_is_not() {
    if !tools(&["nmap", "ip"]) {
        return;
    }
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let pair = Pair::make(3);
    let mut watch = open(&live);
    let status =
        pair.other("nmap").args(["-6", "-n", "-Pn", "-sS", "-p50-59", "fd77:3::1"]).status().unwrap();
    assert!(status.success());
    for port in 50..60 {
        let _ = TcpStream::connect(("127.0.0.1", port));
        let _ = TcpStream::connect((pair.here(), port));
    }
    let told = all(&mut watch);
    assert_eq!(ports(&told, probes(PortProbeKind::Syn)), (50..60).collect());
    assert!(told.iter().all(|sight| sight.source.to_string() == "fd77:3::2"), "{told:#?}");
}

/// Bytes that the kernel holds for this process's maps of these names.
fn map_bytes(names: &[&str]) -> u64 {
    let mut bytes = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let value =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(memlock)) = (value("map_id:"), value("memlock:")) {
            bytes.insert(id, memlock);
        }
    }
    let own: BTreeSet<u64> = libbpf_rs::query::MapInfoIter::default()
        .filter(|map| names.iter().any(|name| map.name.to_string_lossy() == *name))
        .map(|map| u64::from(map.id))
        .collect();
    bytes.iter().filter(|(id, _)| own.contains(id)).map(|(_, bytes)| bytes).sum()
}

#[test]
fn a_flood_is_bounded_and_pushes_out_no_proven_visitor() {
    if !tools(&["masscan", "ip"]) {
        return;
    }
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let pair = Pair::make(4);
    // Forged sources answer nobody: their answers go nowhere.
    run("ip", &["-n", &pair.names[0], "route", "add", "blackhole", "10.78.0.0/16"]);
    let listener = TcpListener::bind((pair.here(), 22)).unwrap();
    let mut watch = open(&live);
    let maps = ["told", "locals", "firsts", "talks", "sources", "proven", "handshakes", "opened", "counts"];
    let held = map_bytes(&maps);
    assert!((1 << 20..=32 << 20).contains(&held), "{held} bytes");
    let mut flood = pair.other("timeout");
    flood.args([
        "5",
        "masscan",
        "--adapter",
        "cable",
        "--adapter-ip",
        "10.78.0.0-10.78.63.255",
        "--router-mac",
    ]);
    flood.arg(mac(&pair)).args(["-p1-65535", "--rate", "2000000", "--infinite", "--wait", "0"]);
    let mut flood = flood.arg(pair.here().to_string()).spawn().unwrap();
    let received = || -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("cable:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let (begun, before) = (Instant::now(), received());
    let mut told = 0;
    let mut proven = BTreeSet::new();
    let (mut tried, mut connected) = (0, 0);
    while flood.try_wait().unwrap().is_none() {
        if tried < 20 {
            tried += 1;
            let address =
                format!("import socket; socket.create_connection(('{}',22),5).close()", pair.here());
            connected += u32::from(pair.other("python3").args(["-c", &address]).status().unwrap().success());
        }
        for sight in watch.read(Duration::from_millis(20)) {
            told += 1;
            if matches!(sight.news, PortNews::Handshake { .. }) {
                proven.insert(sight.source);
            }
        }
    }
    let (packets, seconds) = (received() - before, begun.elapsed().as_secs_f64());
    let losses = watch.losses();
    println!("{packets} packets in {seconds:.1} s, {told} told, {losses:?}, {held} bytes of maps");
    assert!(packets > 60_000, "{packets} packets are no flood");
    assert!(tried >= 3);
    assert_eq!(connected, tried, "no connection is lost");
    assert_eq!(proven, BTreeSet::from([pair.there()]));
    // What is told stays within what is promised, and what is not is counted.
    assert!(told as f64 <= 16_000.0 + 4_000.0 + 12_000.0 * (seconds + 1.0), "{told} in {seconds} s");
    assert!(losses.throttled > 0);
    drop(listener);
}

/// The hardware address of this end.
fn mac(pair: &Pair) -> String {
    let text =
        Command::new("ip").args(["-n", &pair.names[0], "-o", "link", "show", "cable"]).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().replace(':', "-")
}
