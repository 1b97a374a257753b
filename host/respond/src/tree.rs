use std::collections::{BTreeMap, HashMap, HashSet};

use davy_model::{FileId, ProcessKey};

use crate::process::{self, Stat};

/// Processes of one tree that can be acted on; a tree that outgrows it is acted on in part, and the next round
/// goes on.
const MAX_MEMBERS: usize = 32_768;

/// A process tree followed over several looks at /proc. Members stay members when their parent ends.
pub(crate) struct Tree {
    boot: u32,
    /// Start ticks of each member by pid.
    known: BTreeMap<u32, u64>,
    /// Who was there at the first look; an orphan of later birth may be a child that slipped away.
    before: HashSet<(u32, u64)>,
    /// The programs that members run.
    images: HashSet<FileId>,
    /// The cgroups that members live in, as `/proc/PID/cgroup` tells them.
    cgroups: HashSet<String>,
}

impl Tree {
    /// The tree of the given processes, and what has grown from it until now.
    pub(crate) fn new(root: &ProcessKey, tree: &[ProcessKey], all: &HashMap<u32, Stat>) -> Self {
        let boot = process::boot();
        let keys = std::iter::once(root).chain(tree).filter(|key| key.boot == boot).take(MAX_MEMBERS);
        let known = keys.map(|key| (key.pid, key.start_ticks)).collect();
        let before = all.values().map(|stat| (stat.pid, stat.start_ticks)).collect();
        let mut tree = Self { boot, known, before, images: HashSet::new(), cgroups: HashSet::new() };
        tree.grow(all);
        tree.images = tree.living(all).filter_map(|stat| Some(process::image(stat.pid)?.0)).collect();
        tree.cgroups = tree.living(all).filter_map(|stat| process::cgroups(stat.pid)).collect();
        tree
    }

    /// Takes in what was born since, and gives the members that live, as they were seen.
    pub(crate) fn look_again(&mut self) -> HashMap<u32, Stat> {
        let all = process::snapshot();
        self.grow(&all);
        all
    }

    fn grow(&mut self, all: &HashMap<u32, Stat>) {
        let mut children: HashMap<u32, Vec<&Stat>> = HashMap::new();
        for stat in all.values() {
            children.entry(stat.parent).or_default().push(stat);
        }
        let mut open: Vec<u32> = self.living(all).map(|stat| stat.pid).collect();
        let slipped: Vec<&Stat> = all.values().filter(|stat| self.slipped_away(stat, all)).collect();
        for stat in slipped {
            self.known.insert(stat.pid, stat.start_ticks);
            open.push(stat.pid);
        }
        while let Some(pid) = open.pop() {
            for child in children.get(&pid).into_iter().flatten() {
                if self.known.len() < MAX_MEMBERS
                    && self.known.insert(child.pid, child.start_ticks) != Some(child.start_ticks)
                {
                    open.push(child.pid);
                }
            }
        }
    }

    /// A child whose parent ended before it could be seen hangs below init. It is known by all of these together:
    /// it was born after the first look, it is an orphan, and it runs the same file in the same cgroups as a
    /// member.
    fn slipped_away(&self, stat: &Stat, all: &HashMap<u32, Stat>) -> bool {
        !self.images.is_empty()
            && !self.before.contains(&(stat.pid, stat.start_ticks))
            && self.known.get(&stat.pid) != Some(&stat.start_ticks)
            && !stat.ended()
            && !self.is_member(stat.parent, all)
            && process::takes_orphans(stat.parent)
            && process::image(stat.pid).is_some_and(|(file, _)| self.images.contains(&file))
            && process::cgroups(stat.pid).is_some_and(|cgroups| self.cgroups.contains(&cgroups))
    }

    fn is_member(&self, pid: u32, all: &HashMap<u32, Stat>) -> bool {
        all.get(&pid).is_some_and(|stat| self.known.get(&pid) == Some(&stat.start_ticks))
    }

    /// The members that have not ended.
    pub(crate) fn living<'a>(&'a self, all: &'a HashMap<u32, Stat>) -> impl Iterator<Item = &'a Stat> {
        self.known.iter().filter_map(|(pid, start)| {
            all.get(pid).filter(|stat| stat.start_ticks == *start && !stat.ended())
        })
    }

    pub(crate) fn key_of(&self, stat: &Stat) -> ProcessKey {
        stat.key(self.boot)
    }
}
