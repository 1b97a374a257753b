//! What processes do, turned into evidence for their units.

use davy_model::{CodeAct, FileAct, FileChange, FileId, ProcessInfo, ProcessKey, Signal, Timestamp};

use crate::detector::Detector;
use crate::flow_watch::Noted;
use crate::process_table::Process;
use crate::{campaign, command_line, fileless, masquerade, odd_parent, persistence, preparation, tampering};

/// A file that was written while Davy watched.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// When it was written last.
    pub(crate) time: Timestamp,
    /// By whom.
    pub(crate) process: ProcessKey,
    /// Its path for people.
    pub(crate) path: String,
}

impl Detector {
    /// A program was executed, or found running.
    pub(crate) fn executed(&mut self, time: Timestamp, info: &ProcessInfo, found: bool) {
        self.processes.executed(time, info, found);
        if info.image.file.ino != 0 {
            self.running.insert(info.image.file, info.key);
        }
        if info.kernel_thread {
            return;
        }
        let names = &self.lists.names;
        let parent = info.parent.and_then(|p| self.processes.get(&p));
        let mut noted = Vec::new();
        masquerade::look(time, info, &info.comm, names, &mut noted);
        command_line::look(time, info, names, &mut noted);
        noted.extend(fileless::look(time, info, parent, names, found));
        noted.extend(odd_parent::look(time, info, &self.processes, names));
        if !found {
            campaign::look(time, info, names, &self.lists.interpreters, &mut noted);
            noted.extend(campaign::fed(time, info, &self.processes, &self.lists.interpreters));
            noted.extend(preparation::command(time, info));
        }
        for noted in noted {
            self.note_act(&info.key, noted);
        }
    }

    /// A process took another short name.
    pub(crate) fn renamed(&mut self, time: Timestamp, key: ProcessKey, comm: &str) {
        self.processes.renamed(&key, comm);
        let Some(process) = self.processes.get(&key) else { return };
        let mut noted = Vec::new();
        masquerade::look(time, &process.program, comm, &self.lists.names, &mut noted);
        for noted in noted {
            self.note_act(&key, noted);
        }
    }

    /// A file changed.
    pub(crate) fn file_changed(&mut self, time: Timestamp, by: Option<ProcessKey>, change: &FileChange) {
        let writer = by.and_then(|key| self.processes.get(&key));
        let mut noted = Vec::new();
        if let Some(writer) = writer {
            noted.extend(
                persistence::look(time, change, Some(writer), &self.lists.names).map(|n| (writer.key, n)),
            );
            if change.act == FileAct::Deleted
                && let Some(victim) = self.deleted_by_own_tree(&change.file, writer)
            {
                noted.push((victim.key, fileless::deleted_self(time, victim)));
            }
        }
        if let (Some(by), true) = (by, change.file.ino != 0)
            && (change.code || change.executable || change.place.is_some())
            && !matches!(change.act, FileAct::Deleted | FileAct::AttributesChanged)
        {
            self.written.insert(change.file, Written { time, process: by, path: change.path.clone() });
        }
        for (key, noted) in noted {
            self.note_act(&key, noted);
        }
    }

    /// A process acted on code, devices or other processes.
    pub(crate) fn code_act(&mut self, time: Timestamp, key: ProcessKey, act: &CodeAct) {
        let noted = match act {
            CodeAct::NamelessExec { memfd } => self.processes.get(&key).and_then(|process| {
                let parent = process.parent.and_then(|p| self.processes.get(&p));
                fileless::nameless_exec(time, process, *memfd, parent, &self.lists.names)
            }),
            CodeAct::Hidden { how } => Some(masquerade::hidden(time, key, how)),
            act => tampering::look(time, key, act, self).or_else(|| preparation::look(time, key, act)),
        };
        if let Some(noted) = noted {
            self.note_act(&key, noted);
        }
    }

    /// Notes an act for the unit that did it. What one of the system's tools does is done by whoever runs the tool, which is
    /// gone in a moment, so such acts are noted for the parent.
    fn note_act(&mut self, key: &ProcessKey, (topic, mut found): Noted) {
        found.process.get_or_insert(*key);
        let owner = matches!(found.signal, Signal::Campaign | Signal::Preparation | Signal::Persistence)
            .then(|| self.who_runs_tool(key))
            .flatten()
            .unwrap_or(*key);
        self.note_of(&owner, topic, found);
    }

    /// The process that runs one of the system's tools; `None` for other programs, for shells, and below what serves others.
    fn who_runs_tool(&self, key: &ProcessKey) -> Option<ProcessKey> {
        let process = self.processes.get(key)?;
        let names = &self.lists.names;
        if !names.is_system(&process.program.image.path) || campaign::is_shell(process.file_name()) {
            return None;
        }
        let parent = self.processes.get(&process.parent?)?;
        (parent.key.pid > 1 && !odd_parent::serves(parent, names)).then_some(parent.key)
    }

    /// The living process that runs a file, when one of its own tree deleted that file.
    fn deleted_by_own_tree(&self, file: &FileId, deleter: &Process) -> Option<&Process> {
        let runner = self.processes.get(self.running.get(file)?)?;
        let current = runner.program.image.file == *file;
        let related = runner.unit == deleter.unit
            || self
                .processes
                .ancestors(&runner.key)
                .take(4)
                .any(|a| a.key == deleter.key || Some(a.key) == deleter.parent)
            || self.processes.ancestors(&deleter.key).take(4).any(|a| a.key == runner.key);
        (runner.alive() && current && related).then_some(runner)
    }
}
