//! Scans of ports by real tools between network namespaces of the test's own, and what happens every day, which is none.
#![allow(clippy::unwrap_used, missing_docs)]

mod cables;

use std::process::Command;
use std::time::{Duration, Instant};

use cables::{
    Background, PATIENCE, World, alone, assert_as_published, have, number, run, scan_of, scans, watched,
};
use davy_model::{IncidentState, Severity};
use davy_test_e2e::{Agent, davy};
use davy_wire::{Command as Order, RequestBody};

/// Scans of the reference's table by their names there, and what they send.
const SCANS: [(&str, &str); 18] = [
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
    ("nmap -sS -T5", "SYN"),
    ("nmap -sS -T2", "SYN"),
    ("nmap -6 -sS", "SYN"),
    ("nmap -6 -sF", "FIN"),
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
            "nmap -6 -sS" | "nmap -6 -sF" => (format!("fd80:{at}::1"), format!("fd80:{at}::2")),
            _ => (format!("10.80.{at}.1"), format!("10.80.{at}.2")),
        };
        let options: Vec<&str> = options.split(' ').collect();
        world.must(at, "nmap", &[&["-n", "-Pn"][..], &options, &["-p", ports, &host]].concat());
        let found = scan_of(&agent, &source);
        assert!(found.summary.contains(kind), "{name}: {}", found.summary);
        assert_as_published(name, &found);
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
fn what_happens_every_day_is_no_scan() {
    if !have(&["curl", "ip", "python3"]) {
        return;
    }
    let _alone = alone();
    let world = World::make("daily", 7);
    let folder = tempfile::tempdir().unwrap();
    let server = world.serve(&[80, 443, 22, 8080], &[53, 123]);
    let agent = world.agent(folder.path(), "");
    let python = |at: usize, script: &str| world.must(at, "python3", &["-c", script]);
    // A browser with many connections, one after the other and at once.
    for _ in 0..5 {
        let url = "http://10.80.0.1/[1-30]";
        world.must(0, "curl", &["-s", "-Z", "-o", "/dev/null", url]);
        world.must(0, "curl", &["-s", "-o", "/dev/null", "http://10.80.0.1:443/"]);
    }
    // Monitoring of five ports, of which two are down, and of the time; a ping now and then.
    let monitoring = "import socket\nfor r in range(12):\n for p in (22,80,443,5432,3306):\n  \
         try: socket.create_connection(('10.80.1.1',p),2).close()\n  except OSError: pass\n \
         u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.settimeout(2); u.sendto(b'x',('10.80.1.1',123)); u.recv(9)\n";
    python(1, monitoring);
    let pings = "import socket\nr=socket.socket(socket.AF_INET,socket.SOCK_RAW,1)\n\
         for n in range(5): r.sendto(b'\\x08\\x00\\xf7\\xfe\\x00\\x01\\x00\\x00',('10.80.1.1',0))\n";
    python(1, pings);
    // Health checks of a port where nothing listens yet, and name questions over a port each.
    let checks = "import socket,time\nfor r in range(40):\n \
         try: socket.create_connection(('10.80.2.1',9090),2).close()\n except OSError: pass\n \
         u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.settimeout(2); u.sendto(b'x',('10.80.2.1',53)); u.recv(9); time.sleep(0.05)\n";
    python(2, checks);
    // An administrator who knocks at four ports and then comes in.
    let knock = "import socket\nfor p in (7000,8000,9000,10000):\n \
         try: socket.create_connection(('10.80.3.1',p),1)\n except OSError: pass\n\
         socket.create_connection(('10.80.3.1',22),2).close()\n";
    python(3, knock);
    // A mail program that finds out its settings, and a crawler that tries the other usual ports of web servers.
    let mail = "import socket\nfor p in (143,993,110,995,587,465,25):\n \
         try: socket.create_connection(('10.80.5.1',p),1)\n except OSError: pass\n\
         socket.create_connection(('10.80.5.1',443),2).close()\n";
    python(5, mail);
    for port in [8443, 8000, 8888, 81, 3000] {
        let refused = format!("http://10.80.6.1:{port}/");
        let _ = world.client(6, "curl").args(["-s", "-o", "/dev/null", &refused]).status().unwrap();
        world.must(
            6,
            "curl",
            &["-s", "-o", "/dev/null", "http://10.80.6.1/robots.txt", "http://10.80.6.1:8080/"],
        );
    }
    // What traceroute sends: datagrams to ports that rise, the last of them still with few hops to go.
    let trace = "import socket\nu=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nfor n in range(48):\n \
         u.setsockopt(0,2,1+n//3); u.sendto(b'x',('10.80.4.1',33434+n))\n";
    python(4, trace);
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
        world.must(at, "nmap", &["-n", "-Pn", "-sS", "-p", ports, &host]);
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
