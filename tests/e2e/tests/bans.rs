//! Who is banned, by order or for a scan, in a network of the test's own, and who never is.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::TcpListener;
use std::process::Output;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use davy_model::{Action, ActionRecord, ActionState, FindingKind};
use davy_test_e2e::{Administrator, Agent, Network, davy, needs, root_or_skip};
use davy_wire::{BanEntry, Command as Order, Query, Reply, RequestBody};

const PATIENCE: Duration = Duration::from_secs(30);

/// The port that tells whether somebody gets through.
const PORT: u16 = 8022;

/// One test at a time: each agent sees the whole host.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host with an agent and two listeners of the test's own.
struct Host {
    agent: Option<Agent>,
    network: Network,
    _listeners: Vec<TcpListener>,
    folder: tempfile::TempDir,
}

impl Host {
    fn start(policy: &str, flags: &[&str]) -> Self {
        let network = Network::make().unwrap();
        let listeners = [PORT, 8080].map(|port| network.listen("0.0.0.0", port).unwrap());
        let folder = tempfile::Builder::new().prefix("davy-bans-").tempdir().unwrap();
        let mut host = Self { agent: None, network, _listeners: listeners.into_iter().collect(), folder };
        host.again(policy, flags);
        host
    }

    fn again(&mut self, policy: &str, flags: &[&str]) {
        let command = self.network.agent(&Administrator::stage(self.folder.path()).unwrap());
        self.agent = Some(Agent::start_in(self.folder.path(), policy, command, flags).unwrap());
        let own = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        assert_ne!(own(self.agent().pid()), own(std::process::id()), "never in the machine's network");
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    fn end(&mut self, signal: rustix::process::Signal) {
        self.agent().signal(signal);
        self.agent.take().unwrap().wait_end(PATIENCE).unwrap();
    }

    fn reaches(&self, from: &str) -> bool {
        self.network.reaches(from, PORT).unwrap()
    }

    /// `davy` with these arguments, by whoever sits at the host.
    fn davy(&self, arguments: &[&str]) -> Output {
        let mut command = self.network.command();
        command.arg(davy()).arg("--base-dir").arg(self.folder.path()).args(arguments).output().unwrap()
    }

    fn order(&self, arguments: &[&str]) -> String {
        let output = self.davy(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.davy(arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    }

    fn bans(&self) -> Vec<BanEntry> {
        let replies = self.agent().ask(RequestBody::Query(Query::Bans)).unwrap();
        replies.into_iter().filter_map(|r| if let Reply::Ban(ban) = r { Some(ban) } else { None }).collect()
    }

    fn journal(&self) -> Vec<ActionRecord> {
        let replies = self.agent().ask(RequestBody::Query(Query::Actions { limit: 1000 })).unwrap();
        let records =
            replies.into_iter().filter_map(|r| if let Reply::Action(a) = r { Some(a) } else { None });
        records.filter(|record| matches!(record.action, Action::Ban { .. })).collect()
    }

    fn states(&self) -> Vec<ActionState> {
        self.journal().iter().map(|record| record.state).collect()
    }

    fn wait_for(&self, what: &str, mut is: impl FnMut() -> bool) {
        self.agent().wait_for(what, PATIENCE, |_| Ok(is().then_some(()))).unwrap();
    }

    fn ruleset(&self) -> String {
        let listed = self.network.command().args(["nft", "list", "ruleset"]).output().unwrap();
        String::from_utf8_lossy(&listed.stdout).into_owned()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn who_is_banned_is_shut_out_at_once_shown_and_let_in_again() {
    if !root_or_skip() || !needs(&["ip", "nft"]) {
        return;
    }
    let _alone = alone();
    let mut host = Host::start("", &[]);
    assert!(host.reaches(Network::FAR) && host.reaches(Network::NEAR));
    assert_eq!(
        (host.ruleset(), said(&host.davy(&["bans"]))),
        (String::new(), "Nobody is banned.\n".to_owned())
    );

    let words = host.order(&["ban", Network::FAR, "--for", "1h"]);
    let ordered = Instant::now();
    assert!(!host.reaches(Network::FAR), "what is ordered holds when it is answered");
    assert!(ordered.elapsed() < Duration::from_millis(700), "one unanswered try, and no wait before it");
    assert!(host.reaches(Network::NEAR));
    assert!(words.contains("203.0.113.3 banned for 1 h, by order of root"), "{words}");
    let [ban] = &host.bans()[..] else { panic!("one is banned: {:?}", host.bans()) };
    assert_eq!((ban.who.to_string(), ban.by.as_str(), ban.held), (Network::FAR.to_owned(), "root", true));
    assert!(ban.packets > 0, "what was dropped is counted: {ban:?}");
    let left = ban.until.secs_since(ban.since);
    assert!((3595.0..3605.0).contains(&left), "{left}");
    let shown = said(&host.davy(&["bans"]));
    assert!(shown.contains(Network::FAR) && shown.contains("root"), "{shown}");
    assert!(host.agent().status().unwrap().banned == 1 && host.order(&["status"]).contains("davy bans"));

    // The same again takes its place, for some ports only, and the sender is told.
    host.order(&["ban", Network::FAR, "--for", "1h", "--port", "8022", "--port", "22", "--reject"]);
    let begun = Instant::now();
    assert!(!host.reaches(Network::FAR) && begun.elapsed() < Duration::from_millis(400), "told at once");
    assert!(host.network.reaches(Network::FAR, 8080).unwrap());
    assert_eq!(host.states(), [ActionState::Expired, ActionState::Done]);
    assert_eq!(host.bans()[0].ports, [22, 8022]);

    let number = host.bans()[0].action.0;
    host.order(&["undo", &format!("a{number}")]);
    assert!(host.reaches(Network::FAR) && host.bans().is_empty());
    assert_eq!(host.states(), [ActionState::Expired, ActionState::Undone]);
    host.order(&["ban", "203.0.113.0/24", "--for", "1h"]);
    host.order(&["ban", "198.51.100.7", "--for", "1h"]);
    assert!(!host.reaches(Network::FAR));
    assert!(host.refused(&["unban", "192.0.2.1"]).contains("nobody is banned in 192.0.2.1"));
    assert!(host.refused(&["unban", Network::FAR]).contains("is banned with 203.0.113.0/24"));
    for part in [Network::FAR, "203.0.113.0/28"] {
        host.order(&["ban", part, "--for", "2h"]);
        assert!(host.order(&["unban", part]).contains("still is with 203.0.113.0/24"));
        assert!(!host.reaches(Network::FAR) && host.bans().iter().all(|ban| ban.held));
    }
    // Undone is what the action did, and who is banned in it by another one stays so.
    host.order(&["ban", Network::FAR, "--for", "1h"]);
    let wide = host.bans().into_iter().find(|ban| !ban.who.is_host()).unwrap();
    host.order(&["undo", &format!("a{}", wide.action.0)]);
    assert!(!host.reaches(Network::FAR) && host.bans().len() == 2 && host.bans().iter().all(|ban| ban.held));
    host.order(&["unban", "203.0.113.0/24"]);
    assert!(host.reaches(Network::FAR) && host.bans().len() == 1);
    host.order(&["unban", "--all"]);
    assert_eq!(
        (host.bans().len(), host.ruleset()),
        (0, String::new()),
        "where nobody is banned there is no table"
    );

    // It ends by itself, in the kernel and in the journal.
    host.order(&["ban", Network::FAR, "--for", "3s"]);
    let begun = Instant::now();
    assert!(!host.reaches(Network::FAR));
    while !host.reaches(Network::FAR) {
        assert!(begun.elapsed() < Duration::from_secs(6), "it does not end");
    }
    assert!(begun.elapsed() > Duration::from_millis(2500), "too early: {:?}", begun.elapsed());
    host.wait_for("the journal says so", || host.states().last() == Some(&ActionState::Expired));

    // Without the pin nothing outlives the agent.
    host.order(&["ban", Network::FAR, "--for", "1h"]);
    host.end(rustix::process::Signal::INT);
    assert!(host.reaches(Network::FAR));
    assert_eq!(host.ruleset(), "", "Ctrl-C leaves nothing behind");
    host.again("", &[]);
    host.wait_for("what has time left holds again", || !host.reaches(Network::FAR));
}

#[test]
fn a_ban_outlives_a_restart_and_somebody_elses_flush_and_not_an_order_to_stop() {
    if !root_or_skip() || !needs(&["ip", "nft"]) {
        return;
    }
    let _alone = alone();
    let mut host = Host::start("", &["--pin"]);
    host.order(&["ban", Network::FAR, "--for", "1h"]);
    host.order(&["ban", "2001:db8:7::/48", "--for", "2h", "--port", "22"]);
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        host.end(signal);
        assert!(!host.reaches(Network::FAR), "it needs no agent");
        host.again("", &["--pin"]);
        assert!(!host.reaches(Network::FAR));
        host.wait_for("both are known to the next agent", || {
            host.bans().iter().filter(|ban| ban.held).count() == 2
        });
    }
    assert!(host.bans()[0].packets > 0, "it goes on to count");

    let flushed = host.network.command().args(["nft", "flush", "ruleset"]).status().unwrap();
    assert!(flushed.success() && host.reaches(Network::FAR));
    host.wait_for("it is put back", || !host.reaches(Network::FAR));
    assert!(host.bans().iter().all(|ban| ban.held), "{:?}", host.bans());

    // An order that comes before the flush was seen leaves nobody out, and an emptied map is seen as well.
    let flushed = host.network.command().args(["nft", "flush", "ruleset"]).status().unwrap();
    assert!(flushed.success());
    host.order(&["ban", "192.0.2.1", "--for", "1h"]);
    assert!(!host.reaches(Network::FAR) && host.bans().iter().all(|ban| ban.held), "{:?}", host.bans());
    host.order(&["unban", "192.0.2.1"]);
    let emptied =
        host.network.command().args(["nft", "flush", "map", "inet", "davy_bans", "banned4"]).status();
    assert!(emptied.unwrap().success() && host.reaches(Network::FAR));
    host.wait_for("it is put back", || !host.reaches(Network::FAR));

    host.order(&["stop"]);
    host.agent.take().unwrap().wait_end(PATIENCE).unwrap();
    assert!(host.reaches(Network::FAR));
    assert_eq!(host.ruleset(), "", "an order to stop leaves nothing behind");
    // After a boot, or after an order to stop, the journal has what has time left.
    host.again("", &["--pin"]);
    host.wait_for("what has time left holds again", || !host.reaches(Network::FAR));
    host.end(rustix::process::Signal::TERM);
    assert!(host.order(&["stop"]).contains("bans"), "what an agent that is gone left is taken away too");
    assert!(host.reaches(Network::FAR));
}

#[test]
fn the_administrator_and_the_host_itself_are_never_banned() {
    if !root_or_skip() || !needs(&["ip", "nft"]) {
        return;
    }
    let _alone = alone();
    let host = Host::start("", &[]);
    let route = ["ip", "route", "add", "192.0.2.0/24", "via", Network::NEAR];
    assert!(host.network.command().args(route).status().unwrap().success());
    let session = Administrator::log_in(host.agent().pid(), Network::FAR, PORT).unwrap();
    for (who, why) in [
        (Network::FAR, "an administrator is logged in"),
        ("203.0.113.0/24", "203.0.113.3 is where an administrator is logged in"),
        (Network::HOST, "this host's own"),
        (Network::NEAR, "the gateway"),
        ("10.78.0.0/24", "10.78.0."),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0/0", "loopback"),
        ("ff02::1", "multicast"),
    ] {
        let said = host.refused(&["ban", who, "--for", "1h"]);
        assert!(said.contains(why), "{who}: {said}");
    }
    assert!(host.states().iter().all(|state| *state == ActionState::Refused) && host.states().len() == 9);
    assert!(host.bans().is_empty() && host.ruleset().is_empty(), "{}", host.ruleset());
    drop(session);
    host.order(&["ban", Network::FAR, "--for", "1h"]);
    for wrong in [
        &["ban", Network::FAR, "--for", "8d"][..],
        &["ban", "10.0.0.1/8", "--for", "1h"],
        &["ban", "host", "--for", "1h"],
    ] {
        assert_eq!(host.davy(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let seconds = RequestBody::Command(Order::Ban {
        who: "192.0.2.1".parse().unwrap(),
        ports: vec![],
        reject: false,
        seconds: 0,
    });
    assert!(host.agent().ask(seconds).is_err(), "a ban has to end by itself");
}

/// Tries many ports, most of which nobody listens on, and comes to talk at one.
fn scan(network: &Network, from: &str) {
    for port in (9000..9060).chain([PORT]) {
        drop(network.connect(from, port).unwrap());
    }
}

#[test]
fn who_is_proven_to_scan_is_banned_and_longer_each_time() {
    if !root_or_skip() || !needs(&["ip", "nft"]) {
        return;
    }
    let _alone = alone();
    let policy = "[scans]\nmode = \"enforce\"\nban_for = \"1h\"\n";
    let mut host = Host::start(policy, &["--pin"]);
    let watches = |host: &Host| {
        host.wait_for("the watch begins", || {
            let status = host.agent().status().unwrap();
            let scans = status.protections.iter().find(|p| p.name == "scans").unwrap();
            scans.note.contains("visits to this host succeed")
        });
    };
    watches(&host);
    scan(&host.network, Network::FAR);
    host.wait_for("the scanner is banned", || !host.bans().is_empty());
    assert!(!host.reaches(Network::FAR) && host.reaches(Network::NEAR));
    let [ban] = &host.bans()[..] else { panic!("{:?}", host.bans()) };
    assert_eq!(ban.who.to_string(), Network::FAR);
    let found = host.agent().findings().unwrap();
    let finding = found.iter().find(|finding| Some(finding.id) == ban.finding).unwrap();
    assert_eq!((finding.kind, ban.by.clone()), (FindingKind::Scan, format!("f{}", finding.id.0)));
    let length = |host: &Host| {
        let records = host.journal();
        let last = records.iter().max_by_key(|record| record.id).unwrap();
        match last.action {
            Action::Ban { seconds, .. } => seconds,
            _ => 0,
        }
    };
    assert_eq!(length(&host), 3600);

    // Whoever comes again when it is over stays out longer, also when another agent runs by then.
    let mark = host.journal().len();
    host.network.command().args(["nft", "delete", "table", "inet", "davy_bans"]).status().unwrap();
    host.end(rustix::process::Signal::KILL);
    std::fs::remove_dir_all(host.folder.path().join("state/store")).unwrap();
    host.again("", &["--pin"]);
    watches(&host);
    assert!(host.reaches(Network::FAR) && host.journal().is_empty() && mark == 1);
    scan(&host.network, Network::FAR);
    host.wait_for("he is banned again", || !host.bans().is_empty());
    assert_eq!(length(&host), 4 * 3600);

    // Of what no journal tells any more the kernel knows.
    host.end(rustix::process::Signal::KILL);
    std::fs::remove_dir_all(host.folder.path().join("state/store")).unwrap();
    host.again("", &["--pin"]);
    assert!(host.bans().is_empty() && !host.reaches(Network::FAR));
    assert!(host.order(&["unban", Network::FAR]).contains("let in again"));
    assert!(host.reaches(Network::FAR));
    assert!(host.refused(&["unban", "--all"]).contains("nobody is banned"));
}

#[test]
fn whose_address_was_forged_is_not_banned() {
    if !root_or_skip() || !needs(&["ip", "nft"]) {
        return;
    }
    let _alone = alone();
    let host = Host::start("[scans]\nmode = \"enforce\"\n", &[]);
    host.wait_for("the watch begins", || {
        let status = host.agent().status().unwrap();
        status.protections.iter().any(|p| p.name == "scans" && p.note.contains("visits to this host succeed"))
    });
    // Somebody sends in the name of an address to which no answer comes.
    let forged = "203.0.113.77";
    let forges = format!(
        "ip addr add {forged}/32 dev davy1 && nft 'add table ip forger; add chain ip forger deaf {{ type filter hook \
         prerouting priority -300; }}; add rule ip forger deaf ip daddr {forged} drop'"
    );
    let done = host.network.elsewhere().args(["sh", "-c", &forges]).output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    for port in (9000..9024).chain([PORT]) {
        assert!(host.network.connect(forged, port).unwrap().is_none(), "it hears no answer");
    }
    let named = |finding: &davy_model::Finding| finding.summary.contains(forged);
    host.agent()
        .wait_for("it is told", PATIENCE, |agent| Ok(agent.findings()?.into_iter().find(named)))
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((host.bans().len(), host.journal().len()), (0, 0), "{:?}", host.journal());
    // The same by somebody who hears the answers is a ban, so that it was the proof that was missing.
    scan(&host.network, Network::FAR);
    host.wait_for("who is proven is banned", || host.bans().len() == 1);
    assert_eq!(host.bans()[0].who.to_string(), Network::FAR);
}
