use std::{io::Write, path::Path};

use davy_model::{Action, ActionRecord, ActionState, Destination, FileId, ProcessKey};

use crate::{
    Block, Error, Outcome, Prepared, Refusal, ResponderConfig, SealedFile, failsafe,
    freeze::{self, sort_out},
    kill::kill,
    process,
    quarantine::{Original, Restored, Vault, owner_of, restore},
    tree::Tree,
    undo::Undo,
};

/// Carries out what the arbiter decided, and undoes it.
///
/// The order is the caller's: [`Responder::prepare`], write the journal line as intended with
/// [`Prepared::undo`], [`Responder::carry_out`], write the outcome.
pub struct Responder {
    config: ResponderConfig,
    block: Option<Box<dyn Block>>,
    vault: Vault,
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
            Action::Cut { destination, .. } => self.prepare_cut(destination)?.to_json(),
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
            Action::Cut { destination, seconds } => self.cut(*destination, *seconds),
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
            (_, Some(Undo::Unblock { destination })) => self.unblock(record, destination),
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

    /// What lies in quarantine, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn quarantined(&self) -> Result<Vec<SealedFile>, Error> {
        self.vault.list()
    }

    /// Writes the content of a file in quarantine to `out`, as it was.
    ///
    /// # Errors
    /// When there is none of this number, or it does not open any more.
    pub fn read_back(&self, number: u64, out: impl Write) -> Result<(), Error> {
        let record = self.vault.record(number)?.ok_or_else(|| Error::Broken {
            path: self.config.state_dir.join("quarantine"),
            reason: format!("there is no file {number} in quarantine"),
        })?;
        self.vault.read_into(&record, out)
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

    fn prepare_quarantine(
        &self,
        path: &Path,
        file: FileId,
        process: Option<&ProcessKey>,
    ) -> Result<Undo, Refusal> {
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

    fn quarantine(&self, number: u64, path: &str, file: FileId, process: Option<&ProcessKey>) -> Outcome {
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
        match original.unlink() {
            Ok(taken) => taken_outcome(&record, taken),
            Err(reach) => {
                self.vault.remove(number);
                Outcome::failed(format!("{path} cannot be taken away: {reach}"))
            }
        }
    }

    /// What became of a quarantine that was cut short; `None` when it must be begun anew.
    fn settle_quarantine(&self, record: &ActionRecord, number: u64) -> Option<Outcome> {
        let Action::Quarantine { path, file, process } = &record.action else { return None };
        let sealed = self.vault.record(number).ok().flatten().filter(|sealed| sealed.file == *file);
        match (sealed, Original::reach(Path::new(path), *file, process.as_ref())) {
            // Sealed, and its name is gone: only the journal was missing.
            (Some(sealed), Err(_)) => Some(taken_outcome(&sealed, sealed.place.is_some())),
            (Some(sealed), Ok(original)) if original.place().is_none() => {
                Some(taken_outcome(&sealed, sealed.place.is_some()))
            }
            (Some(_), Ok(_)) => {
                self.vault.remove(number);
                None
            }
            (None, _) => None,
        }
    }

    fn restore(&self, record: &ActionRecord, number: u64) -> Outcome {
        let failed = |note: String, undoable| Outcome {
            state: record.state,
            note,
            undoable,
            undo: record.undo.clone(),
        };
        let sealed = match self.vault.record(number) {
            Ok(Some(sealed)) => sealed,
            Ok(None) => return failed(format!("there is no file {number} in quarantine any more"), false),
            Err(error) => return failed(error.to_string(), true),
        };
        match restore(&self.vault, &sealed) {
            Ok(Restored { path, beside, missing }) => {
                self.vault.remove(number);
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
                Outcome::final_state(ActionState::Undone, note)
            }
            Err(reason) => failed(format!("{reason}; it stays in quarantine as number {number}"), true),
        }
    }

    fn prepare_cut(&self, destination: &Destination) -> Result<Undo, Refusal> {
        if self.block.is_none() {
            return Err(Refusal::new("nothing on this host can cut flows"));
        }
        match failsafe::keeps(destination, &process::snapshot()) {
            Some(reason) => Err(Refusal::new(reason)),
            None => Ok(Undo::Unblock { destination: *destination }),
        }
    }

    fn cut(&self, destination: Destination, seconds: u32) -> Outcome {
        if let Err(refusal) = self.prepare_cut(&destination) {
            return Outcome::final_state(ActionState::Refused, refusal.reason);
        }
        let Some(block) = &self.block else { return Outcome::failed("nothing on this host can cut flows") };
        let name = name_of(&destination);
        // Blocked first, so that what is ended cannot come back in between.
        if let Err(reason) = block.block(destination, (seconds > 0).then_some(seconds)) {
            return Outcome::failed(format!("{name} cannot be cut off: {reason}"));
        }
        let ended = match block.destroy(destination) {
            Ok(0) => "no connection was open".to_owned(),
            Ok(1) => "1 connection ended".to_owned(),
            Ok(n) => format!("{n} connections ended"),
            Err(reason) => format!("what was open could not be ended: {reason}"),
        };
        let time =
            if seconds == 0 { "until undone".to_owned() } else { format!("for {}", duration(seconds)) };
        Outcome {
            state: ActionState::Done,
            note: format!("{name} cut off {time}; {ended}"),
            undoable: true,
            undo: Undo::Unblock { destination }.to_json(),
        }
    }

    fn unblock(&self, record: &ActionRecord, destination: Destination) -> Outcome {
        let result = match &self.block {
            Some(block) => block.unblock(destination),
            None => Err("nothing on this host can cut flows".into()),
        };
        let name = name_of(&destination);
        match result {
            Ok(()) => Outcome::final_state(ActionState::Undone, format!("{name} can be reached again")),
            Err(reason) => Outcome {
                state: record.state,
                note: format!("{name} is still cut off: {reason}"),
                undoable: true,
                undo: record.undo.clone(),
            },
        }
    }
}

fn taken_outcome(record: &SealedFile, taken: bool) -> Outcome {
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

fn name_of(destination: &Destination) -> String {
    match destination.port {
        0 => destination.address.to_string(),
        port => std::net::SocketAddr::new(destination.address, port).to_string(),
    }
}

fn duration(seconds: u32) -> String {
    match seconds {
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}
