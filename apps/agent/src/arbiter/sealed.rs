//! What an administrator asks and orders about the files in quarantine.

use davy_model::{Action, ActionRecord, ActionState, Timestamp};
use davy_respond::{Error, SealedContent, SealedFile, sealed_number};
use davy_wire::{ErrorCode, Quarantined};
use tokio::sync::oneshot;

use super::Arbiter;
use crate::clock;
use crate::deed::{outcome_words, record};

/// How far back the journal is searched for what has nothing to undo, in lines.
const JOURNAL: u32 = 10_000;

/// Why something about a file in quarantine was not done.
pub(crate) type Refused = (ErrorCode, String);

/// The files in quarantine, and what there cannot be read.
pub(crate) type Listed = (Vec<Quarantined>, Vec<String>);

/// What the arbiter is asked about the files in quarantine.
#[derive(Debug)]
pub(crate) enum SealedOrder {
    List(oneshot::Sender<Result<Listed, Refused>>),
    /// The content of one, to be read by whoever asked and in their own time.
    Read(u64, oneshot::Sender<Result<SealedContent, Refused>>),
    Restore(u64, oneshot::Sender<Result<String, Refused>>),
    Delete(u64, oneshot::Sender<Result<String, Refused>>),
}

impl Arbiter {
    pub(super) fn on_sealed(&mut self, order: SealedOrder) {
        match order {
            SealedOrder::List(reply) => drop(reply.send(self.list_sealed())),
            SealedOrder::Read(number, reply) => {
                let content = self.responder.content(number).map(|(_, content)| content);
                drop(reply.send(content.map_err(refused)));
            }
            SealedOrder::Restore(number, reply) => drop(reply.send(self.restore_sealed(number))),
            SealedOrder::Delete(number, reply) => drop(reply.send(self.delete_sealed(number))),
        }
    }

    fn list_sealed(&self) -> Result<Listed, Refused> {
        let (files, faults) = self.responder.quarantined().map_err(refused)?;
        let journal = self.runtime.block_on(self.store.actions(JOURNAL)).unwrap_or_default();
        let told = files.iter().map(|file| {
            let line = journal.iter().rev().find(|line| is_about(line, file));
            told(file, self.responder.sealed_bytes(file), line)
        });
        Ok((told.collect(), faults))
    }

    fn restore_sealed(&mut self, number: u64) -> Result<String, Refused> {
        let file = self.responder.held(number).map_err(refused)?;
        let mut line = self.line_about(&file);
        // What lies there can be given back, whatever an agent that died had in mind with it.
        line.undoable = true;
        self.undo(vec![line]).map_err(|words| (ErrorCode::Failed, words))
    }

    fn delete_sealed(&mut self, number: u64) -> Result<String, Refused> {
        let file = self.responder.held(number).map_err(refused)?;
        let mut line = self.line_about(&file);
        line.changed = clock::now();
        line.note = format!("{}, being deleted for good by order of an administrator", file.path);
        self.change(&line);
        let deleted = self.responder.delete(number);
        line.changed = clock::now();
        line.undoable &= deleted.is_err();
        line.note = match &deleted {
            Ok(_) => format!(
                "deleted for good from quarantine, by order of an administrator (SHA-256 {})",
                file.sha256
            ),
            Err(error) => format!("number {number} in quarantine could not be deleted: {error}"),
        };
        self.change(&line);
        tracing::warn!("{}: {}", file.path, line.note);
        match deleted {
            Ok(_) => Ok(format!("{}: {}", file.path, outcome_words(&line))),
            Err(_) => Err((ErrorCode::Failed, line.note)),
        }
    }

    /// The journal's line about a file; a new one where the journal has forgotten it.
    fn line_about(&self, file: &SealedFile) -> ActionRecord {
        let known = |lines: Vec<ActionRecord>| lines.into_iter().rev().find(|line| is_about(line, file));
        let open = self.runtime.block_on(self.store.open_actions()).unwrap_or_default();
        let line = known(open)
            .or_else(|| known(self.runtime.block_on(self.store.actions(JOURNAL)).unwrap_or_default()));
        line.unwrap_or_else(|| {
            let (action, outcome) = self.responder.line_of(file);
            let mut line = record(None, None, action, ActionState::Done, &outcome.note);
            (line.undoable, line.undo) = (outcome.undoable, outcome.undo);
            self.write(&mut line);
            line
        })
    }
}

/// Whether a line of the journal is the one that says how this file was taken.
fn is_about(line: &ActionRecord, file: &SealedFile) -> bool {
    let same = matches!(&line.action, Action::Quarantine { path, file: taken, .. } if *path == file.path && *taken == file.file);
    same && line.state == ActionState::Done && sealed_number(line) == Some(file.number)
}

fn refused(error: Error) -> Refused {
    let code = if matches!(error, Error::NotHeld { .. }) { ErrorCode::NotFound } else { ErrorCode::Failed };
    (code, error.to_string())
}

fn told(file: &SealedFile, sealed_bytes: u64, line: Option<&ActionRecord>) -> Quarantined {
    let moment = |(seconds, nanos): (i64, i64)| Timestamp(seconds.saturating_mul(1_000_000) + nanos / 1000);
    let [accessed, modified] = file.times.map(moment);
    Quarantined {
        number: file.number,
        path: file.path.clone(),
        sha256: file.sha256.clone(),
        bytes: file.bytes,
        sealed_bytes,
        shares: file.shares,
        taken: moment((i64::try_from(file.taken).unwrap_or(i64::MAX), 0)),
        uid: file.uid,
        gid: file.gid,
        mode: file.mode,
        accessed,
        modified,
        xattrs: file.attributes(),
        links: file.links,
        restorable: file.has_place(),
        action: line.map(|line| line.id),
        incident: line.and_then(|line| line.incident),
    }
}
