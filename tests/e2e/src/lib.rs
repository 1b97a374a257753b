//! Real agents for end-to-end tests: started from the binary that was built, in a folder of their own, and gone when
//! the test is, whether it passed or not.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use davy_wire::{AgentStatus, Query, Reply, Request, RequestBody, VERSION};

mod acts;
mod administrator;
mod apart;
mod bypasses;
mod network;
mod scope;
mod two_hosts;

pub use acts::{freezes, kills, puts_away};
pub use administrator::Administrator;
pub use bypasses::assert_published;
pub use network::Network;
pub use scope::{Scope, cgroup2};
pub use two_hosts::TwoHosts;

/// The `davy` binary under test: `DAVY_BIN`, or what cargo built beside the test.
///
/// # Panics
/// When there is none; the message says how to build it.
#[must_use]
pub fn davy() -> PathBuf {
    if let Some(path) = std::env::var_os("DAVY_BIN") {
        return path.into();
    }
    built("davy", "davy-cli")
}

/// The miner of the tests.
///
/// # Panics
/// As [`davy`].
#[must_use]
pub fn miner() -> PathBuf {
    built("davy-test-miner", "davy-test-miner")
}

/// A program that cargo built beside the test.
fn built(name: &str, package: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.ancestors().nth(2).expect("a test lies in target/TRIPLE/PROFILE/deps");
    let path = profile.join(name);
    assert!(path.exists(), "{} is missing: build it with `cargo build -p {package}`", path.display());
    path
}

/// Whether the test runs as root; says so loudly when not.
#[must_use]
pub fn root_or_skip() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED: this test needs root");
    }
    root
}

/// Whether the programs that a test runs are installed; says loudly which is not.
#[must_use]
pub fn needs(programs: &[&str]) -> bool {
    let missing = |program: &&&str| {
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path)
                .chain([PathBuf::from("/usr/sbin")])
                .any(|dir| dir.join(program).exists())
        });
        !found
    };
    let missing = programs.iter().find(missing);
    if let Some(program) = missing {
        println!("SKIPPED: {program} is not installed");
    }
    missing.is_none()
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    base: PathBuf,
    /// Where its sockets are.
    run: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl Agent {
    /// Starts `davy agent` in a folder of its own with this policy, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start or does not answer within 30 s.
    pub fn start(policy: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir()?;
        let base = folder.path().to_owned();
        let mut agent = Self::start_in(&base, policy, Command::new(davy()), &[])?;
        agent._folder = Some(folder);
        Ok(agent)
    }

    /// Starts an agent in `base` by `command`, to which `--base-dir BASE agent` and the flags are added.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_in(base: &Path, policy: &str, mut command: Command, flags: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(base.join("etc"))?;
        if !policy.is_empty() {
            std::fs::write(base.join("etc/davy.toml"), policy)?;
        }
        command.arg("--base-dir").arg(base).arg("agent").args(flags);
        Self::wait_for_answer(command, base, |_| base.join("run"))
    }

    /// Starts an agent as an installed one is, with the system's own folders, by a command that ends in the `davy` of a
    /// mount namespace that the test made. Its log goes to `folder`.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_installed(folder: &Path, mut command: Command) -> Result<Self> {
        command.arg("agent");
        Self::wait_for_answer(command, folder, |pid| format!("/proc/{pid}/root/run/davy").into())
    }

    fn wait_for_answer(mut command: Command, base: &Path, run: impl FnOnce(u32) -> PathBuf) -> Result<Self> {
        let log = std::fs::File::options().create(true).append(true).open(base.join("log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the agent did not start")?;
        let run = run(child.id());
        let mut agent = Self { child, base: base.to_owned(), run, _folder: None };
        let limit = Instant::now() + Duration::from_secs(30);
        while agent.status().is_err() {
            if let Some(status) = agent.child.try_wait()? {
                bail!("the agent ended with {status}: {}", agent.log());
            }
            if Instant::now() > limit {
                bail!("the agent does not answer: {}", agent.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(agent)
    }

    /// The agent's pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its folder.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// What it printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.base.join("log")).unwrap_or_default()
    }

    /// Asks and returns every reply up to the end.
    ///
    /// # Errors
    /// When the agent does not answer within 20 s or refuses.
    pub fn ask(&self, body: RequestBody) -> Result<Vec<Reply>> {
        let socket = match body {
            RequestBody::Query(_) => "read.sock",
            RequestBody::Command(_) => "control.sock",
        };
        let mut stream = UnixStream::connect(self.run.join(socket))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut line = serde_json::to_vec(&Request { version: VERSION, body })?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut replies = Vec::new();
        for line in BufReader::new(stream).lines() {
            match serde_json::from_str(&line?)? {
                Reply::End => return Ok(replies),
                Reply::Error { code, message } => bail!("{code:?}: {message}"),
                reply => replies.push(reply),
            }
        }
        bail!("the agent hung up in the middle of an answer")
    }

    /// Its state.
    ///
    /// # Errors
    /// As [`Agent::ask`].
    pub fn status(&self) -> Result<AgentStatus> {
        match self.ask(RequestBody::Query(Query::Status))?.pop() {
            Some(Reply::Status(status)) => Ok(status),
            other => bail!("not a status: {other:?}"),
        }
    }

    /// Its findings so far.
    ///
    /// # Errors
    /// As [`Agent::ask`].
    pub fn findings(&self) -> Result<Vec<davy_model::Finding>> {
        let query = Query::Findings { since: None, limit: 1000, follow: false };
        let replies = self.ask(RequestBody::Query(query))?;
        Ok(replies
            .into_iter()
            .filter_map(|r| if let Reply::Finding(f) = r { Some(f) } else { None })
            .collect())
    }

    /// Its incidents so far, whole.
    ///
    /// # Errors
    /// As [`Agent::ask`].
    pub fn incidents(&self) -> Result<Vec<davy_model::Incident>> {
        let replies = self.ask(RequestBody::Query(Query::Incidents { since: None, limit: 1000 }))?;
        let mut whole = Vec::new();
        for reply in replies {
            if let Reply::Incident(short) = reply
                && let Some(Reply::Incident(incident)) =
                    self.ask(RequestBody::Query(Query::Incident { id: short.id }))?.pop()
            {
                whole.push(incident);
            }
        }
        Ok(whole)
    }

    /// Waits until the look gives something, asking five times a second.
    ///
    /// # Errors
    /// When it gives nothing within the limit; the message holds the agent's log.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if Instant::now() > end {
                bail!("{what}: not within {limit:?}; the agent says: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Sends the agent a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Waits for the agent's end.
    ///
    /// # Errors
    /// When it has not ended within the limit.
    pub fn wait_end(&mut self, limit: Duration) -> Result<std::process::ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("the agent has not ended within {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        if self.wait_end(Duration::from_secs(10)).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
