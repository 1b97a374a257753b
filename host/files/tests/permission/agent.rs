//! An agent in a process of its own, to be stopped, traced and killed by the tests.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use davy_files::permission::{Ask, GateConfig, Marked, PermissionGate};

use crate::ground::{by_content, keeper};

/// `agent FOLDER`: judges what is in the folder's mount by content; questions about files whose name begins with "hang"
/// are told and never answered. Ends with its input, or after two minutes.
pub(crate) fn main() -> ExitCode {
    let folder = PathBuf::from(std::env::args().nth(2).unwrap());
    let judge = |ask: &Ask| {
        let name = ask.path.rsplit('/').next().unwrap();
        if name.starts_with("hang") {
            say(&format!("asked {name}"));
            std::thread::sleep(Duration::from_secs(3600));
        }
        by_content(ask)
    };
    let gate = PermissionGate::start(GateConfig::new(keeper, judge), vec![Marked::Mount(folder)]).unwrap();
    say(&format!("keeper {}", gate.keeper().unwrap()));
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(120));
        std::process::exit(1);
    });
    for line in std::io::stdin().lines() {
        if line.unwrap() == "counts" {
            let counts = gate.counts();
            say(&format!("counts {} {} {}", counts.late, counts.absent, counts.restarts));
        }
    }
    ExitCode::SUCCESS
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{what}");
    let _ = out.flush();
}

pub(crate) struct Agent {
    pub(crate) child: Child,
    said: BufReader<ChildStdout>,
    pub(crate) keeper: u32,
}

impl Agent {
    pub(crate) fn start(folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("agent")
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut agent = Self { child, said, keeper: 0 };
        agent.keeper = agent.hear("keeper ").parse().unwrap();
        agent
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Waits for a line that begins so, and gives the rest.
    pub(crate) fn hear(&mut self, begin: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "the agent has ended");
            if let Some(rest) = line.strip_prefix(begin) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Late and absent decisions, and restarts of the keeper.
    pub(crate) fn counts(&mut self) -> [u64; 3] {
        writeln!(self.child.stdin.as_mut().unwrap(), "counts").unwrap();
        let said = self.hear("counts ");
        let mut counts = said.split(' ').map(|word| word.parse().unwrap());
        [(); 3].map(|()| counts.next().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that the test started.
pub(crate) fn signal(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}
