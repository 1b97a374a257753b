//! Taking a file into quarantine, and giving it back.

use std::path::Path;

use davy_model::{Action, ActionRecord, ActionState, FileId, ProcessKey};

use crate::{
    Outcome, Refusal, Responder, SealedFile,
    quarantine::{Original, Reach, Restored, Unlinked, owner_of, restore},
    undo::Undo,
};

impl Responder {
    pub(crate) fn prepare_quarantine(
        &self,
        path: &Path,
        file: FileId,
        process: Option<&ProcessKey>,
    ) -> Result<Undo, Refusal> {
        if let Some(why) = &self.config.no_quarantine {
            return Err(Refusal::new(why.clone()));
        }
        if let Some(owner) = owner_of(file) {
            return Err(Refusal::new(format!("the program is the system's own ({owner}); not taken away")));
        }
        let original = Original::reach(path, file, process)
            .map_err(|reach| Refusal::new(format!("{}: {reach}", path.display())))?;
        let bytes = original.meta.len();
        match self.vault.refuses(bytes).and_then(|full| Ok((full, self.vault.next_number()?))) {
            Ok((None, sealed)) => Ok(Undo::Restore { sealed }),
            Ok((Some(full), _)) => Err(Refusal::new(full)),
            Err(error) => Err(Refusal::new(error.to_string())),
        }
    }

    pub(crate) fn quarantine(
        &self,
        number: u64,
        path: &str,
        file: FileId,
        process: Option<&ProcessKey>,
    ) -> Outcome {
        if let Err(refusal) = self.prepare_quarantine(Path::new(path), file, process) {
            return Outcome::final_state(ActionState::Refused, refusal.reason);
        }
        let original = match Original::reach(Path::new(path), file, process) {
            Ok(original) => original,
            Err(reach) => return Outcome::failed(format!("{path}: {reach}")),
        };
        let record = match self.vault.put(number, path, &original) {
            Ok(record) => record,
            Err(error) => return Outcome::failed(error.to_string()),
        };
        self.finish(&record, &original)
    }

    /// Takes the original's name away, whose content lies in the vault.
    fn finish(&self, record: &SealedFile, original: &Original) -> Outcome {
        let (number, path) = (record.number, &record.path);
        match original.unlink() {
            Ok(Unlinked::Nameless) => taken_outcome(record, false),
            Ok(Unlinked::Gone) => taken_outcome(record, true),
            Ok(Unlinked::NotYetOnDisk(why)) => {
                let mut outcome = taken_outcome(record, true);
                outcome.note.push_str(&format!("; a loss of power soon may bring it back ({why})"));
                outcome
            }
            Err(reach) => {
                let kept = self.vault.remove(number).err();
                let kept =
                    kept.map(|error| format!("; its copy is still number {number} in quarantine: {error}"));
                Outcome::failed(format!("{path} cannot be taken away: {reach}{}", kept.unwrap_or_default()))
            }
        }
    }

    /// What became of a quarantine that was cut short; `None` when it must be begun anew.
    pub(crate) fn settle_quarantine(&self, record: &ActionRecord, number: u64) -> Option<Outcome> {
        let Action::Quarantine { path, file, process } = &record.action else { return None };
        let sealed = self.vault.record(number).ok().flatten().filter(|sealed| sealed.file == *file);
        let reached = Original::reach(Path::new(path), *file, process.as_ref());
        // The same file, on a disk that has another device number since.
        if let (Some(sealed), Err(Reach::Another)) = (&sealed, &reached)
            && let Some(original) = Original::again(Path::new(path), sealed)
        {
            return Some(self.finish(sealed, &original));
        }
        match (sealed, reached) {
            // Nobody knows whether the name is gone; the copy is kept, because it may be all there is.
            (Some(sealed), Err(Reach::Denied(why))) => Some(Outcome::failed(format!(
                "whether {path} was taken away is not known: {why}; a copy is number {} in quarantine",
                sealed.number
            ))),
            // Sealed, and its name is gone: only the journal was missing.
            (Some(sealed), Err(_)) => Some(taken_outcome(&sealed, sealed.has_place())),
            (Some(sealed), Ok(original)) if original.place().is_none() => {
                Some(taken_outcome(&sealed, sealed.has_place()))
            }
            (Some(_), Ok(_)) => match self.vault.remove(number) {
                Ok(()) => None,
                Err(error) => Some(Outcome::failed(error.to_string())),
            },
            (None, _) => None,
        }
    }

    pub(crate) fn restore(&self, record: &ActionRecord, number: u64) -> Outcome {
        let failed = |note: String, undoable| Outcome {
            state: record.state,
            note,
            undoable,
            undo: record.undo.clone(),
        };
        let sealed = match self.vault.record(number) {
            Ok(Some(sealed)) if is_of(&sealed, record) => sealed,
            Ok(_) => return failed(format!("there is no file {number} in quarantine any more"), false),
            Err(error) => return failed(error.to_string(), true),
        };
        match restore(&self.vault, &sealed) {
            Ok(Restored { path, not_on_disk: Some(why), .. }) => {
                let path = path.display();
                failed(
                    format!(
                        "{path} is back, but not yet certainly on the disk ({why}); it stays in quarantine too"
                    ),
                    true,
                )
            }
            Ok(Restored { path, beside, missing, not_on_disk: None }) => {
                let kept = self.vault.remove(number).err();
                let mut note = match beside {
                    false => format!("{} is back", path.display()),
                    true => format!(
                        "something else is at {} now, so the file was put back as {}",
                        sealed.path,
                        path.display()
                    ),
                };
                if !missing.is_empty() {
                    note.push_str(&format!("; without {}", missing.join(", ")));
                }
                if let Some(error) = kept {
                    note.push_str(&format!("; its copy is still number {number} in quarantine: {error}"));
                }
                Outcome::final_state(ActionState::Undone, note)
            }
            Err(reason) => failed(format!("{reason}; it stays in quarantine as number {number}"), true),
        }
    }
}

/// Whether a file in quarantine is the one that this line of the journal is about.
fn is_of(sealed: &SealedFile, record: &ActionRecord) -> bool {
    matches!(&record.action, Action::Quarantine { path, file, .. } if *path == sealed.path && *file == sealed.file)
}

pub(crate) fn taken_outcome(record: &SealedFile, taken: bool) -> Outcome {
    let SealedFile { number, path, bytes, sha256, links, .. } = record;
    let short = &sha256[..sha256.len().min(12)];
    let mut note = match taken {
        true => format!("{path} ({bytes} bytes, SHA-256 {short}…) taken into quarantine as number {number}"),
        false => format!(
            "{path} has no name on the host; its content ({bytes} bytes, SHA-256 {short}…) is kept as number {number}"
        ),
    };
    if taken && *links > 1 {
        note.push_str(&format!("; it still has {} other name(s) on the host", links - 1));
    }
    Outcome {
        state: ActionState::Done,
        note,
        undoable: taken,
        undo: Undo::Restore { sealed: *number }.to_json(),
    }
}
