//! What is cut off stays cut off while the agent is away, and is opened by an order to stop.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use davy_model::{Action, ActionState};
use davy_test_e2e::{Agent, Scope, davy, miner, root_or_skip};
use davy_test_pool::{Algorithm, Pool, PoolConfig};
use davy_wire::{Command as Order, Query, Reply, RequestBody};
use rustix::process::Signal;

/// A mount namespace with a BPF file system of its own, kept open by a sleeping process.
struct Mounts(Child);

impl Mounts {
    fn make() -> Self {
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", "mount -t bpf davy-e2e /sys/fs/bpf && exec sleep 180"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(500));
        Self(child)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--mount").arg("--target").arg(self.0.id().to_string()).arg(davy());
        command
    }

    fn pins(&self) -> usize {
        fn count(dir: &Path) -> usize {
            let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
            entries.flatten().map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum()
        }
        // The kernel keeps files of its own beside Davy's folder.
        let root = format!("/proc/{}/root/sys/fs/bpf", self.0.id());
        let entries = std::fs::read_dir(root).unwrap().flatten();
        entries
            .filter(|e| e.file_name().to_string_lossy().starts_with("davy"))
            .map(|e| count(&e.path()))
            .sum()
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a process inside the scope reaches the port on loopback.
fn reaches(scope: &Scope, port: u16) -> bool {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{port}")]).stderr(Stdio::null());
    scope.spawn(&mut command).unwrap().wait().unwrap().success()
}

#[test]
fn a_cut_outlives_the_agent_and_ends_with_an_order_to_stop() {
    if !root_or_skip() {
        return;
    }
    let mounts = Mounts::make();
    let scope = Scope::make("pinned").unwrap();
    let policy = format!(
        "[scope]\ncgroups = [\"{}\"]\n[mining]\nmode = \"enforce\"\nactions = [\"cut\", \"kill\"]\n",
        scope.name()
    );
    let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
    let start = || Agent::start_in(folder.path(), &policy, mounts.command(), &["--pin"]).unwrap();
    let mut agent = start();
    let pool = Pool::start(PoolConfig::new(Algorithm::Scrypt)).unwrap();
    let port = pool.addr().port();
    assert!(reaches(&scope, port), "open before anything happens");
    let mut mine = Command::new(miner());
    mine.args(["--algo", "scrypt", "--for", "60", "--pool", &pool.addr().to_string()]);
    let mut child = scope.spawn(mine.stdout(Stdio::null()).stderr(Stdio::null())).unwrap();
    agent
        .wait_for("the pool is cut off", Duration::from_secs(40), |agent| {
            let actions = agent.ask(RequestBody::Query(Query::Actions { limit: 100 }))?;
            let cut = |reply: &Reply| {
                matches!(reply, Reply::Action(a) if a.state == ActionState::Done
                    && matches!(a.action, Action::Cut { destination, .. } if destination.port == port))
            };
            Ok(actions.iter().any(cut).then_some(()))
        })
        .unwrap();
    let _ = child.kill();
    child.wait().unwrap();
    assert!(!reaches(&scope, port), "cut off inside the scope");
    assert!(TcpStream::connect(pool.addr()).is_ok(), "and nowhere else");

    agent.signal(Signal::KILL);
    agent.wait_end(Duration::from_secs(10)).unwrap();
    assert!(mounts.pins() > 0);
    assert!(!reaches(&scope, port), "cut off while the agent is dead");
    let mut agent = start();
    assert!(!reaches(&scope, port), "and when it is back");
    assert!(TcpStream::connect(pool.addr()).is_ok(), "and still nowhere else");
    agent.signal(Signal::TERM);
    agent.wait_end(Duration::from_secs(15)).unwrap();
    assert!(!reaches(&scope, port), "and after a restart's signal");

    let mut agent = start();
    agent.ask(RequestBody::Command(Order::Stop)).unwrap();
    agent.wait_end(Duration::from_secs(15)).unwrap();
    assert!(reaches(&scope, port), "an order to stop opens it");
    assert_eq!(mounts.pins(), 0, "and leaves no pin");
}
