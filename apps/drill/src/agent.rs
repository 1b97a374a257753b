//! The agent as the drill sees it: questions over the read socket, commands over the control socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use davy_model::{ActionId, ActionRecord, EventKind, Finding, Incident, IncidentId, Timestamp};
use davy_wire::{
    AgentStatus, Command, DrillResult, MAX_LINE, Query, Reply, Request, RequestBody, Tally, VERSION,
};

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Most replies to one question that are kept; the agent is asked for fewer.
const MAX_REPLIES: usize = 10_000;

/// The way to one agent.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    read: PathBuf,
    control: PathBuf,
}

impl Agent {
    pub(crate) fn new(read: &Path, control: &Path) -> Self {
        Self { read: read.to_owned(), control: control.to_owned() }
    }

    /// Its state.
    pub(crate) fn status(&self) -> anyhow::Result<AgentStatus> {
        match self.ask(Query::Status)?.into_iter().next() {
            Some(Reply::Status(status)) => Ok(status),
            _ => bail!("the agent did not tell its state"),
        }
    }

    /// Findings made or renewed since a moment.
    pub(crate) fn findings(&self, since: Timestamp) -> anyhow::Result<Vec<Finding>> {
        let replies = self.ask(Query::Findings { since: Some(since), limit: 500, follow: false })?;
        Ok(replies
            .into_iter()
            .filter_map(|r| if let Reply::Finding(f) = r { Some(f) } else { None })
            .collect())
    }

    /// Connections from outside that the policy does not allow, since a moment.
    pub(crate) fn inbound(&self, since: Timestamp) -> anyhow::Result<Vec<EventKind>> {
        let kinds = vec!["inbound".to_owned()];
        let replies =
            self.ask(Query::Events { since: Some(since), limit: 500, pid: None, kinds, follow: false })?;
        let kind = |r| if let Reply::Event(e) = r { Some(e.kind) } else { None };
        Ok(replies.into_iter().filter_map(kind).collect())
    }

    /// Incidents since a moment, each with everything.
    pub(crate) fn incidents(&self, since: Timestamp) -> anyhow::Result<Vec<Incident>> {
        let incident = |r| if let Reply::Incident(i) = r { Some(i) } else { None };
        let brief = self.ask(Query::Incidents { since: Some(since), limit: 50 })?;
        let ids: Vec<IncidentId> = brief.into_iter().filter_map(incident).map(|i| i.id).collect();
        let mut whole = Vec::new();
        for id in ids {
            whole.extend(self.ask(Query::Incident { id })?.into_iter().filter_map(incident));
        }
        Ok(whole)
    }

    /// Actions since a moment.
    pub(crate) fn actions(&self, since: Timestamp) -> anyhow::Result<Vec<ActionRecord>> {
        let replies = self.ask(Query::Actions { limit: 500 })?;
        let action = |r| if let Reply::Action(a) = r { Some(a) } else { None };
        Ok(replies.into_iter().filter_map(action).filter(|a| a.time >= since).collect())
    }

    /// Enforces inside a cgroup, for some seconds; none ends it.
    pub(crate) fn rehearse(&self, cgroup: &str, seconds: u32) -> anyhow::Result<String> {
        self.command(Command::Rehearse { cgroup: cgroup.to_owned(), seconds, code: false, mount: None })
    }

    /// Enforces inside a cgroup, and refuses code that nobody vouches for there. `mount` is where code may be asked for.
    pub(crate) fn refuse_code(
        &self,
        cgroup: &str,
        seconds: u32,
        mount: Option<&Path>,
    ) -> anyhow::Result<String> {
        let mount = mount.map(|mount| mount.to_string_lossy().into_owned());
        self.command(Command::Rehearse { cgroup: cgroup.to_owned(), seconds, code: true, mount })
    }

    /// Isolates a cgroup for a time.
    pub(crate) fn isolate(&self, cgroup: &str, time: Duration) -> anyhow::Result<String> {
        let seconds = u32::try_from(time.as_secs())?;
        let cgroup = Some(cgroup.to_owned());
        self.command(Command::Isolate { cgroup, keep: Vec::new(), seconds, anyway: false })
    }

    /// Undoes one action.
    pub(crate) fn undo(&self, id: ActionId) -> anyhow::Result<String> {
        self.command(Command::UndoAction { id })
    }

    /// Undoes everything of an incident.
    pub(crate) fn undo_incident(&self, id: IncidentId) -> anyhow::Result<String> {
        self.command(Command::UndoIncident { id })
    }

    /// Freezes what an incident is about.
    pub(crate) fn freeze(&self, id: IncidentId) -> anyhow::Result<String> {
        self.command(Command::Act { id, actions: vec!["freeze".to_owned()] })
    }

    /// Tells the agent what came of the drills.
    pub(crate) fn drilled(&self, results: &[DrillResult]) -> anyhow::Result<String> {
        self.command(Command::Drilled(Tally::of(results)))
    }

    /// Where it takes commands.
    pub(crate) fn control(&self) -> &Path {
        &self.control
    }

    /// Whether commands can be given at all.
    pub(crate) fn takes_commands(&self) -> bool {
        UnixStream::connect(&self.control).is_ok()
    }

    fn ask(&self, query: Query) -> anyhow::Result<Vec<Reply>> {
        exchange(&self.read, RequestBody::Query(query))
    }

    fn command(&self, command: Command) -> anyhow::Result<String> {
        match exchange(&self.control, RequestBody::Command(command))?.pop() {
            Some(Reply::Done(sentence)) => Ok(sentence),
            _ => bail!("the agent did not say whether it did it"),
        }
    }
}

/// One request and its answers, on a connection of its own.
fn exchange(socket: &Path, body: RequestBody) -> anyhow::Result<Vec<Reply>> {
    let what = || format!("talk to the agent at {}", socket.display());
    let mut stream = UnixStream::connect(socket).with_context(what)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(what)?;
    stream.set_write_timeout(Some(PATIENCE)).with_context(what)?;
    let mut line = serde_json::to_vec(&Request { version: VERSION, body })?;
    line.push(b'\n');
    stream.write_all(&line).with_context(what)?;
    let mut answers = BufReader::new(stream);
    let mut replies = Vec::new();
    while replies.len() < MAX_REPLIES {
        let mut line = Vec::new();
        let bound = u64::try_from(MAX_LINE)?;
        if answers.by_ref().take(bound).read_until(b'\n', &mut line).with_context(what)? == 0 {
            break;
        }
        match serde_json::from_slice(&line).context("read the agent's answer")? {
            Reply::End => break,
            Reply::Error { message, .. } => bail!("the agent: {message}"),
            last @ (Reply::Status(_) | Reply::Done(_)) => {
                replies.push(last);
                break;
            }
            reply => replies.push(reply),
        }
    }
    Ok(replies)
}
