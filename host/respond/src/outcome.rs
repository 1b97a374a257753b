use davy_model::{Action, ActionState};
use serde::{Deserialize, Serialize};

/// Why an action was not begun: a failsafe forbids it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// In plain words, with the process or file it protects.
    pub reason: String,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// An action that passed the failsafes. Everything is looked at again when it is carried out, because time
/// passes in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub(crate) action: Action,
    pub(crate) undo: String,
}

impl Prepared {
    /// What will be done.
    #[must_use]
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// What an undo would need if the agent died in the middle of the action (JSON). It belongs into the
    /// journal together with [`ActionState::Intended`], before the action is carried out.
    #[must_use]
    pub fn undo(&self) -> &str {
        &self.undo
    }
}

/// How an action, or its undo, ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The state the journal line gets.
    pub state: ActionState,
    /// In plain words, with numbers.
    pub note: String,
    /// Whether an undo can still bring back what was there.
    pub undoable: bool,
    /// What undo needs (JSON); empty when there is nothing.
    pub undo: String,
}

impl Outcome {
    pub(crate) fn failed(note: impl Into<String>) -> Self {
        Self { state: ActionState::Failed, note: note.into(), undoable: false, undo: String::new() }
    }

    pub(crate) fn final_state(state: ActionState, note: impl Into<String>) -> Self {
        Self { state, note: note.into(), undoable: false, undo: String::new() }
    }
}
