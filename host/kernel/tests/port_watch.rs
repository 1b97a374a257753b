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

/// The numbers of the interfaces that this process's packet sockets are at; zero is all of them.
fn watched() -> BTreeSet<u32> {
    let text = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
    text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(4)?.parse().ok()).collect()
}

/// Follows until this is what is watched.
fn follow(watch: &mut PortWatch, expected: &[u32]) {
    let expected: BTreeSet<u32> = expected.iter().copied().collect();
    let begun = Instant::now();
    while watched() != expected {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?} and not {expected:?}", watched());
        watch.follow_interfaces().unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn each_interface_that_others_reach_is_watched_as_it_comes_and_goes_and_no_other() {
    if !tools(&["nmap", "ip"]) {
        return;
    }
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let pair = Pair::make(5);
    let [here, there] = &pair.names;
    let index = |name: &str| -> u32 {
        let text = Command::new("ip").args(["-n", here, "-o", "link", "show", name]).output().unwrap();
        String::from_utf8_lossy(&text.stdout).split(':').next().unwrap().trim().parse().unwrap()
    };
    let mut watch = open(&live);
    let cable = index("cable");
    assert_eq!(watched(), BTreeSet::from([cable]), "neither loopback nor all of them");

    // The end of a container, of which only the bridge that it is at is an interface of this host's.
    let ip = |words: &str| run("ip", &words.split(' ').collect::<Vec<_>>());
    let cable_between = |name: &str, number: Option<u32>, net: &str, own: &str| {
        let number = number.map(|number| format!(" index {number}")).unwrap_or_default();
        ip(&format!("-n {here} link add {name}{number} type veth peer name {name} netns {there}"));
        ip(&format!("-n {here} address add {net}.1/24 dev {own}"));
        ip(&format!("-n {there} address add {net}.2/24 dev {name}"));
        ip(&format!("-n {here} link set {name} up"));
        ip(&format!("-n {there} link set {name} up"));
    };
    ip(&format!("-n {here} link add bridge type bridge"));
    ip(&format!("-n {here} link set bridge up"));
    cable_between("port", None, "10.79.1", "bridge");
    ip(&format!("-n {here} link set port master bridge"));
    cable_between("late", None, "10.79.2", "late");
    let (bridge, late) = (index("bridge"), index("late"));
    follow(&mut watch, &[cable, bridge, late]);
    let scan = |watch: &mut PortWatch, to: &str, ports: std::ops::Range<u16>| {
        let range = format!("-p{}-{}", ports.start, ports.end - 1);
        let status = pair.other("nmap").args(["-n", "-Pn", "-sS", &range, to]).status().unwrap();
        assert!(status.success());
        let told = all(watch);
        let count = told.iter().filter(|sight| probes(PortProbeKind::Syn)(&sight.news)).count();
        assert_eq!(count, ports.len(), "{to}: {told:#?}");
    };
    scan(&mut watch, "10.79.1.1", 20..30);
    scan(&mut watch, "10.79.2.1", 30..40);

    // Gone, and another there that has its number before anybody looked.
    ip(&format!("-n {here} link delete late"));
    cable_between("late", Some(late), "10.79.3", "late");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        watch.follow_interfaces().unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    follow(&mut watch, &[cable, bridge, late]);
    scan(&mut watch, "10.79.3.1", 40..50);
    ip(&format!("-n {here} link delete late"));
    ip(&format!("-n {here} link delete bridge"));
    follow(&mut watch, &[cable]);
}

#[test]
fn interfaces_beyond_the_bound_are_told_of_and_the_others_watched() {
    if !tools(&["ip"]) {
        return;
    }
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let pair = Pair::make(6);
    let mut batch = String::new();
    for n in 0..70 {
        batch += &format!("link add bridge{n} type bridge\n");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), batch).unwrap();
    run("ip", &["-n", &pair.names[0], "-batch", file.path().to_str().unwrap()]);
    let mut watch = open(&live);
    assert_eq!(watched().len(), 64);
    std::thread::sleep(Duration::from_secs(2));
    let error = watch.follow_interfaces().unwrap_err();
    assert!(matches!(error, davy_kernel::Error::Full { bound: 64, .. }), "{error}");
    // Once, until something changes.
    std::thread::sleep(Duration::from_secs(2));
    watch.follow_interfaces().unwrap();
    run("ip", &["-n", &pair.names[0], "link", "delete", "bridge69"]);
    std::thread::sleep(Duration::from_millis(100));
    watch.follow_interfaces().unwrap_err();
}

/// Who connected here once, and then looks for ports as fast as it can, from many addresses.
#[test]
fn proven_visitors_that_turn_to_scanning_are_bounded_too() {
    if !tools(&["masscan", "ip", "python3"]) {
        return;
    }
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let pair = Pair::make(7);
    run("ip", &["-n", &pair.names[0], "route", "add", "10.78.0.0/24", "dev", "cable"]);
    let addresses: String = (0..128).map(|n| format!("address add 10.78.0.{n}/32 dev cable\n")).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), addresses).unwrap();
    run("ip", &["-n", &pair.names[1], "-batch", file.path().to_str().unwrap()]);
    let listener = TcpListener::bind((pair.here(), 22)).unwrap();
    let mut watch = open(&live);
    let script = format!(
        "import socket\nfor n in range(128): socket.create_connection(('{}',22),5,(f'10.78.0.{{n}}',0)).close()\n",
        pair.here()
    );
    assert!(pair.other("python3").args(["-c", &script]).status().unwrap().success());
    let proven = all(&mut watch);
    let proven = proven.iter().filter(|sight| matches!(sight.news, PortNews::Handshake { .. }));
    assert_eq!(proven.map(|sight| sight.source).collect::<BTreeSet<_>>().len(), 128);
    let mut flood = pair.other("timeout");
    flood.args([
        "3",
        "masscan",
        "--adapter",
        "cable",
        "--adapter-ip",
        "10.78.0.0-10.78.0.127",
        "--router-mac",
    ]);
    flood.arg(mac(&pair)).args(["-p1-65535", "--rate", "2000000", "--infinite", "--wait", "0"]);
    let begun = Instant::now();
    let mut flood = flood.arg(pair.here().to_string()).spawn().unwrap();
    let mut told = 0;
    while flood.try_wait().unwrap().is_none() {
        told += watch.read(Duration::from_millis(20)).len();
    }
    let (seconds, losses) = (begun.elapsed().as_secs_f64(), watch.losses());
    println!("{told} told in {seconds:.1} s, {losses:?}");
    let bound = 8_000.0 + 16_000.0 + 4_000.0 + 14_000.0 * (seconds + 1.0);
    assert!(told as f64 <= bound, "{told} in {seconds} s, where at most {bound} are promised");
    assert!(told > 10_000 && losses.throttled > 0, "{told}, {losses:?}");
    drop(listener);
}

#[test]
fn a_flood_is_bounded_and_pushes_out_no_proven_visitor() {
    if !tools(&["masscan", "ip", "python3"]) {
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
    assert!(told as f64 <= 28_000.0 + 14_000.0 * (seconds + 1.0), "{told} in {seconds} s");
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
