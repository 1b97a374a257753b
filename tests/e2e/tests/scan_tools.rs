//! Scans by tools that send in ways of their own: from behind decoys, from behind somebody else, and fast.
#![allow(clippy::unwrap_used, missing_docs)]

mod cables;

use std::process::Stdio;
use std::time::{Duration, Instant};

use cables::{Background, World, alone, assert_as_published, have, number, run, scan_of, scans};

#[test]
fn decoys_are_one_scan_without_a_name() {
    if !have(&["nmap", "ip"]) {
        return;
    }
    let _alone = alone();
    let world = World::make("decoy", 1);
    let folder = tempfile::tempdir().unwrap();
    let agent = world.agent(folder.path(), "");
    let decoys = "10.80.0.50,10.80.0.51,ME,10.80.0.52";
    world.must(0, "nmap", &["-n", "-Pn", "-sS", "-p", "20-219", "-D", decoys, "10.80.0.1"]);
    let found = scan_of(&agent, "one of 4 addresses");
    assert!(found.summary.contains("nmap") && number(&found, "proven") == 0.0, "{}", found.summary);
    assert_eq!(scans(&agent).len(), 1, "{:#?}", scans(&agent));
}

/// At 2,000 probes a second: with the sender's hardware address known, and while the kernel waits to learn it and holds the
/// answers back.
#[test]
fn masscan_is_known_also_before_answers_can_leave() {
    if !have(&["masscan", "ip", "nft", "python3"]) {
        return;
    }
    let _alone = alone();
    let world = World::make("masscan", 2);
    let folder = tempfile::tempdir().unwrap();
    let agent = world.agent(folder.path(), "");
    let masscan = |at: usize| {
        let own = format!("10.80.{at}.2");
        let mut masscan = world.client(at, "masscan");
        masscan.args(["--adapter", "eth", "--adapter-ip", &own, "--router-mac"]);
        masscan.args([&world.hardware_address(at, "-"), "--wait", "0", "-p1-1000", "--rate", "2000"]);
        masscan.arg(format!("10.80.{at}.1"));
        masscan
    };
    let ping = "import socket\nr=socket.socket(socket.AF_INET,socket.SOCK_RAW,1); r.settimeout(5)\n\
         r.sendto(b'\\x08\\x00\\xf7\\xfe\\x00\\x01\\x00\\x00',('10.80.0.1',0)); r.recv(99)\n";
    world.must(0, "python3", &["-c", ping]);
    assert!(masscan(0).status().unwrap().success());
    let found = scan_of(&agent, "10.80.0.2");
    assert!(found.summary.contains("masscan"), "{}", found.summary);
    assert_as_published("masscan", &found);

    let table = "add table arp t; add chain arp t in { type filter hook input priority 0; policy drop; }";
    assert!(world.host("nft").arg(table).status().unwrap().success());
    let mut sending = Background(masscan(1).spawn().unwrap());
    let begun = Instant::now();
    while received(&world, "c1") < 500 {
        assert!(begun.elapsed() < Duration::from_secs(20), "masscan sends nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(world.host("nft").arg("delete table arp t").status().unwrap().success());
    assert!(sending.0.wait().unwrap().success());
    let found = scan_of(&agent, "10.80.1.2");
    assert!(found.summary.contains("masscan"), "{}", found.summary);
    assert_as_published("masscan, answers late", &found);
    assert_eq!(scans(&agent).len(), 2, "{:#?}", scans(&agent));
}

/// Packets that came to the host at one cable.
fn received(world: &World, end: &str) -> u64 {
    let text = world.host("cat").arg("/proc/thread-self/net/dev").output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(end)?.strip_prefix(':')).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// zmap tries one port of many hosts; whoever wants more of one host runs it for each port.
#[test]
fn zmap_is_known_when_it_tries_several_ports() {
    if !have(&["zmap", "ip"]) {
        return;
    }
    let _alone = alone();
    let world = World::make("zmap", 1);
    let folder = tempfile::tempdir().unwrap();
    let agent = world.agent(folder.path(), "");
    let mac = world.hardware_address(0, ":");
    let zmap = |port: u16| {
        let mut zmap = world.client(0, "zmap");
        zmap.args([
            "-C",
            "/dev/null",
            "-b",
            "/dev/null",
            "-i",
            "eth",
            "-S",
            "10.80.0.2",
            "-c",
            "1",
            "-G",
            &mac,
        ]);
        zmap.args(["-o", "/dev/null", "-p", &port.to_string(), "10.80.0.1/32"]);
        Background(zmap.spawn().unwrap())
    };
    assert!(zmap(20).0.wait().unwrap().success());
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(scans(&agent), [], "one port is a visit that failed");
    for mut one in (21..33).map(zmap).collect::<Vec<_>>() {
        assert!(one.0.wait().unwrap().success());
    }
    let found = scan_of(&agent, "10.80.0.2");
    assert!(found.summary.contains("zmap"), "{}", found.summary);
    assert_as_published("zmap", &found);
}

/// The scanner sends in the name of a third host, and reads off that host's packet numbers which ports answered it. What the
/// scanned host sees is that third host, of which it must not say that it was it.
#[test]
fn a_scan_from_behind_an_idle_host_proves_nothing_of_that_host() {
    if !have(&["nmap", "ip", "python3"]) {
        return;
    }
    let _alone = alone();
    let world = World::make("idle", 2);
    // The scanner reaches the idle host through the scanned one, in whose name it tries first whether packets are counted there.
    let settings = "cd /proc/sys/net/ipv4; for f in all c0 c1; do echo 0 > conf/$f/rp_filter; done\n\
         echo 1 > ip_forward; echo 1 > conf/all/accept_local";
    assert!(world.host("sh").args(["-c", settings]).status().unwrap().success());
    for client in 0..2 {
        let gateway = format!("10.80.{client}.1");
        run("ip", &["-n", &world.clients[client], "route", "add", "default", "via", &gateway]);
    }
    // Kernels of today give away no numbers; this one counts its packets, as printers and old systems do.
    let mut idle = world.client(1, "python3");
    let _idle = Background(idle.args(["-c", IDLE]).spawn().unwrap());
    std::thread::sleep(Duration::from_millis(700));
    let _server = world.serve(&[25], &[]);
    let folder = tempfile::tempdir().unwrap();
    let agent = world.agent(folder.path(), "");
    let nmap = world
        .client(0, "nmap")
        .args(["-n", "-Pn", "-sI", "10.80.1.9:80", "-p", "20-49", "10.80.0.1"])
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&nmap.stdout).into_owned();
    assert!(nmap.status.success() && said.contains("25/tcp open"), "{said}");
    let found = scan_of(&agent, "10.80.1.9");
    assert_as_published("nmap -sI", &found);
    assert_eq!(number(&found, "proven"), 0.0, "{}", found.summary);
    assert!(found.summary.contains("nothing proves that the address is its own"), "{}", found.summary);
    assert_eq!(scans(&agent).len(), 1, "{:#?}", scans(&agent));
}

/// A host at 10.80.1.9 that answers whatever belongs to no connection of its own with a reset, and numbers its packets.
const IDLE: &str = r"
import socket, struct
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
raw.bind(('eth', 0))
own, number = socket.inet_aton('10.80.1.9'), 7000
mac = raw.getsockname()[4]

def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff

while True:
    frame, place = raw.recvfrom(2048)
    if place[2] == 4:
        continue
    if frame[12:14] == b'\x08\x06' and frame[20:22] == b'\0\1' and frame[38:42] == own:
        raw.send(frame[6:12] + mac + frame[12:20] + b'\0\2' + mac + own + frame[22:32])
    elif frame[12:14] == b'\x08\0' and frame[23] == 6 and frame[30:34] == own:
        head = (frame[14] & 15) * 4 + 14
        source, target, sequence, acknowledged, _, flags = struct.unpack('!HHIIBB', frame[head:head + 14])
        if flags & 4:
            continue
        reset = (acknowledged, 0, 4) if flags & 16 else (0, sequence + 1, 20)
        tcp = struct.pack('!HHIIBBHHH', target, source, reset[0], reset[1] & 0xffffffff, 80, reset[2], 0, 0, 0)
        pseudo = own + frame[26:30] + struct.pack('!HH', 6, len(tcp))
        tcp = tcp[:16] + struct.pack('!H', checksum(pseudo + tcp)) + tcp[18:]
        number = number + 1 & 0xffff
        ip = struct.pack('!BBHHHBBH4s4s', 69, 0, 40, number, 0, 64, 6, 0, own, frame[26:30])
        ip = ip[:10] + struct.pack('!H', checksum(ip)) + ip[12:]
        raw.send(frame[6:12] + mac + b'\x08\0' + ip + tcp)
";
