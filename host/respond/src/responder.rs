use std::path::Path;

use davy_model::{Action, ActionRecord, ActionState, ProcessKey};

use crate::{
    Block, Error, Outcome, Prepared, Refusal, ResponderConfig, failsafe,
    freeze::{self, sort_out},
    kill::kill,
    process,
    quarantine::Vault,
    tree::Tree,
    undo::Undo,
};

/// Carries out what the arbiter decided, and undoes it.
///
/// The order is the caller's: [`Responder::prepare`], write the journal line as intended with
/// [`Prepared::undo`], [`Responder::carry_out`], write the outcome.
pub struct Responder {
    pub(crate) config: ResponderConfig,
    pub(crate) block: Option<Box<dyn Block>>,
    pub(crate) vault: Vault,
}

impl Responder {
    /// A responder over the given state folder.
    ///
    /// # Errors
    /// When the quarantine folder or its key cannot be made or read.
    pub fn new(config: ResponderConfig, block: Option<Box<dyn Block>>) -> Result<Self, Error> {
        let vault = Vault::open(&config.state_dir, config.quarantine)?;
        Ok(Self { config, block, vault })
    }

    /// Asks the failsafes. Touches nothing.
    ///
    /// # Errors
    /// The failsafe that forbids it.
    pub fn prepare(&self, action: &Action) -> Result<Prepared, Refusal> {
        let undo = match action {
            Action::Alert => String::new(),
            Action::Freeze { root, tree } | Action::Kill { root, tree } => {
                self.prepare_tree(root, tree)?.to_json()
            }
            Action::Quarantine { path, file, process } => {
                self.prepare_quarantine(Path::new(path), *file, process.as_ref())?.to_json()
            }
            Action::Cut { destination, cgroup, .. } => {
                self.prepare_cut(destination, cgroup.as_deref())?.to_json()
            }
            Action::Isolate { cgroup, seconds, .. } => {
                self.prepare_isolation(cgroup.as_deref(), *seconds)?.to_json()
            }
            Action::Ban { .. } | Action::ClosePorts { .. } => {
                return Err(Refusal::new("it is the firewall's to do"));
            }
        };
        Ok(Prepared { action: action.clone(), undo })
    }

    /// Does it, after asking the failsafes again. Always ends: every wait has a deadline.
    pub fn carry_out(&self, prepared: &Prepared) -> Outcome {
        match &prepared.action {
            Action::Alert => Outcome::final_state(ActionState::Done, ""),
            Action::Freeze { root, tree } => self.freeze(root, tree),
            Action::Kill { root, tree } => {
                let mut tree = Tree::new(root, tree, &process::snapshot());
                kill(&mut tree, &self.config)
            }
            Action::Quarantine { path, file, process } => {
                let number = match Undo::from_json(&prepared.undo) {
                    Some(Undo::Restore { sealed }) => sealed,
                    _ => return Outcome::failed("it was not prepared"),
                };
                self.quarantine(number, path, *file, process.as_ref())
            }
            Action::Cut { destination, cgroup, seconds } => {
                self.cut(*destination, cgroup.as_deref(), *seconds)
            }
            Action::Isolate { cgroup, keep, seconds } => self.isolate(cgroup.as_deref(), keep, *seconds),
            Action::Ban { .. } | Action::ClosePorts { .. } => Outcome::failed("it is the firewall's to do"),
        }
    }

    /// Undoes what a journal line says was done. Undoing twice does no harm.
    pub fn undo(&self, record: &ActionRecord) -> Outcome {
        let keep = |note: &str| Outcome {
            state: record.state,
            note: note.into(),
            undoable: false,
            undo: record.undo.clone(),
        };
        match record.state {
            ActionState::Undone | ActionState::Expired => return keep("it is undone already"),
            ActionState::WouldHave | ActionState::Failed | ActionState::Refused => {
                return keep("nothing was done, so there is nothing to undo");
            }
            ActionState::Intended | ActionState::Done => {}
        }
        match (&record.action, Undo::from_json(&record.undo)) {
            (Action::Alert, _) => keep("an alert touches nothing, so there is nothing to undo"),
            (Action::Kill { .. }, _) if record.state == ActionState::Done => {
                keep("a process that was killed cannot be brought back")
            }
            (_, Some(Undo::Thaw { cgroup, stopped })) => self.thaw(record, cgroup.as_deref(), &stopped),
            (_, Some(Undo::Restore { sealed })) => self.restore(record, sealed),
            (_, Some(Undo::Unblock { destination, cgroup })) => {
                self.unblock(record, destination, cgroup.as_deref())
            }
            (_, Some(Undo::Rejoin { cgroup, .. })) => self.rejoin(record, cgroup.as_deref()),
            (_, None) => keep("the journal does not say what to undo"),
        }
    }

    /// Ends a timed action whose time has run out.
    pub fn expire(&self, record: &ActionRecord) -> Outcome {
        let outcome = self.undo(record);
        match outcome.state {
            ActionState::Undone => Outcome { state: ActionState::Expired, ..outcome },
            _ => outcome,
        }
    }

    /// Finishes an action that was intended when an earlier agent died: what it had begun is found out, and the
    /// rest is done as it was decided.
    pub fn settle(&self, record: &ActionRecord) -> Outcome {
        if record.state != ActionState::Intended {
            return Outcome {
                state: record.state,
                note: record.note.clone(),
                undoable: record.undoable,
                undo: record.undo.clone(),
            };
        }
        let begun = Undo::from_json(&record.undo);
        if let (Action::Quarantine { .. }, Some(Undo::Restore { sealed })) = (&record.action, &begun)
            && let Some(outcome) = self.settle_quarantine(record, *sealed)
        {
            return outcome;
        }
        let prepared = match self.prepare(&record.action) {
            Ok(prepared) => prepared,
            Err(refusal) => return Outcome::final_state(ActionState::Refused, refusal.reason),
        };
        let mut outcome = self.carry_out(&prepared);
        // What the earlier agent stopped looks now as though somebody else had.
        if let (Some(Undo::Thaw { cgroup, stopped }), Some(Undo::Thaw { cgroup: now, stopped: more })) =
            (begun, Undo::from_json(&outcome.undo))
        {
            let mut all: Vec<ProcessKey> = stopped.into_iter().chain(more).collect();
            all.sort();
            all.dedup();
            outcome.undo = Undo::Thaw { cgroup: now.or(cgroup), stopped: all }.to_json();
        }
        outcome
    }

    fn prepare_tree(&self, root: &ProcessKey, members: &[ProcessKey]) -> Result<Undo, Refusal> {
        if root.boot != process::boot() {
            return Err(Refusal::new("these processes are of another boot"));
        }
        let all = process::snapshot();
        if let Some(stat) = all.get(&root.pid).filter(|stat| stat.start_ticks == root.start_ticks)
            && let Some(reason) = failsafe::spares(stat, &all, &self.config)
        {
            return Err(Refusal::new(reason));
        }
        let tree = Tree::new(root, members, &all);
        let (targets, spared) = sort_out(&tree, &all, &self.config);
        if let (true, Some(reason)) = (targets.is_empty(), spared.into_values().next()) {
            return Err(Refusal::new(reason));
        }
        let stopped = targets.iter().filter(|stat| !stat.stopped()).map(|stat| tree.key_of(stat)).collect();
        Ok(Undo::Thaw { cgroup: freeze::cgroup_of(&targets, &self.config), stopped })
    }

    fn freeze(&self, root: &ProcessKey, members: &[ProcessKey]) -> Outcome {
        let begin = std::time::Instant::now();
        let mut tree = Tree::new(root, members, &process::snapshot());
        let frozen = freeze::freeze(&mut tree, &self.config);
        if frozen.still == 0 {
            let reason = frozen.spared.into_values().next();
            return Outcome::failed(
                reason.unwrap_or_else(|| "all of its processes had ended already".into()),
            );
        }
        let how = if frozen.cgroup.is_some() { "as one cgroup" } else { "one by one" };
        let ms = begin.elapsed().as_millis();
        let mut note = match frozen.still {
            1 => format!("1 process frozen in {ms} ms"),
            n => format!("{n} processes frozen {how} in {ms} ms"),
        };
        for reason in frozen.spared.values().take(8) {
            note.push_str(&format!("; left alone: {reason}"));
        }
        if let Some(trouble) = &frozen.trouble {
            note.push_str(&format!("; {trouble}"));
        }
        let undo = frozen.undo().to_json();
        Outcome { state: ActionState::Done, note, undoable: true, undo }
    }

    fn thaw(&self, record: &ActionRecord, cgroup: Option<&str>, stopped: &[ProcessKey]) -> Outcome {
        let (going, trouble) = freeze::thaw(cgroup, stopped, &self.config);
        match (trouble, going) {
            (Some(trouble), _) => Outcome {
                state: record.state,
                note: trouble,
                undoable: record.undoable,
                undo: record.undo.clone(),
            },
            (None, 0) => Outcome::final_state(ActionState::Undone, "none of it was left to let go on"),
            (None, _) if cgroup.is_some() => Outcome::final_state(ActionState::Undone, "its cgroup runs on"),
            (None, 1) => Outcome::final_state(ActionState::Undone, "1 process runs on"),
            (None, n) => Outcome::final_state(ActionState::Undone, format!("{n} processes run on")),
        }
    }
}
