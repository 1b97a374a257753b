//! Every process that runs, those that ended lately, and all ancestors of the living.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use davy_model::{Exit, ProcessInfo, ProcessKey, Timestamp};

/// Programs remembered that a process executed before its present one.
const MAX_HISTORY: usize = 6;
/// Ancestors walked at most, so that a forged cycle ends.
const MAX_DEPTH: usize = 64;

/// A program that a process executed before its present one.
#[derive(Clone, Debug)]
pub struct PastProgram {
    /// When it executed that program.
    pub time: Timestamp,
    /// The program.
    pub program: Arc<ProcessInfo>,
}

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Which.
    pub key: ProcessKey,
    /// Who started it. Kept when the kernel gives the process another parent because that one ended.
    pub parent: Option<ProcessKey>,
    /// Its short name now.
    pub comm: String,
    /// What it executes: its own exec or, after a fork, its parent's.
    pub program: Arc<ProcessInfo>,
    /// When it was first known.
    pub first: Timestamp,
    /// When it executed its program; `None` while it runs what it was forked with or was found running.
    pub executed: Option<Timestamp>,
    /// When and how it ended.
    pub ended: Option<(Timestamp, Exit)>,
    /// The process whose program this is a part of: processes that only forked belong to the one that executed.
    pub unit: ProcessKey,
    /// What it executed before, oldest first, bounded.
    pub history: Vec<PastProgram>,
    /// Entries of the table that have this one as parent; it stays while there are any.
    held: u32,
    /// Whether it is counted in its parent's `held`.
    holds: bool,
}

impl Process {
    /// All that is known of it in the form events have.
    #[must_use]
    pub fn info(&self) -> ProcessInfo {
        ProcessInfo {
            key: self.key,
            parent: self.parent,
            comm: self.comm.clone(),
            ..ProcessInfo::clone(&self.program)
        }
    }

    /// Whether it still runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.ended.is_none()
    }

    /// The last part of its program's path.
    #[must_use]
    pub fn file_name(&self) -> &str {
        base_name(&self.program.image.path)
    }
}

/// The last part of a path, without the mark the kernel sets on deleted files.
pub(crate) fn base_name(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

/// The bounded table of processes.
#[derive(Debug)]
pub struct ProcessTable {
    entries: HashMap<ProcessKey, Process>,
    by_pid: HashMap<u32, ProcessKey>,
    ended: VecDeque<ProcessKey>,
    living: usize,
    max_living: usize,
    max_ended: usize,
    refused: u64,
}

impl ProcessTable {
    pub(crate) fn new(max_living: usize, max_ended: usize) -> Self {
        Self {
            entries: HashMap::new(),
            by_pid: HashMap::new(),
            ended: VecDeque::new(),
            living: 0,
            max_living,
            max_ended,
            refused: 0,
        }
    }

    /// A process by its identity.
    #[must_use]
    pub fn get(&self, key: &ProcessKey) -> Option<&Process> {
        self.entries.get(key)
    }

    /// The process that holds a pid now, or held it last.
    #[must_use]
    pub fn by_pid(&self, pid: u32) -> Option<&Process> {
        self.by_pid.get(&pid).and_then(|key| self.entries.get(key))
    }

    /// All processes kept, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Process> {
        self.entries.values()
    }

    /// Entries in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the table is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many processes live.
    #[must_use]
    pub fn living(&self) -> usize {
        self.living
    }

    /// How many processes were not taken in because the table was full of living ones.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The ancestors of a process, its parent first.
    pub fn ancestors(&self, key: &ProcessKey) -> impl Iterator<Item = &Process> {
        let mut next = self.entries.get(key).and_then(|p| p.parent);
        std::iter::from_fn(move || {
            let process = self.entries.get(&next?)?;
            next = process.parent;
            Some(process)
        })
        .take(MAX_DEPTH)
    }

    /// The unit of a process: itself when it is not known.
    #[must_use]
    pub fn unit_of(&self, key: &ProcessKey) -> ProcessKey {
        self.entries.get(key).map_or(*key, |p| p.unit)
    }

    /// Who started whom, for walking down. Made when asked for, because walks down are rare and forks are not.
    #[must_use]
    pub fn children(&self) -> HashMap<ProcessKey, Vec<ProcessKey>> {
        let mut children: HashMap<ProcessKey, Vec<ProcessKey>> = HashMap::new();
        for process in self.entries.values() {
            if let Some(parent) = process.parent.filter(|p| *p != process.key) {
                children.entry(parent).or_default().push(process.key);
            }
        }
        for list in children.values_mut() {
            list.sort_by_key(|key| (key.start_ticks, key.pid));
        }
        children
    }

    /// Takes in a process found running or an exec. Returns false when the table is full.
    pub(crate) fn executed(&mut self, time: Timestamp, info: &ProcessInfo, found: bool) -> bool {
        let key = info.key;
        let program = Arc::new(info.clone());
        if let Some(process) = self.entries.get_mut(&key) {
            let same_program = same_image(&process.program, &program);
            let past = std::mem::replace(&mut process.program, program);
            process.comm.clone_from(&info.comm);
            if let (Some(executed), false) = (process.executed, found) {
                if process.history.len() >= MAX_HISTORY {
                    process.history.remove(0);
                }
                process.history.push(PastProgram { time: executed, program: past });
            }
            if !found {
                process.executed = Some(time);
                if !same_program {
                    process.unit = key;
                }
            }
            if process.parent.is_none()
                && let Some(parent) = info.parent
            {
                self.adopt(key, parent);
            }
            return true;
        }
        let unit = info
            .parent
            .and_then(|parent| self.entries.get(&parent))
            .filter(|parent| found && same_image(&parent.program, &program))
            .map_or(key, |parent| parent.unit);
        self.insert(Process {
            key,
            parent: info.parent.filter(|p| *p != key),
            comm: info.comm.clone(),
            program,
            first: time,
            executed: (!found).then_some(time),
            ended: None,
            unit,
            history: Vec::new(),
            held: 0,
            holds: false,
        })
    }

    /// Takes in a fork. Returns false when the parent is unknown or the table is full.
    pub(crate) fn forked(
        &mut self,
        time: Timestamp,
        parent: ProcessKey,
        child: ProcessKey,
        comm: &str,
    ) -> bool {
        if let Some(known) = self.entries.get(&child) {
            if known.parent.is_none() {
                self.adopt(child, parent);
            }
            return true;
        }
        let Some(origin) = self.entries.get(&parent) else { return false };
        let process = Process {
            key: child,
            parent: Some(parent),
            comm: comm.to_owned(),
            program: Arc::clone(&origin.program),
            first: time,
            executed: None,
            ended: None,
            unit: origin.unit,
            history: Vec::new(),
            held: 0,
            holds: false,
        };
        self.insert(process)
    }

    pub(crate) fn renamed(&mut self, key: &ProcessKey, comm: &str) {
        if let Some(process) = self.entries.get_mut(key) {
            comm.clone_into(&mut process.comm);
        }
    }

    pub(crate) fn exited(&mut self, time: Timestamp, key: &ProcessKey, exit: Exit) {
        let Some(process) = self.entries.get_mut(key) else { return };
        if process.ended.is_some() {
            return;
        }
        process.ended = Some((time, exit));
        self.living -= 1;
        if process.held == 0 {
            self.retire(*key);
        } else if self.entries.len() > self.living + self.ended.len() + self.max_ended {
            // Endless chains of parents that fork and end: the chain is cut here.
            self.remove(*key);
            self.trim();
        }
    }

    fn insert(&mut self, mut process: Process) -> bool {
        if self.living >= self.max_living {
            self.refused += 1;
            return false;
        }
        if let Some(old) = self.by_pid.insert(process.key.pid, process.key) {
            // The kernel gave the pid anew, so its last holder is gone even if its exit was lost.
            self.exited(process.first, &old, Exit::default());
        }
        if let Some(parent) = process.parent.and_then(|p| self.entries.get_mut(&p)) {
            parent.held += 1;
            process.holds = true;
        }
        self.living += 1;
        self.entries.insert(process.key, process);
        true
    }

    fn adopt(&mut self, child: ProcessKey, parent: ProcessKey) {
        if child == parent || self.ancestors(&parent).any(|a| a.key == child) {
            return;
        }
        let known = self.entries.get_mut(&parent).map(|p| p.held += 1).is_some();
        if let Some(process) = self.entries.get_mut(&child) {
            process.parent = Some(parent);
            process.holds = known;
        }
    }

    /// Puts an ended process that no entry needs any more in the queue that the table forgets from.
    fn retire(&mut self, key: ProcessKey) {
        self.ended.push_back(key);
        self.trim();
    }

    fn trim(&mut self) {
        while self.ended.len() > self.max_ended {
            let Some(oldest) = self.ended.pop_front() else { return };
            if self.entries.get(&oldest).is_some_and(|p| p.held == 0 && p.ended.is_some()) {
                self.remove(oldest);
            }
        }
    }

    fn remove(&mut self, key: ProcessKey) {
        let Some(process) = self.entries.remove(&key) else { return };
        if self.by_pid.get(&key.pid) == Some(&key) {
            self.by_pid.remove(&key.pid);
        }
        let Some(parent) = process.parent.filter(|_| process.holds).and_then(|p| self.entries.get_mut(&p))
        else {
            return;
        };
        parent.held = parent.held.saturating_sub(1);
        if parent.held == 0 && parent.ended.is_some() {
            let parent = parent.key;
            self.ended.push_back(parent);
        }
    }
}

/// Whether two execs are of the same program under the same first argument (one busybox is many programs).
fn same_image(a: &ProcessInfo, b: &ProcessInfo) -> bool {
    let same_file = if a.image.file.ino != 0 && b.image.file.ino != 0 {
        a.image.file == b.image.file
    } else {
        !a.image.path.is_empty() && a.image.path == b.image.path
    };
    same_file && a.args.first().map(|s| base_name(s)) == b.args.first().map(|s| base_name(s))
}
