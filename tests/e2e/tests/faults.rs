//! What goes wrong on real hosts: a flood of processes, a fork bomb, a full disk, a kernel that tells little of itself, hostile
//! clients. Protection goes on, and losses are counted.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use davy_model::{Capability, Tier};
use davy_test_e2e::{Agent, Scope, davy, miner, root_or_skip};
use davy_wire::{AgentStatus, BusyTree, Query, Reply, RequestBody};

/// What makes the whole machine busy is tried one after the other, for else one test's load is the other's fault.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mine(scope: &Scope) -> Child {
    let mut command = Command::new(miner());
    command.args(["--algo", "randomx", "--mode", "light", "--threads", "1", "--no-pool", "--for", "90"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    scope.spawn(&mut command).unwrap()
}

/// The tree in `davy top` that is this process and is thought to mine. It comes from the engine itself, not the store.
fn mining_tree(agent: &Agent, pid: u32) -> Option<BusyTree> {
    let reply = agent.ask(RequestBody::Query(Query::Top)).unwrap().pop();
    let Some(Reply::Top(view)) = reply else { panic!("not a view: {reply:?}") };
    view.trees.into_iter().find(|t| t.root.pid == pid && t.confidence >= 0.95)
}

/// What was told of processes, and what was lost of it and counted.
fn told_or_lost(status: &AgentStatus) -> u64 {
    status.events + status.drops.iter().map(|drop| drop.count).sum::<u64>()
}

/// What `davy` answers about this agent.
fn said(agent: &Agent, arguments: &[&str]) -> String {
    let mut command = Command::new(davy());
    let answer = command.arg("--base-dir").arg(agent.base()).args(arguments).output().unwrap();
    String::from_utf8(answer.stdout).unwrap()
}

/// Fifty thousand processes that end at once, one after the other, and how many there were, also when time is up before.
const FLOOD: &str = "i=0; trap 'echo $i >\"$0\"; exit' TERM; while [ $i -lt 50000 ]; do (exit 0); i=$((i+1)); done; \
                     echo $i >\"$0\"";

/// What begins a hundred thousand processes that live for no time within a minute (here it takes half of one) hides
/// nothing: the miner beside them is recognised, and each birth and each end was seen or counted as lost.
#[test]
fn a_flood_of_processes_hides_no_miner() {
    if !root_or_skip() {
        return;
    }
    let _turn = turn();
    let agent = Agent::start("").unwrap();
    let scope = Scope::make("flood").unwrap();
    let before = told_or_lost(&agent.status().unwrap());
    let counts = [1, 2].map(|n| agent.base().join(format!("flood-{n}")));
    // Two shells, fifty thousand each, and never longer than a minute.
    let floods = counts.each_ref().map(|count| {
        let mut flood = Command::new("timeout");
        scope.spawn(flood.args(["60", "sh", "-c", FLOOD]).arg(count)).unwrap()
    });
    let mut miner = mine(&scope);
    let tree = agent
        .wait_for("the miner is recognised in the flood", Duration::from_secs(60), |agent| {
            Ok(mining_tree(agent, miner.id()))
        })
        .unwrap();
    assert!(!tree.evidence.is_empty());
    miner.kill().unwrap();
    miner.wait().unwrap();
    for mut flood in floods {
        flood.wait().unwrap();
    }
    let made = counts.map(|count| std::fs::read_to_string(count).unwrap().trim().parse::<u64>().unwrap());
    let made: u64 = made.iter().sum();
    if made < 100_000 {
        println!("this machine makes no more than {made} processes in a minute");
    }
    let status = agent
        .wait_for("every birth and every end is told or counted", Duration::from_secs(30), |agent| {
            let status = agent.status()?;
            Ok((told_or_lost(&status) >= before + 2 * made).then_some(status))
        })
        .unwrap();
    assert!(status.resident < 200 << 20, "tables are bounded: {} bytes", status.resident);
}

/// How many processes a fork bomb is left at once, and how many if nothing but the limit of its user holds it.
const BOMB: (u32, &str) = (200, "--nproc=300:300");

/// Every process makes others without pause, and all but the first end after a few, so that there is always room for more. The
/// first is that of a namespace, and buries its orphans at once; the machine's may not keep up.
const FUSE: &str =
    "$SIG{CHLD} = 'IGNORE'; my $first = $$; while (1) { fork; exit if $$ != $first && rand() < 0.05 }";

/// How many processes and threads the machine has made since it was started.
fn ever_made() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    stat.lines().find_map(|line| line.strip_prefix("processes ")).unwrap().trim().parse().unwrap()
}

#[test]
fn a_fork_bomb_is_told_or_counted_and_the_agent_answers() {
    if !root_or_skip() {
        return;
    }
    let _turn = turn();
    let agent = Agent::start("").unwrap();
    let mut scope = Scope::make("bomb").unwrap();
    if !scope.hold_at_most(BOMB.0).unwrap() {
        println!("no pids controller here: the limit of its user bounds the bomb");
    }
    let (told, made) = (told_or_lost(&agent.status().unwrap()), ever_made());
    // A user that nothing else is. What ends the bomb after 40 s ends its whole group, whatever became of this test.
    let mut bomb = Command::new("timeout");
    bomb.args(["--signal", "KILL", "40", "unshare", "--pid", "--fork", "--kill-child", "prlimit", BOMB.1]);
    bomb.args(["setpriv", "--reuid=61234", "--regid=61234", "--clear-groups", "perl", "-e", FUSE]);
    let mut bomb = scope.spawn(&mut bomb).unwrap();
    agent
        .wait_for("the bomb goes off", Duration::from_secs(20), |_| {
            Ok((scope.pids().len() >= 50).then_some(()))
        })
        .unwrap();
    for _ in 0..20 {
        agent.status().unwrap();
        agent.ask(RequestBody::Query(Query::Top)).unwrap();
        std::thread::sleep(Duration::from_millis(250));
    }
    let most = scope.pids().len();
    drop(scope);
    bomb.wait().unwrap();
    assert!(most <= 310, "{most} processes: nothing held the bomb");
    let made = ever_made() - made;
    assert!(made > 2_000, "the bomb made {made} processes only");
    // Each of its processes is born and ends; of the threads that others make meanwhile nothing is told.
    let status = agent
        .wait_for("what the bomb made is told or counted", Duration::from_secs(30), |agent| {
            let status = agent.status()?;
            Ok((told_or_lost(&status) >= told + made).then_some(status))
        })
        .unwrap();
    println!("{made} processes, lost {:?}", status.drops);
    assert!(status.drops.iter().all(|drop| !drop.kind.is_empty()), "{:?}", status.drops);
    let lost = status.drops.iter().any(|drop| drop.count > 0);
    assert!(!lost || said(&agent, &["status", "--color", "never"]).contains("Lost "), "{:?}", status.drops);
    assert!(status.resident < 200 << 20, "tables are bounded: {} bytes", status.resident);
}

/// Starts the agent where nothing tells it the types of the kernel, as on one that was built without them.
const NO_TYPES: &str = "if [ -d /sys/kernel/btf ]; then mount -t tmpfs -o size=64k davy-e2e /sys/kernel/btf || exit; fi; \
                        exec \"$0\" \"$@\"";

#[test]
fn without_type_information_processes_are_polled_and_what_is_missing_is_said() {
    if !root_or_skip() {
        return;
    }
    let _turn = turn();
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", NO_TYPES]).arg(davy());
    let agent = Agent::start_in(folder.path(), "", command, &[]).unwrap();

    let status = agent.status().unwrap();
    assert!(status.probes.iter().any(|probe| probe.capability == Capability::Btf && !probe.works));
    let of = |name: &str| status.protections.iter().find(|p| p.name == name).unwrap();
    for name in ["mining", "trust", "services", "scan", "masquerade", "fileless", "campaign"] {
        assert_eq!(of(name).tier, Some(Tier::Poll), "{name}");
    }
    for name in ["mining", "masquerade", "fileless", "campaign", "tampering"] {
        let note = &of(name).note;
        assert!(note.contains("not higher: /sys/kernel/btf/vmlinux: "), "{name}: {note}");
    }
    assert_eq!(of("tampering").tier, None, "nothing tells of signals");
    assert_eq!(of("persistence").tier, Some(Tier::Permission), "fanotify needs no types");
    let told = said(&agent, &["status", "--color", "never"]);
    assert!(told.contains("CONFIG_DEBUG_INFO_BTF"), "what the kernel lacks: {told}");

    // Processes are recognised all the same, by what /proc shows of them; what cannot be is told apart.
    let played = ["detect/masquerade", "detect/deleted", "campaign", "detect/randomx", "tampering"];
    let results = said(&agent, &[&["drill", "--json"][..], &played].concat());
    let results: Vec<serde_json::Value> = serde_json::from_str(&results).unwrap();
    let mut lacking = 0;
    for result in &results {
        if ["detect/randomx", "tampering/signal"].map(Some).contains(&result["name"].as_str()) {
            assert_eq!(result["outcome"], "unsupported", "{result:#}");
            assert!(result["evidence"].as_str().unwrap().contains("/sys/kernel/btf"), "{result:#}");
            lacking += 1;
        } else {
            assert!(result["outcome"] == "held" && result["tier"] == "poll", "{result:#}");
        }
    }
    assert_eq!((results.len(), lacking), (5, 2), "{results:#?}");
    assert!(!Path::new(&format!("/proc/{}/root/sys/kernel/btf/vmlinux", agent.pid())).exists());
}

#[test]
fn a_full_disk_stops_the_record_and_not_the_protection() {
    if !root_or_skip() {
        return;
    }
    let _turn = turn();
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs -o size=80m davy-e2e \"$0/state\" && exec \"$@\""]);
    command.arg(folder.path()).arg(davy());
    let agent = Agent::start_in(folder.path(), "", command, &[]).unwrap();
    let inside = format!("/proc/{}/root{}/fill", agent.pid(), state.display());
    let mut fill = std::fs::File::create(inside).unwrap();
    let block = vec![0_u8; 1 << 20];
    while fill.write_all(&block).is_ok() {}
    drop(fill);

    let scope = Scope::make("full").unwrap();
    let mut miner = mine(&scope);
    agent
        .wait_for("the miner is recognised with a full disk", Duration::from_secs(60), |agent| {
            Ok(mining_tree(agent, miner.id()))
        })
        .unwrap();
    miner.kill().unwrap();
    miner.wait().unwrap();
    let status = agent
        .wait_for("the loss is counted", Duration::from_secs(30), |agent| {
            let status = agent.status()?;
            Ok((status.store.lost > 0 || status.store.failing.is_some()).then_some(status))
        })
        .unwrap();
    assert!(status.store.bytes <= 80 << 20);
}

#[test]
fn hostile_clients_are_told_and_left() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start("").unwrap();
    let say = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(agent.base().join("run/read.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    assert!(say(b"GET / HTTP/1.1\r\n\r\n").contains("malformed"));
    assert!(say(b"{\"version\":99,\"query\":{\"what\":\"status\"}}\n").contains("version"));
    assert!(say(b"{\"version\":1,\"command\":{\"what\":\"stop\"}}\n").contains("forbidden"));
    let deep = "[".repeat(50_000) + "\n";
    assert!(say(deep.as_bytes()).contains("malformed"));
    assert_eq!(say(&vec![b'x'; 1 << 20]), "", "an endless line is hung up on");
    let idle: Vec<_> =
        (0..80).map(|_| UnixStream::connect(agent.base().join("run/read.sock")).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(300));
    assert!(say(b"{\"version\":1,\"query\":{\"what\":\"status\"}}\n").contains("too many clients"));
    drop(idle);
    agent
        .wait_for("the places are free again", Duration::from_secs(5), |agent| Ok(agent.status().ok()))
        .unwrap();
}

#[test]
fn a_read_only_disk_is_said_with_the_way_out() {
    if !root_or_skip() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs -o ro davy-e2e \"$0\" && exec \"$@\""]);
    let said =
        command.arg(folder.path()).arg(davy()).arg("--base-dir").arg(folder.path()).arg("agent").output();
    let said = said.unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success());
    assert!(text.contains("Read-only") && text.contains("--base-dir"), "{text}");
}
