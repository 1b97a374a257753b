//! Talks to the agent over its two sockets: one request a line, and then its answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use davy_agent::Paths;
use davy_wire::{Command, ErrorCode, MAX_LINE, Query, Reply, Request, RequestBody, VERSION};

use crate::failure::{Exit, Failure};

/// How long an answer may take before the agent counts as stuck.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a change may take: undoing a quarantine writes files back.
const PATIENCE_FOR_CHANGES: Duration = Duration::from_secs(120);

/// Where an agent is reached.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    paths: Paths,
}

/// The answers to one request, as they come.
#[derive(Debug)]
pub(crate) struct Answers {
    lines: BufReader<UnixStream>,
    socket: PathBuf,
    ended: bool,
}

impl Client {
    /// A client of the agent of these paths.
    pub(crate) fn new(paths: Paths) -> Self {
        Self { paths }
    }

    /// Asks on the read socket.
    pub(crate) fn ask(&self, query: Query) -> Result<Answers, Failure> {
        let follow =
            matches!(query, Query::Events { follow: true, .. } | Query::Findings { follow: true, .. });
        let patience = if follow { None } else { Some(PATIENCE) };
        self.send(&self.paths.read_socket(), RequestBody::Query(query), patience)
    }

    /// Asks on the change socket, which answers what is not for every reader.
    pub(crate) fn ask_guarded(&self, query: Query) -> Result<Answers, Failure> {
        self.send(&self.paths.control_socket(), RequestBody::Query(query), Some(PATIENCE_FOR_CHANGES))
    }

    /// Asks a question that has one answer.
    pub(crate) fn ask_one(&self, query: Query) -> Result<Reply, Failure> {
        let mut answers = self.ask(query)?;
        answers.next_reply()?.ok_or_else(|| answers.cut_short())
    }

    /// Asks a question that has a list for an answer.
    pub(crate) fn ask_all(&self, query: Query) -> Result<Vec<Reply>, Failure> {
        let mut answers = self.ask(query)?;
        let mut all = vec![];
        while let Some(reply) = answers.next_reply()? {
            all.push(reply);
        }
        Ok(all)
    }

    /// Commands on the change socket; the answer is a sentence for people.
    pub(crate) fn command(&self, command: Command) -> Result<String, Failure> {
        let socket = self.paths.control_socket();
        let mut answers = self.send(&socket, RequestBody::Command(command), Some(PATIENCE_FOR_CHANGES))?;
        match answers.next_reply()? {
            Some(Reply::Done(sentence)) => Ok(sentence),
            Some(other) => Err(unexpected(&other)),
            None => Err(answers.cut_short()),
        }
    }

    /// Whether this user may command at all; nothing is sent.
    pub(crate) fn may_change(&self) -> Result<(), Failure> {
        let socket = self.paths.control_socket();
        UnixStream::connect(&socket).map(drop).map_err(|e| self.unreachable(&socket, &e))
    }

    fn send(&self, socket: &Path, body: RequestBody, patience: Option<Duration>) -> Result<Answers, Failure> {
        let fault = |e: io::Error| self.unreachable(socket, &e);
        let mut stream = UnixStream::connect(socket).map_err(fault)?;
        stream.set_read_timeout(patience).map_err(fault)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(fault)?;
        let mut line = serde_json::to_vec(&Request { version: VERSION, body })
            .map_err(|e| Failure::new(Exit::Failed, format!("cannot write the request: {e}")))?;
        line.push(b'\n');
        // An agent that refuses at once may have hung up already: its reason is then still there to be read.
        match stream.write_all(&line) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(fault(e)),
            _ => {}
        }
        Ok(Answers { lines: BufReader::new(stream), socket: socket.to_owned(), ended: false })
    }

    fn unreachable(&self, socket: &Path, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                let dir = match &self.paths.base {
                    Some(base) => format!(" --base-dir {}", base.display()),
                    None => String::new(),
                };
                let service =
                    if self.paths.base.is_none() { ", or as a service: systemctl start davy" } else { "" };
                Failure::new(
                    Exit::NoAgent,
                    format!("no agent is running: nothing answers at {}", socket.display()),
                )
                .hint(format!("start one here: davy{dir} run{service}"))
            }
            io::ErrorKind::PermissionDenied => {
                Failure::new(Exit::Forbidden, format!("you may not use {}", socket.display()))
                    .hint(who_may(socket))
            }
            _ => Failure::new(
                Exit::Failed,
                format!("cannot talk to the agent at {}: {error}", socket.display()),
            ),
        }
    }
}

impl Answers {
    /// The next answer; `None` when nothing more comes.
    ///
    /// # Errors
    /// The agent's refusal, an answer that is none, or a connection that ends before the answer does.
    pub(crate) fn next_reply(&mut self) -> Result<Option<Reply>, Failure> {
        if self.ended {
            return Ok(None);
        }
        let mut line = vec![];
        let bound = MAX_LINE as u64 + 1;
        let read = self.lines.by_ref().take(bound).read_until(b'\n', &mut line);
        match read {
            Ok(_) if line.last() != Some(&b'\n') && line.len() as u64 >= bound => Err(Failure::new(
                Exit::Failed,
                format!("the agent sent a line of more than {MAX_LINE} bytes; it is not read further"),
            )),
            Ok(_) if line.last() != Some(&b'\n') => Err(self.cut_short()),
            Ok(_) => self.understand(&line),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Err(
                Failure::new(Exit::Failed, format!("the agent at {} does not answer", self.socket.display()))
                    .hint("it took the question and then said nothing; look at its log"),
            ),
            Err(e) => Err(Failure::new(
                Exit::Failed,
                format!("cannot read the answer from {}: {e}", self.socket.display()),
            )),
        }
    }

    fn understand(&mut self, line: &[u8]) -> Result<Option<Reply>, Failure> {
        match serde_json::from_slice(line) {
            Ok(Reply::End) => {
                self.ended = true;
                Ok(None)
            }
            Ok(Reply::Error { code, message }) => Err(refusal(code, &message)),
            Ok(reply) => Ok(Some(reply)),
            Err(e) => Err(Failure::new(Exit::Failed, format!("cannot understand the agent's answer: {e}"))
                .hint(format!("this davy speaks version {VERSION} of the protocol; the agent may speak another: restart it"))),
        }
    }

    /// The failure of an agent that hung up before it had finished.
    pub(crate) fn cut_short(&self) -> Failure {
        Failure::new(
            Exit::Failed,
            format!("the agent at {} ended the conversation before it had finished", self.socket.display()),
        )
        .hint("it may have stopped just now: davy status")
    }
}

fn refusal(code: ErrorCode, message: &str) -> Failure {
    let failure = Failure::new(Exit::of_refusal(code), message);
    match code {
        ErrorCode::Version => failure.hint(format!(
            "this davy is {} and speaks version {VERSION} of the protocol; after an upgrade, restart the agent: \
             systemctl restart davy",
            env!("CARGO_PKG_VERSION")
        )),
        ErrorCode::Forbidden => failure.hint("changes are root's alone: try again with sudo"),
        _ => failure,
    }
}

/// The failure of an answer to another question.
pub(crate) fn unexpected(reply: &Reply) -> Failure {
    let kind = serde_json::to_value(reply).ok().and_then(|v| v["reply"].as_str().map(str::to_owned));
    Failure::new(
        Exit::Failed,
        format!("the agent answered with {}, which was not asked for", kind.unwrap_or_default()),
    )
}

/// Who may use a socket, from its owner and mode, or those of the folder that hides it.
fn who_may(socket: &Path) -> String {
    let you = rustix::process::geteuid().as_raw();
    let seen = socket
        .ancestors()
        .find_map(|p| std::fs::metadata(p).ok().map(|m| (p, m)))
        .map(|(p, m)| (p, m.gid(), m.permissions().mode()));
    match seen {
        Some((_, gid, mode)) if gid != 0 && mode & 0o060 != 0 => {
            let group = group_name(gid).unwrap_or_else(|| format!("of number {gid}"));
            format!(
                "it is for root and for members of the group {group}; you are user number {you}: try sudo"
            )
        }
        _ => format!("it is for root alone; you are user number {you}: try sudo"),
    }
}

/// A group's name by its number. Read from the file, because a static C library has no name service.
fn group_name(gid: u32) -> Option<String> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}
