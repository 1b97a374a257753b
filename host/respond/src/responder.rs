use davy_model::{Action, ActionRecord, ActionState};

use crate::{Block, Outcome, Prepared, Refusal, ResponderConfig};

/// Carries out what the arbiter decided, and undoes it.
///
/// The order is the caller's: [`Responder::prepare`], write the journal line as intended with
/// [`Prepared::undo`], [`Responder::carry_out`], write the outcome.
pub struct Responder {
    _config: ResponderConfig,
    _block: Option<Box<dyn Block>>,
}

impl Responder {
    /// A responder over the given state folder.
    ///
    /// # Errors
    /// When the quarantine folder or its key cannot be made or read.
    pub fn new(config: ResponderConfig, block: Option<Box<dyn Block>>) -> Result<Self, crate::Error> {
        Ok(Self { _config: config, _block: block })
    }

    /// Asks the failsafes. Touches nothing.
    ///
    /// # Errors
    /// The failsafe that forbids it.
    pub fn prepare(&self, action: &Action) -> Result<Prepared, Refusal> {
        Ok(Prepared { action: action.clone(), undo: String::new() })
    }

    /// Does it. Never panics and always ends: every wait has a deadline.
    pub fn carry_out(&self, prepared: &Prepared) -> Outcome {
        Outcome::failed(format!("{:?} is not built yet", prepared.action))
    }

    /// Undoes what a journal line says was done. Undoing twice does no harm.
    pub fn undo(&self, record: &ActionRecord) -> Outcome {
        Outcome::final_state(record.state, "not built yet")
    }

    /// Ends a timed action whose time has run out.
    pub fn expire(&self, record: &ActionRecord) -> Outcome {
        Outcome { state: ActionState::Expired, ..self.undo(record) }
    }

    /// Finds out what became of an action that was intended when an earlier agent died.
    pub fn settle(&self, record: &ActionRecord) -> Outcome {
        Outcome::final_state(record.state, "not built yet")
    }
}
