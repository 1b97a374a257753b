//! An agent in a network of its own that says who reaches which port, and closes ports to those who may not.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use davy_model::{Action, ActionRecord, ActionState, EventKind, InboundRefusal, Mode, Place};
use davy_test_e2e::{Administrator, Agent, Network, davy, needs, root_or_skip};
use davy_wire::{Command as Order, ListeningPort, OpenTo, PortsState, PortsView, Query, Reply, RequestBody};

const PATIENCE: Duration = Duration::from_secs(30);

/// One test at a time: each agent sees the whole host.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens 8022 to the near address and 8080 to everybody.
fn policy(mode: &str) -> String {
    format!(
        "[inbound]\nmode = \"{mode}\"\n[[inbound.group]]\nname = \"office\"\nnetworks = [\"10.78.0.0/24\"]\n\
         [[inbound.allow]]\nport = 8022\nfrom = [\"office\"]\nreason = \"administration\"\n\
         [[inbound.allow]]\nport = 8080\nfrom = [\"anyone\"]\nreason = \"the shop\"\n"
    )
}

/// A host with an agent, and listeners of the test's own.
struct Host {
    agent: Option<Agent>,
    network: Network,
    _listeners: Vec<TcpListener>,
    folder: tempfile::TempDir,
}

impl Host {
    fn start(policy: &str, flags: &[&str]) -> Self {
        let network = Network::make().unwrap();
        let listeners = [("0.0.0.0", 8022), ("0.0.0.0", 8080), ("0.0.0.0", 5432), ("127.0.0.1", 3306)]
            .map(|(a, p)| network.listen(a, p).unwrap());
        let folder = tempfile::Builder::new().prefix("davy-ports-").tempdir().unwrap();
        let mut host = Self { agent: None, network, _listeners: listeners.into_iter().collect(), folder };
        host.again(policy, flags);
        host
    }

    /// Starts an agent in the host's network, with a BPF file system of its own, so that nothing it pins is on the machine's.
    fn again(&mut self, policy: &str, flags: &[&str]) {
        let command = self.network.agent(&Administrator::stage(self.folder.path()).unwrap());
        self.agent = Some(Agent::start_in(self.folder.path(), policy, command, flags).unwrap());
        // It answers before it has looked at all that is there; the busiest trees are known after that.
        self.agent().ask(RequestBody::Query(Query::Top)).unwrap();
        let own = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        assert_ne!(
            own(self.agent().pid()),
            own(std::process::id()),
            "the agent must not be in the machine's network"
        );
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    fn order(&self, order: Order) -> Result<String, String> {
        match self.agent().ask(RequestBody::Command(order)) {
            Ok(replies) => match replies.into_iter().next_back() {
                Some(Reply::Done(sentence)) => Ok(sentence),
                other => panic!("not a sentence: {other:?}"),
            },
            Err(error) => Err(error.to_string()),
        }
    }

    fn apply(&self, seconds: u32) -> Result<String, String> {
        self.order(Order::PortsApply { seconds, unused: false, anyway: false })
    }

    fn view(&self) -> PortsView {
        match self.agent().ask(RequestBody::Query(Query::Ports)).unwrap().pop() {
            Some(Reply::Ports(view)) => view,
            other => panic!("not the ports: {other:?}"),
        }
    }

    fn port(&self, port: u16) -> ListeningPort {
        let view = self.view();
        let found = view.ports.iter().find(|p| p.port == port && !p.apart).cloned();
        found.unwrap_or_else(|| panic!("{port} is not in {view:?}"))
    }

    /// Both ends of a connection to 5432.
    fn living(&self, from: &str) -> (TcpStream, TcpStream) {
        let theirs = self.network.connect(from, 5432).unwrap().expect("it is open yet");
        let own = theirs.local_addr().unwrap();
        loop {
            let (ours, from) = self._listeners[2].accept().unwrap();
            if from == own {
                return (theirs, ours);
            }
        }
    }

    /// Who may reach 8022: the near address, and the far one.
    fn reaches(&self) -> (bool, bool) {
        (
            self.network.reaches(Network::NEAR, 8022).unwrap(),
            self.network.reaches(Network::FAR, 8022).unwrap(),
        )
    }

    fn wait_until_open(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while self.reaches() != (true, true) {
            assert!(Instant::now() < end, "it is still closed after {limit:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn told(&self) -> Vec<InboundRefusal> {
        let kinds = vec!["inbound".to_owned()];
        let query = Query::Events { since: None, limit: 1000, pid: None, kinds, follow: false };
        let replies = self.agent().ask(RequestBody::Query(query)).unwrap();
        let refusal = |reply: Reply| match reply {
            Reply::Event(event) => match event.kind {
                EventKind::Inbound(refusal) => Some(refusal),
                _ => None,
            },
            _ => None,
        };
        replies.into_iter().filter_map(refusal).collect()
    }

    fn journal(&self) -> Vec<ActionRecord> {
        let replies = self.agent().ask(RequestBody::Query(Query::Actions { limit: 100 })).unwrap();
        let records =
            replies.into_iter().filter_map(|r| if let Reply::Action(a) = r { Some(a) } else { None });
        records.filter(|record| matches!(record.action, Action::ClosePorts { .. })).collect()
    }

    fn states(&self) -> Vec<ActionState> {
        self.journal().iter().map(|record| record.state).collect()
    }
}

/// Something is said and answered over a connection.
fn goes_on((theirs, ours): &mut (TcpStream, TcpStream)) {
    let say = |from: &mut TcpStream, to: &mut TcpStream| {
        for end in [&*from, &*to] {
            end.set_nonblocking(false).unwrap();
            end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        from.write_all(b"still there?").unwrap();
        let mut heard = [0; 12];
        to.read_exact(&mut heard).expect("a connection that was there goes on");
        assert_eq!(&heard, b"still there?");
    };
    say(theirs, ours);
    say(ours, theirs);
}

#[test]
fn observed_ports_are_shown_with_owner_and_users_and_what_would_be_refused_is_told() {
    if !root_or_skip() || !needs(&["ip", "nft"]) {
        return;
    }
    let _alone = alone();
    let host = Host::start(&policy("observe"), &[]);
    let _held: Vec<_> =
        [(Network::NEAR, 8022), (Network::FAR, 8022), (Network::FAR, 8080), (Network::FAR, 5432)]
            .map(|(from, port)| host.network.connect(from, port).unwrap().expect("observing closes nothing"))
            .into_iter()
            .collect();
    for listener in &host._listeners[..3] {
        listener.set_nonblocking(true).unwrap();
        while listener.accept().is_ok() {}
    }
    let used = host
        .agent()
        .wait_for("both sources are counted", PATIENCE, |_| {
            let port = host.port(8022);
            Ok((port.connections == 2 && port.sources == 2).then_some(port))
        })
        .unwrap();
    assert_eq!((used.inside, used.outside, used.not_covered), (1, 1, 1), "{used:?}");
    assert_eq!(used.open_to, OpenTo::Some(vec!["office".to_owned()]));
    let [owner] = &used.owners[..] else { panic!("one listens: {used:?}") };
    assert_eq!(
        (owner.pid, used.reach, owner.user.as_str()),
        (Some(std::process::id()), Place::Outside, "root")
    );
    assert!(owner.program.contains("ports-"), "the test's own program: {}", owner.program);
    assert!(
        used.latest
            .iter()
            .any(|source| source.from.to_string() == Network::FAR && source.place == Place::Outside)
    );
    assert_eq!(host.port(5432).open_to, OpenTo::Nobody);
    assert_eq!((host.port(3306).open_to, host.port(3306).reach), (OpenTo::Exempt, Place::Host));
    let told = host
        .agent()
        .wait_for("two are told", PATIENCE, |_| Ok(Some(host.told()).filter(|told| told.len() >= 2)))
        .unwrap();
    let mut told: Vec<_> = told.iter().map(|r| (r.port, r.from.to_string(), r.refused)).collect();
    told.sort();
    assert_eq!(told, [(5432, Network::FAR.to_owned(), false), (8022, Network::FAR.to_owned(), false)]);

    let view = host.view();
    assert_eq!((view.mode, view.state, view.entries), (Mode::Observe, PortsState::Open, 2));
    let shown = Command::new(davy()).arg("--base-dir").arg(host.folder.path()).arg("ports").output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout);
    for part in
        ["tcp 8022", "office", "nobody", "this host alone", "2 from 1 inside, 1 outside, 1 not allowed"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let why = host.apply(60).unwrap_err();
    assert!(why.contains("mode is observe"), "{why}");
    let status = host.agent().status().unwrap();
    let inbound = status.protections.iter().find(|p| p.name == "inbound").unwrap();
    assert_eq!(inbound.mode, Mode::Observe);
}

#[test]
fn a_trial_closes_and_undoes_itself_with_or_without_the_agent() {
    if !root_or_skip() || !needs(&["ip", "nft"]) {
        return;
    }
    let _alone = alone();
    let mut host = Host::start(&policy("enforce"), &[]);
    assert_eq!(host.reaches(), (true, true), "nothing is closed before it is applied");
    let mut living = host.living(Network::FAR);
    for seconds in [0, 4, 3601] {
        assert!(host.apply(seconds).unwrap_err().contains("5 to 3600"), "{seconds}");
    }
    host.apply(5).unwrap();
    assert_eq!(host.reaches(), (true, false));
    assert!(
        host.network.reaches(Network::FAR, 8080).unwrap()
            && !host.network.reaches(Network::NEAR, 5432).unwrap()
    );
    goes_on(&mut living);
    assert_eq!(host.view().state, PortsState::Trial);
    assert_eq!(host.states(), [ActionState::Done]);
    host.wait_until_open(Duration::from_secs(12));
    host.agent()
        .wait_for("the journal says so", PATIENCE, |_| {
            Ok((host.states() == [ActionState::Expired]).then_some(()))
        })
        .unwrap();
    assert!(host.order(Order::PortsConfirm).unwrap_err().contains("nothing waits"));

    // The agent is killed in the middle of a trial, and nobody lives to undo it.
    host.apply(5).unwrap();
    assert_eq!(host.reaches(), (true, false));
    let refused = host
        .agent()
        .wait_for("who was refused is told", PATIENCE, |_| {
            Ok(host.told().into_iter().find(|told| told.refused && told.port == 8022))
        })
        .unwrap();
    assert_eq!(refused.from.to_string(), Network::FAR);
    host.agent().signal(rustix::process::Signal::KILL);
    host.agent.take().unwrap().wait_end(Duration::from_secs(5)).unwrap();
    host.wait_until_open(Duration::from_secs(8));
    host.again("", &[]);
    assert_eq!(host.view().state, PortsState::Open);
    assert_eq!(host.states(), [ActionState::Expired, ActionState::Expired]);
}

#[test]
fn what_is_confirmed_stays_until_it_is_opened() {
    if !root_or_skip() || !needs(&["ip", "nft"]) {
        return;
    }
    let _alone = alone();
    let mut host = Host::start(&policy("enforce"), &["--pin"]);
    host.apply(60).unwrap();
    host.order(Order::PortsConfirm).unwrap();
    assert_eq!((host.view().state, host.reaches()), (PortsState::Closed, (true, false)));
    let status = host.agent().status().unwrap();
    assert_eq!(status.protections.iter().find(|p| p.name == "inbound").unwrap().mode, Mode::Enforce);

    // A restart leaves no gap.
    host.agent().signal(rustix::process::Signal::TERM);
    host.agent.take().unwrap().wait_end(PATIENCE).unwrap();
    assert_eq!(host.reaches(), (true, false), "pinned enforcement outlives the agent");
    host.again("", &["--pin"]);
    assert_eq!((host.view().state, host.reaches()), (PortsState::Closed, (true, false)));

    // Somebody reloads another firewall.
    let flushed = host.network.command().args(["nft", "flush", "ruleset"]).status().unwrap();
    assert!(flushed.success());
    assert_eq!(host.reaches(), (true, true));
    host.agent()
        .wait_for("it is put back", PATIENCE, |_| Ok((host.reaches() == (true, false)).then_some(())))
        .unwrap();
    assert!(
        host.view().faults.iter().any(|fault| fault.contains("flush ruleset")),
        "{:?}",
        host.view().faults
    );

    // Break-glass.
    host.order(Order::Disarm { seconds: 600 }).unwrap();
    host.wait_until_open(Duration::from_secs(5));
    assert_eq!(host.view().state, PortsState::Suspended);
    host.order(Order::Arm).unwrap();
    host.agent()
        .wait_for("armed again", PATIENCE, |_| Ok((host.reaches() == (true, false)).then_some(())))
        .unwrap();

    // A trial of another policy that is not confirmed gives way to this one.
    let wider = policy("enforce").replace("10.78.0.0/24", "10.78.0.0/24\", \"203.0.113.0/24");
    std::fs::write(host.folder.path().join("etc/davy.toml"), wider).unwrap();
    host.order(Order::Reload).unwrap();
    assert!(
        host.view().outdated && host.reaches() == (true, false),
        "a policy that is written is not yet one that holds"
    );
    host.apply(5).unwrap();
    assert_eq!(host.reaches(), (true, true));
    std::thread::sleep(Duration::from_millis(6500));
    assert_eq!(host.reaches(), (true, false));

    // One that is undone gives way to it as well.
    let line = host.journal().into_iter().find(|record| record.state == ActionState::Done).unwrap();
    host.apply(600).unwrap();
    assert_eq!(host.reaches(), (true, true));
    let on_trial = host.journal().into_iter().max_by_key(|record| record.id).unwrap();
    let said = host.order(Order::UndoAction { id: on_trial.id }).unwrap();
    assert!(said.contains(&format!("action {} closed is closed again", line.id.0)), "{said}");
    assert_eq!((host.reaches(), host.view().state), ((true, false), PortsState::Closed));
    assert!(host.order(Order::PortsConfirm).unwrap_err().contains("nothing waits"));

    host.order(Order::UndoAction { id: line.id }).unwrap();
    assert_eq!((host.reaches(), host.view().state), ((true, true), PortsState::Open));
    assert!(host.states().iter().all(|state| *state != ActionState::Done), "{:?}", host.states());

    host.apply(60).unwrap();
    host.order(Order::PortsConfirm).unwrap();
    host.order(Order::PortsOpen).unwrap();
    assert_eq!(host.reaches(), (true, true));
    host.apply(60).unwrap();
    host.order(Order::PortsConfirm).unwrap();
    host.order(Order::Stop).unwrap();
    host.agent.take().unwrap().wait_end(PATIENCE).unwrap();
    let listed = host.network.command().args(["nft", "list", "ruleset"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "", "an order to stop leaves nothing behind");
}

#[test]
fn without_the_pin_nothing_outlives_the_agent() {
    if !root_or_skip() || !needs(&["ip", "nft"]) {
        return;
    }
    let _alone = alone();
    let mut host = Host::start(&policy("enforce"), &[]);
    host.apply(60).unwrap();
    host.order(Order::PortsConfirm).unwrap();
    assert_eq!(host.reaches(), (true, false));
    host.agent().signal(rustix::process::Signal::INT);
    host.agent.take().unwrap().wait_end(PATIENCE).unwrap();
    assert_eq!(host.reaches(), (true, true));
    host.again("", &[]);
    host.agent()
        .wait_for("it holds again", PATIENCE, |_| Ok((host.reaches() == (true, false)).then_some(())))
        .unwrap();
}

#[test]
fn what_opens_nothing_is_refused_before_anything_is_closed() {
    if !root_or_skip() || !needs(&["ip", "nft"]) {
        return;
    }
    let _alone = alone();
    let text = format!(
        "{}[[inbound.allow]]\nport = 9999\nfrom = [\"office\"]\nreason = \"nobody is there\"\n\
         [[inbound.allow]]\nservice = \"gone.service\"\nfrom = [\"office\"]\nreason = \"nor there\"\n",
        policy("enforce")
    );
    let host = Host::start(&text, &[]);
    let why = host.apply(60).unwrap_err();
    assert!(
        why.contains("nobody listens on TCP port 9999") && why.contains("gone.service listens on no port"),
        "{why}"
    );
    assert_eq!((host.reaches(), host.states()), ((true, true), vec![]));
    assert!(host.view().faults.len() == 2);
    host.order(Order::PortsApply { seconds: 60, unused: true, anyway: false }).unwrap();
    assert_eq!(host.reaches(), (true, false));
    host.order(Order::PortsOpen).unwrap();

    std::fs::write(host.folder.path().join("etc/none.txt"), "# none yet\n").unwrap();
    let empty = policy("enforce").replace("networks = [\"10.78.0.0/24\"]", "files = [\"none.txt\"]");
    std::fs::write(host.folder.path().join("etc/davy.toml"), empty).unwrap();
    host.order(Order::Reload).unwrap();
    let why = host.apply(60).unwrap_err();
    assert!(why.contains("none.txt is empty") && why.contains("davy.toml:3"), "{why}");
    let checked = Command::new(davy())
        .arg("--base-dir")
        .arg(host.folder.path())
        .args(["policy", "check"])
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("none.txt is empty"));
    assert_eq!(host.reaches(), (true, true));
}

#[test]
fn an_administrator_who_could_not_come_back_is_named_before_anything_is_closed() {
    if !root_or_skip() || !needs(&["ip", "nft"]) {
        return;
    }
    let _alone = alone();
    let host = Host::start(&policy("enforce"), &[]);
    let session = Administrator::log_in(host.agent().pid(), Network::FAR, 8022).unwrap();
    let why = host.apply(60).unwrap_err();
    assert!(
        why.contains(&format!("from {} at TCP port 8022", Network::FAR)) && why.contains("--anyway"),
        "{why}"
    );
    assert_eq!((host.reaches(), host.states()), ((true, true), vec![]));
    host.order(Order::PortsApply { seconds: 60, unused: false, anyway: true }).unwrap();
    assert_eq!(host.reaches(), (true, true), "while the session lasts, its address is let in");
    assert_eq!(host.view().administrators, [Network::FAR.parse::<std::net::IpAddr>().unwrap()]);
    drop(session);
    host.agent()
        .wait_for("nobody is spared any more", PATIENCE, |_| {
            Ok((host.reaches() == (true, false)).then_some(()))
        })
        .unwrap();
    host.order(Order::PortsOpen).unwrap();
    let _inside = Administrator::log_in(host.agent().pid(), Network::NEAR, 8022).unwrap();
    host.apply(60).unwrap();
}

/// As a package is removed: the service is stopped, or was long ago, and then `davy stop` is said.
#[test]
fn an_order_to_stop_opens_what_an_agent_that_is_gone_left_closed() {
    if !root_or_skip() || !needs(&["ip", "nft"]) {
        return;
    }
    let _alone = alone();
    let mut host = Host::start(&policy("enforce"), &["--pin"]);
    host.apply(60).unwrap();
    host.order(Order::PortsConfirm).unwrap();
    host.agent().signal(rustix::process::Signal::TERM);
    host.agent.take().unwrap().wait_end(PATIENCE).unwrap();
    assert_eq!(host.reaches(), (true, false), "the unit's stop may be a restart");
    let stop = || {
        let mut command = host.network.command();
        command.arg(davy()).arg("--base-dir").arg(host.folder.path()).arg("stop").output().unwrap()
    };
    let said = stop();
    assert!(
        said.status.success() && String::from_utf8_lossy(&said.stdout).contains("closed ports"),
        "{said:?}"
    );
    assert_eq!(host.reaches(), (true, true));
    assert_eq!(stop().status.code(), Some(3), "nothing is left, and no agent runs");
    host.again("", &["--pin"]);
    host.agent()
        .wait_for("what was confirmed holds again", PATIENCE, |_| {
            Ok((host.reaches() == (true, false)).then_some(()))
        })
        .unwrap();
}

#[test]
fn while_nobody_asks_for_it_it_costs_next_to_nothing() {
    if !root_or_skip() || !needs(&["ip"]) {
        return;
    }
    let _alone = alone();
    let host = Host::start("", &[]);
    let tasks = format!("/proc/{}/task", host.agent().pid());
    let named = |task: &std::path::Path| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "davy-inbound")
    };
    let task = std::fs::read_dir(tasks).unwrap().flatten().map(|entry| entry.path()).find(|task| named(task));
    let task = task.expect("the thread runs");
    let woken = || {
        let status = std::fs::read_to_string(task.join("status")).unwrap();
        let of = |line: &str| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok();
        status.lines().find_map(of).unwrap()
    };
    let before = woken();
    std::thread::sleep(Duration::from_secs(11));
    let times = woken() - before;
    assert!(times <= 6, "it woke {times} times in eleven seconds");
}
