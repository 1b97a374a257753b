use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use davy_model::{Finding, ProcessInfo, Timestamp};
use davy_wire::{AgentStatus, BusyTree, Query, Reply, Request, RequestBody, VERSION};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::scope::Held;

/// How long an agent may take to open its sockets; it probes the kernel first.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(10);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A finding and when the exam heard of it.
pub(crate) struct Told {
    pub(crate) at: SystemTime,
    pub(crate) finding: Finding,
}

/// An agent in observe mode with folders of its own.
pub(crate) struct Agent {
    process: Held,
    base: TempDir,
    following: UnixStream,
    pub(crate) findings: Receiver<Told>,
    gaps: Arc<AtomicU64>,
}

impl Agent {
    pub(crate) fn start(davy: &Path) -> Result<Self> {
        let base = tempfile::Builder::new().prefix("davy-exam-").tempdir()?;
        let log = File::create(base.path().join("agent.log"))?;
        // An exam that is killed takes its agent with it.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(davy)
            .args(["agent", "--base-dir"])
            .arg(base.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", davy.display()))?;
        let mut process = Held(child);
        let socket = base.path().join("run/read.sock");
        let deadline = Instant::now() + START;
        while UnixStream::connect(&socket).is_err() {
            let ended = process.0.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(base.path().join("agent.log")).unwrap_or_default();
                bail!("the agent did not open {} ({ended:?}); it said:\n{log}", socket.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        let gaps = Arc::new(AtomicU64::new(0));
        let (following, findings) = follow(&socket, Arc::clone(&gaps))?;
        Ok(Self { process, base, following, findings, gaps })
    }

    pub(crate) fn status(&self) -> Result<AgentStatus> {
        match ask(&self.socket(), Query::Status)? {
            Reply::Status(status) => Ok(status),
            other => bail!("{other:?} instead of a status"),
        }
    }

    /// Findings made or renewed since then, asked for anew, because the agent drops what it tells live when more
    /// happens than it can send.
    pub(crate) fn findings_since(&self, since: Timestamp) -> Result<Vec<Finding>> {
        let query = Query::Findings { since: Some(since), limit: 1000, follow: false };
        let mut findings = Vec::new();
        let stream = send(&self.socket(), query)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        for line in BufReader::new(stream).lines() {
            match serde_json::from_str(&line?)? {
                Reply::Finding(finding) => findings.push(finding),
                Reply::End => break,
                other => bail!("{other:?} instead of findings"),
            }
        }
        Ok(findings)
    }

    /// The busiest process trees with the evidence about each, whether or not it amounts to a finding.
    pub(crate) fn top(&self) -> Vec<BusyTree> {
        match ask(&self.socket(), Query::Top) {
            Ok(Reply::Top(view)) => view.trees,
            _ => Vec::new(),
        }
    }

    /// How often it said that it dropped something it should have told live.
    pub(crate) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    /// What the agent knows of a pid; `None` when it knows nothing.
    pub(crate) fn process(&self, pid: u32) -> Option<ProcessInfo> {
        match ask(&self.socket(), Query::Process { pid }).ok()? {
            Reply::Process(info) => Some(info),
            _ => None,
        }
    }

    fn socket(&self) -> PathBuf {
        self.base.path().join("run/read.sock")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Asked to end, so that it takes its programs out of the kernel; killed by `Held` if it does not.
        drop(self.following.shutdown(Shutdown::Both));
        if let Some(pid) = Pid::from_raw(self.process.0.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline && matches!(self.process.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn send(socket: &Path, query: Query) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = Request { version: VERSION, body: RequestBody::Query(query) };
    let mut line = serde_json::to_string(&request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    Ok(stream)
}

fn ask(socket: &Path, query: Query) -> Result<Reply> {
    let stream = send(socket, query)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn follow(socket: &Path, gaps: Arc<AtomicU64>) -> Result<(UnixStream, Receiver<Told>)> {
    let stream = send(socket, Query::Findings { since: None, limit: 1000, follow: true })?;
    let lines = BufReader::new(stream.try_clone()?).lines();
    let (sender, findings) = channel();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let at = SystemTime::now();
            match serde_json::from_str(&line) {
                Ok(Reply::Finding(finding)) => {
                    if sender.send(Told { at, finding }).is_err() {
                        return;
                    }
                }
                Ok(Reply::End) => {}
                Ok(Reply::Error { .. }) => {
                    gaps.fetch_add(1, Ordering::Relaxed);
                }
                Ok(other) => eprintln!("the agent sent {other:?} among its findings"),
                Err(reason) => eprintln!("the agent sent no reply of the protocol: {reason}"),
            }
        }
    });
    Ok((stream, findings))
}
