//! What lies in quarantine: told, read, and forgotten for good.

use davy_model::{Action, ActionRecord};

use crate::{Error, Outcome, Responder, SealedContent, SealedFile, undo::Undo};

impl Responder {
    /// What lies in quarantine, oldest first, and what there cannot be read.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn quarantined(&self) -> Result<(Vec<SealedFile>, Vec<String>), Error> {
        self.vault.list()
    }

    /// The bytes that the content of a file in quarantine takes up sealed, shared with others or not; 0 when it is gone.
    #[must_use]
    pub fn sealed_bytes(&self, file: &SealedFile) -> u64 {
        self.vault.sealed_bytes(file)
    }

    /// What is remembered of a file in quarantine.
    ///
    /// # Errors
    /// When there is none of this number, or its record does not read.
    pub fn held(&self, number: u64) -> Result<SealedFile, Error> {
        self.vault.record(number)?.ok_or(Error::NotHeld { number })
    }

    /// A file in quarantine and its content as it was, to be read in its own time.
    ///
    /// # Errors
    /// When there is none of this number, or it does not open.
    pub fn content(&self, number: u64) -> Result<(SealedFile, SealedContent), Error> {
        let record = self.held(number)?;
        let content = self.vault.content(&record)?;
        Ok((record, content))
    }

    /// Forgets a file in quarantine for good; a content that others share stays for them.
    ///
    /// # Errors
    /// When there is none of this number, or it is not certainly gone.
    pub fn delete(&self, number: u64) -> Result<SealedFile, Error> {
        let record = self.held(number)?;
        self.vault.remove(number)?;
        Ok(record)
    }

    /// The journal line that a file in quarantine would have, for one whose line was forgotten.
    #[must_use]
    pub fn line_of(&self, file: &SealedFile) -> (Action, Outcome) {
        let action = Action::Quarantine { path: file.path.clone(), file: file.file, process: None };
        (action, crate::take::taken_outcome(file, file.has_place()))
    }
}

/// The number in quarantine of what this line of the journal took away.
#[must_use]
pub fn sealed_number(record: &ActionRecord) -> Option<u64> {
    match Undo::from_json(&record.undo) {
        Some(Undo::Restore { sealed }) => Some(sealed),
        _ => None,
    }
}
