//! Stopping a tree so that it can be let go on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    thread::sleep,
    time::{Duration, Instant},
};

use davy_model::ProcessKey;
use rustix::process::Signal;

use crate::{
    ResponderConfig,
    cgroup::Cgroup,
    failsafe,
    held::Held,
    process::{self, Stat},
    tree::Tree,
    undo::Undo,
};

/// A tree that still grows after this long is called not fully stopped.
const DEADLINE: Duration = Duration::from_secs(2);
/// Looks without anything new after which the tree counts as stopped.
const QUIET_LOOKS: u32 = 2;
/// Rest between two looks: time for a signal to be taken on another CPU.
const REST: Duration = Duration::from_millis(1);

/// What freezing came to.
pub(crate) struct Frozen {
    /// The cgroup that was frozen as a whole.
    pub(crate) cgroup: Option<Cgroup>,
    /// The tree's own cgroup, when it had been frozen before: an undo must not take that back.
    pub(crate) frozen_before: Option<Cgroup>,
    /// Those that were stopped by a signal. Who stood still before is not among them.
    pub(crate) stopped: BTreeSet<ProcessKey>,
    /// How many members stand still.
    pub(crate) still: usize,
    /// Why members were left alone.
    pub(crate) spared: BTreeMap<u32, String>,
    /// What did not work.
    pub(crate) trouble: Option<String>,
}

impl Frozen {
    pub(crate) fn undo(&self) -> Undo {
        Undo::Thaw {
            cgroup: self.cgroup.as_ref().map(|cgroup| cgroup.path.clone()),
            stopped: self.stopped.iter().copied().collect(),
        }
    }
}

/// The living members that may be acted on, and why the others may not.
pub(crate) fn sort_out<'a>(
    tree: &'a Tree,
    all: &'a HashMap<u32, Stat>,
    config: &ResponderConfig,
) -> (Vec<&'a Stat>, BTreeMap<u32, String>) {
    let mut spared = BTreeMap::new();
    let mut targets = Vec::new();
    for stat in tree.living(all) {
        match failsafe::spares(stat, all, config) {
            Some(reason) => drop(spared.insert(stat.pid, reason)),
            None => targets.push(stat),
        }
    }
    (targets, spared)
}

/// Stops everything in the tree that may be stopped.
pub(crate) fn freeze(tree: &mut Tree, config: &ResponderConfig) -> Frozen {
    if let Some(frozen) = freeze_cgroup(tree, config) {
        return frozen;
    }
    stop_by_signal(tree, config)
}

fn freeze_cgroup(tree: &mut Tree, config: &ResponderConfig) -> Option<Frozen> {
    let mount = config.cgroup2.as_deref()?;
    let all = tree.look_again();
    let (targets, spared) = sort_out(tree, &all, config);
    if !spared.is_empty() || targets.is_empty() {
        return None;
    }
    let pids: HashSet<u32> = targets.iter().map(|stat| stat.pid).collect();
    let cgroup = Cgroup::alone(mount, &pids)?;
    if cgroup.is_frozen() {
        return Some(Frozen {
            cgroup: None,
            frozen_before: Some(cgroup),
            stopped: BTreeSet::new(),
            still: targets.len(),
            spared,
            trouble: Some("its cgroup had been frozen before".into()),
        });
    }
    let still = match cgroup.freeze(DEADLINE) {
        Ok(true) => None,
        Ok(false) => Some("some of it did not stand still within 2 s".to_owned()),
        Err(_) => return None,
    };
    let all = tree.look_again();
    let still_count = tree.living(&all).count();
    Some(Frozen {
        cgroup: Some(cgroup),
        frozen_before: None,
        stopped: BTreeSet::new(),
        still: still_count,
        spared: BTreeMap::new(),
        trouble: still,
    })
}

/// SIGSTOP for all, then again for what was forked meanwhile, until nothing is new and every thread rests.
fn stop_by_signal(tree: &mut Tree, config: &ResponderConfig) -> Frozen {
    let begin = Instant::now();
    let mut seen: BTreeSet<ProcessKey> = BTreeSet::new();
    let mut frozen = Frozen {
        cgroup: None,
        frozen_before: None,
        stopped: BTreeSet::new(),
        still: 0,
        spared: BTreeMap::new(),
        trouble: None,
    };
    let mut quiet = 0;
    while quiet < QUIET_LOOKS {
        let all = tree.look_again();
        let (targets, spared) = sort_out(tree, &all, config);
        frozen.spared.extend(spared);
        let mut restless = false;
        for stat in &targets {
            let key = tree.key_of(stat);
            if seen.insert(key) {
                restless = true;
                if !stat.stopped()
                    && let Some(held) = Held::take(&key)
                {
                    match held.signal(Signal::STOP) {
                        Ok(()) => drop(frozen.stopped.insert(key)),
                        Err(errno) => {
                            frozen.trouble = Some(format!("{} cannot be stopped: {errno}", key.pid))
                        }
                    }
                }
            } else if !process::all_threads_rest(stat.pid) {
                restless = true;
            }
        }
        frozen.still = targets.len();
        quiet = if restless { 0 } else { quiet + 1 };
        if begin.elapsed() > DEADLINE {
            frozen.trouble = Some("some of it did not stand still within 2 s".into());
            break;
        }
        sleep(REST);
    }
    frozen
}

/// Lets exactly those go on that were stopped. Gives how many, and what did not work.
pub(crate) fn thaw(
    cgroup: Option<&str>,
    stopped: &[ProcessKey],
    config: &ResponderConfig,
) -> (usize, Option<String>) {
    let mut trouble = None;
    let mut going = 0;
    if let (Some(path), Some(mount)) = (cgroup, config.cgroup2.as_deref()) {
        // A cgroup that is gone took its processes with it.
        if let Some(cgroup) = Cgroup::at(mount, path) {
            match cgroup.thaw() {
                Ok(()) => going += 1,
                Err(error) => trouble = Some(format!("the cgroup {path} cannot be thawed: {error}")),
            }
        }
    }
    for key in stopped {
        let Some(held) = Held::take(key) else { continue };
        match held.signal(Signal::CONT) {
            Ok(()) => going += 1,
            Err(errno) => trouble = Some(format!("{} cannot be let go on: {errno}", key.pid)),
        }
    }
    (going, trouble)
}

/// The path of the cgroup that these processes have for themselves, if they have one and nobody froze it.
pub(crate) fn cgroup_of(targets: &[&Stat], config: &ResponderConfig) -> Option<String> {
    let pids: HashSet<u32> = targets.iter().map(|stat| stat.pid).collect();
    let cgroup = Cgroup::alone(config.cgroup2.as_deref()?, &pids)?;
    (!cgroup.is_frozen()).then_some(cgroup.path)
}
