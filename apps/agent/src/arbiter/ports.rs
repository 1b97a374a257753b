//! Ports closed and opened by order of an administrator.

use davy_model::{Action, ActionId, ActionRecord, ActionState};
use tokio::sync::oneshot;

use super::Arbiter;
use crate::clock;
use crate::deed::record;
use crate::ports::Happened;

/// What a line of the journal needs to be told apart by an agent that comes later.
const ON_TRIAL: &str = "\"trial\"";
const CONFIRMED: &str = "\"confirmed\"";

/// What the arbiter is told about ports.
#[derive(Debug)]
pub(crate) enum PortsOrder {
    /// Close all that the policy does not open, to be confirmed within so many seconds.
    Apply { seconds: u32, unused: bool, anyway: bool, reply: oneshot::Sender<Result<String, String>> },
    /// Keep them closed.
    Confirm(oneshot::Sender<Result<String, String>>),
    /// Open all.
    Open(oneshot::Sender<Result<String, String>>),
    /// Something came to pass by itself.
    Happened(Happened),
}

/// The journal's lines about ports that are closed.
#[derive(Debug, Default)]
pub(super) struct Lines {
    trial: Option<ActionRecord>,
    confirmed: Option<ActionRecord>,
}

impl Arbiter {
    pub(super) fn on_ports(&mut self, order: PortsOrder) {
        match order {
            PortsOrder::Apply { seconds, unused, anyway, reply } => {
                drop(reply.send(self.close_ports(seconds, unused, anyway)))
            }
            PortsOrder::Confirm(reply) => drop(reply.send(self.confirm_ports())),
            PortsOrder::Open(reply) => drop(reply.send(self.open_ports("by order of an administrator"))),
            PortsOrder::Happened(Happened::RolledBack { action }) => {
                tracing::warn!("closed ports were not confirmed in time, and what was before holds again");
                // Another trial may have taken its place before it was heard that this one is over.
                let line = self.lines.trial.take_if(|line| line.id.0 == action);
                self.close_line(line, ActionState::Expired, "not confirmed in time, so it undid itself");
            }
        }
    }

    fn close_ports(&mut self, seconds: u32, unused: bool, anyway: bool) -> Result<String, String> {
        let ready = self.ports.prepare(unused, anyway)?;
        let entries = ready.entries();
        let action = Action::ClosePorts { entries, seconds };
        let mut line = record(None, None, action, ActionState::Intended, "by order of an administrator");
        ON_TRIAL.clone_into(&mut line.undo);
        self.write(&mut line);
        let outcome = self.ports.apply(ready, line.id, seconds);
        line.changed = clock::now();
        match &outcome {
            Ok(()) => {
                line.state = ActionState::Done;
                line.undoable = true;
                line.note = format!("on trial, to be confirmed within {seconds} s");
            }
            Err(why) => {
                line.state = ActionState::Failed;
                line.note.clone_from(why);
            }
        }
        self.change(&line);
        outcome?;
        let number = line.id.0;
        let before = self.lines.trial.replace(line);
        self.close_line(before, ActionState::Undone, "another trial took its place");
        Ok(format!(
            "action {number}: every port is closed but those that {entries} entries of the policy open, on trial for {seconds} s. \
             Look whether you still get in, over a new connection, and then: davy ports confirm. Otherwise it undoes itself."
        ))
    }

    fn confirm_ports(&mut self) -> Result<String, String> {
        const DONE: &str = "confirmed: the ports stay closed. `davy ports open` opens them";
        let Some(trial) = self.lines.trial.clone() else {
            return self.ports.confirm().map(|()| DONE.to_owned());
        };
        // Written down first. Whether it came to pass is known to an agent that comes later by what the ports' own file says.
        let line = ActionRecord {
            changed: clock::now(),
            note: "confirmed".to_owned(),
            undo: CONFIRMED.to_owned(),
            ..trial.clone()
        };
        self.change(&line);
        if let Err(why) = self.ports.confirm() {
            self.change(&trial);
            return Err(why);
        }
        self.lines.trial = None;
        let before = self.lines.confirmed.replace(line);
        self.close_line(before, ActionState::Undone, "what was confirmed later took its place");
        Ok(DONE.to_owned())
    }

    /// Opens all ports, and says so in the journal's lines about those that were closed.
    pub(super) fn open_ports(&mut self, why: &str) -> Result<String, String> {
        let any = self.ports.release()?;
        let lines = std::mem::take(&mut self.lines);
        for line in [lines.trial, lines.confirmed] {
            self.close_line(line, ActionState::Undone, why);
        }
        Ok(if any { "every port is open as far as Davy is concerned" } else { "Davy had closed no port" }
            .to_owned())
    }

    /// Undoes the closing of ports that a line of the journal tells of: what stood before it stands again.
    pub(super) fn undo_ports(&mut self, line: &ActionRecord) -> Result<String, String> {
        let own = |kept: &Option<ActionRecord>| kept.as_ref().is_some_and(|kept| kept.id == line.id);
        const WHY: &str = "by order of an administrator";
        if own(&self.lines.trial) {
            self.ports.abandon()?;
            let line = self.lines.trial.take();
            self.close_line(line, ActionState::Undone, WHY);
            let holds = self.lines.confirmed.as_ref();
            return Ok(holds.map_or_else(
                || "undone, every port is open as far as Davy is concerned".to_owned(),
                |before| format!("undone, what action {} closed is closed again", before.id.0),
            ));
        }
        if own(&self.lines.confirmed) {
            self.ports.forget()?;
            let line = self.lines.confirmed.take();
            self.close_line(line, ActionState::Undone, WHY);
            return Ok(if self.lines.trial.is_some() {
                "undone, the trial that is on goes on until its time".to_owned()
            } else {
                "undone, every port is open as far as Davy is concerned".to_owned()
            });
        }
        Err("other ports are closed now than by this action; `davy ports open` opens them all".to_owned())
    }

    /// Takes over a line that an agent before this one left open.
    pub(super) fn take_over_ports(&mut self, line: ActionRecord) {
        if stands(&line, self.ports.confirmed()) {
            let before = self.lines.confirmed.replace(line);
            self.close_line(before, ActionState::Undone, "what was confirmed later took its place");
        } else if matches!(line.state, ActionState::Done | ActionState::Intended) {
            let why = "the agent ended before it was confirmed, so it undid itself";
            self.close_line(Some(line), ActionState::Expired, why);
        }
    }

    fn close_line(&self, line: Option<ActionRecord>, state: ActionState, why: &str) {
        let Some(mut line) = line else { return };
        line.changed = clock::now();
        (line.state, line.undoable) = (state, false);
        why.clone_into(&mut line.note);
        self.change(&line);
    }
}

/// Whether a line that an agent before this one left tells of what holds: it says so, and so does what was kept of the ports
/// themselves. One that says so alone was written down before it was done, and was not done any more.
fn stands(line: &ActionRecord, confirmed: Option<ActionId>) -> bool {
    line.state == ActionState::Done && line.undo == CONFIRMED && confirmed == Some(line.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_written_and_not_carried_out_does_not_stand() {
        let action = Action::ClosePorts { entries: 1, seconds: 60 };
        let mut line = record(None, None, action, ActionState::Done, "confirmed");
        (line.id, line.undo) = (ActionId(7), CONFIRMED.to_owned());
        assert!(stands(&line, Some(ActionId(7))));
        assert!(!stands(&line, Some(ActionId(3))), "what was confirmed before it still holds");
        assert!(!stands(&line, None));
        ON_TRIAL.clone_into(&mut line.undo);
        assert!(!stands(&line, Some(ActionId(7))));
    }
}
