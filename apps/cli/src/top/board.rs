//! What the live view knows and what its keys do. Pure: the screen draws it, the feed fills it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use davy_model::{Incident, IncidentId, IncidentState, ProcessKey};
use davy_wire::{AgentStatus, BusyTree, TopView};

/// Something the user wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Leave the view.
    Leave,
    /// Act on an incident.
    Act {
        /// On which.
        incident: IncidentId,
        /// What.
        action: Deed,
    },
}

/// What can be done from the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Stop the tree from running; can be undone.
    Freeze,
    /// End the tree.
    Kill,
}

impl Deed {
    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Kill => "kill",
        }
    }
}

/// What is being looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// All trees, and the chosen one in short.
    Trees,
    /// All that is known of the chosen tree.
    Details,
    /// A question before something is done.
    Confirm {
        /// To which incident.
        incident: IncidentId,
        /// What.
        action: Deed,
    },
}

/// The state of the live view.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    /// The trees now.
    pub(crate) view: TopView,
    /// The agent's state, once it has come.
    pub(crate) status: Option<AgentStatus>,
    /// Incidents that run.
    pub(crate) running: Vec<Incident>,
    /// What is being looked at.
    pub(crate) face: Face,
    /// The last thing worth telling: what was done, or why it was not.
    pub(crate) message: String,
    /// Why nothing new comes; empty when it does.
    pub(crate) fault: String,
    chosen: Option<ProcessKey>,
}

impl Board {
    /// A board with its first view.
    pub(crate) fn new(view: TopView) -> Self {
        Self {
            view,
            status: None,
            running: vec![],
            face: Face::Trees,
            message: String::new(),
            fault: String::new(),
            chosen: None,
        }
    }

    /// The row of the chosen tree. The choice stays with its tree when rows move; a tree that is gone gives it to
    /// the first row.
    pub(crate) fn row(&self) -> usize {
        self.view.trees.iter().position(|t| Some(t.root) == self.chosen).unwrap_or(0)
    }

    /// The chosen tree.
    pub(crate) fn tree(&self) -> Option<&BusyTree> {
        self.view.trees.get(self.row())
    }

    /// The newest running incident that a tree belongs to.
    pub(crate) fn incident_of(&self, tree: &BusyTree) -> Option<&Incident> {
        let concerns = |incident: &&Incident| {
            incident.tree.iter().any(|n| n.suspect && n.process == tree.root)
                || incident
                    .findings
                    .iter()
                    .any(|f| f.subject == Some(tree.root) || f.processes.contains(&tree.root))
        };
        self.running.iter().rev().filter(|i| i.state == IncidentState::Running).find(concerns)
    }

    /// Takes a key.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Some(Wish::Leave);
        }
        if let Face::Confirm { incident, action } = self.face {
            self.face = Face::Trees;
            if matches!(key.code, KeyCode::Char('y' | 'Y')) {
                self.message = format!("Asked the agent to {} incident {}…", action.name(), incident.0);
                return Some(Wish::Act { incident, action });
            }
            self.message = "Nothing was done.".to_owned();
            return None;
        }
        self.message.clear();
        match key.code {
            KeyCode::Char('q') => return Some(Wish::Leave),
            KeyCode::Esc if self.face == Face::Trees => return Some(Wish::Leave),
            KeyCode::Esc => self.face = Face::Trees,
            KeyCode::Enter if self.face == Face::Details => self.face = Face::Trees,
            KeyCode::Enter if self.tree().is_some() => self.face = Face::Details,
            KeyCode::Up => self.choose(self.row().saturating_sub(1)),
            KeyCode::Down => self.choose(self.row() + 1),
            KeyCode::Home => self.choose(0),
            KeyCode::End => self.choose(usize::MAX),
            KeyCode::Char('f') => self.ask(Deed::Freeze),
            KeyCode::Char('k') => self.ask(Deed::Kill),
            _ => {}
        }
        None
    }

    fn choose(&mut self, row: usize) {
        let last = self.view.trees.len().saturating_sub(1);
        self.chosen = self.view.trees.get(row.min(last)).map(|t| t.root);
    }

    /// Asks before anything is done. The incident is settled now, so that a row that moves meanwhile changes nothing.
    fn ask(&mut self, action: Deed) {
        let Some(tree) = self.tree() else { return };
        let root = tree.root;
        match self.incident_of(tree).map(|i| i.id) {
            Some(incident) => {
                self.chosen = Some(root);
                self.face = Face::Confirm { incident, action };
            }
            None => {
                self.message =
                    "There is no incident about this tree: Davy acts on incidents only.".to_owned();
            }
        }
    }
}
