//! Ending a tree.

use std::{
    collections::BTreeSet,
    thread::sleep,
    time::{Duration, Instant},
};

use davy_model::{ActionState, ProcessKey};
use rustix::process::Signal;

use crate::{
    Outcome, ResponderConfig,
    freeze::{freeze, sort_out},
    held::Held,
    tree::Tree,
};

/// What has not ended by then hangs in the kernel.
const DEADLINE: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_millis(1);

/// Stops the tree first, so that nothing is forked while it is killed, then ends it and makes sure that it is gone.
pub(crate) fn kill(tree: &mut Tree, config: &ResponderConfig) -> Outcome {
    let begin = Instant::now();
    let frozen = freeze(tree, config);
    let stopped = Instant::now();
    let mut killed: BTreeSet<ProcessKey> = BTreeSet::new();
    let mut trouble = None;
    let cgroup = frozen.cgroup.as_ref().or(frozen.frozen_before.as_ref());
    if let Some(cgroup) = cgroup {
        // Whoever is left, or on an older kernel all of them, is killed one by one below.
        let _ = cgroup.kill();
    }
    let mut spared = frozen.spared.clone();
    let left = loop {
        let all = tree.look_again();
        let (mut targets, left_alone) = sort_out(tree, &all, config);
        // Children before parents: when a parent ends and its process group is orphaned, the kernel wakes the
        // stopped members of it (setpgid(2)), and a member awake could fork.
        targets.sort_by_key(|stat| std::cmp::Reverse((stat.start_ticks, stat.pid)));
        spared.extend(left_alone);
        if targets.is_empty() || stopped.elapsed() > DEADLINE {
            break targets.len();
        }
        for stat in targets {
            let key = tree.key_of(stat);
            let Some(held) = Held::take(&key) else { continue };
            match held.signal(Signal::KILL) {
                Ok(()) => drop(killed.insert(key)),
                Err(errno) => trouble = Some(format!("{} cannot be killed: {errno}", stat.pid)),
            }
        }
        sleep(REST);
    };
    // An empty cgroup that stays frozen would freeze the next service started in it. One that is gone does not.
    let stays_frozen = cgroup
        .filter(|_| left == 0)
        .and_then(|cgroup| Some((cgroup, cgroup.thaw().err()?)))
        .filter(|(cgroup, _)| cgroup.is_frozen());
    let ended = frozen.still.max(killed.len()).saturating_sub(left);
    let mut note = match ended {
        0 if left == 0 => "nothing was left to kill".to_owned(),
        1 => format!("1 process killed in {} ms", begin.elapsed().as_millis()),
        _ => format!("{ended} processes killed in {} ms", begin.elapsed().as_millis()),
    };
    if left > 0 {
        note.push_str(&format!("; {left} did not end within {} s", DEADLINE.as_secs()));
    }
    for reason in spared.values().take(8) {
        note.push_str(&format!("; left alone: {reason}"));
    }
    if let Some((cgroup, error)) = stays_frozen {
        let path = &cgroup.path;
        note.push_str(&format!(
            "; the cgroup {path} stays frozen, and so does what is started in it: {error}"
        ));
    }
    if let (Some(trouble), true) = (trouble, left > 0) {
        note.push_str(&format!("; {trouble}"));
    }
    let state = if left > 0 { ActionState::Failed } else { ActionState::Done };
    Outcome::final_state(state, note)
}
