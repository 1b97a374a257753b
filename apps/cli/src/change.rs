//! The verbs that change something: they go to the change socket, and the agent says in a sentence what it did.

use davy_agent::Paths;
use davy_model::IncidentId;
use davy_wire::Command;

use crate::answer::Answering;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::subject::Subject;
use crate::verbs;

/// Sends a command and repeats the agent's sentence.
pub(crate) fn order(client: &Client, answering: &Answering, command: Command) -> Result<(), Failure> {
    let sentence = client.command(command)?;
    Ok(answering.sentence(&sentence)?)
}

/// `davy stop`. Where no agent runs, what one may have left in force is taken away here.
pub(crate) fn stop(client: &Client, answering: &Answering, paths: &Paths) -> Result<(), Failure> {
    let none = match order(client, answering, Command::Stop) {
        Err(failure) if failure.exit == Exit::NoAgent && rustix::process::geteuid().is_root() => failure,
        other => return other,
    };
    let gone = davy_agent::take_away_leftovers(paths)
        .map_err(|error| Failure::new(Exit::Failed, format!("no agent runs, and {error:#}")))?;
    if gone.is_empty() {
        return Err(none);
    }
    Ok(answering
        .sentence(&format!("no agent runs; what one had left in force is gone: {}", gone.join(", ")))?)
}

/// `davy undo`.
pub(crate) fn undo(client: &Client, answering: &Answering, subject: Subject) -> Result<(), Failure> {
    let command = match subject {
        Subject::Incident(id) => Command::UndoIncident { id },
        Subject::Action(id) => Command::UndoAction { id },
        Subject::Finding(_) => {
            return Err(Failure::new(Exit::Usage, "a finding is a conclusion: there is nothing to undo")
                .hint("undo the incident it belongs to (davy incidents), or one action (davy actions)"));
        }
    };
    order(client, answering, command)
}

/// `davy act`.
pub(crate) fn act(client: &Client, answering: &Answering, asked: &verbs::Act) -> Result<(), Failure> {
    order(client, answering, Command::Act { id: IncidentId(asked.id), actions: asked.actions.clone() })
}

/// `davy disarm`.
pub(crate) fn disarm(client: &Client, answering: &Answering, asked: &verbs::Disarm) -> Result<(), Failure> {
    let command = match asked.length {
        Some(seconds) => Command::Disarm { seconds },
        None => Command::Arm,
    };
    order(client, answering, command)
}

/// `davy isolate`.
pub(crate) fn isolate(client: &Client, answering: &Answering, asked: &verbs::Isolate) -> Result<(), Failure> {
    let command = match asked.length {
        Some(seconds) => Command::Isolate {
            cgroup: asked.cgroup.clone(),
            keep: asked.keep.clone(),
            seconds,
            anyway: asked.anyway,
        },
        None => Command::Rejoin,
    };
    order(client, answering, command)
}
