//! What was loaded is gone when the sensors are.
#![allow(clippy::unwrap_used, missing_docs)]

mod live;

use std::collections::BTreeSet;
use std::time::Duration;

use davy_model::Capability;
use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};
use live::Live;

/// Davy's programs, maps and links by kernel id, told by the maps that every object of Davy's has or by name.
fn loaded() -> (BTreeSet<u32>, BTreeSet<u32>, BTreeSet<u32>) {
    let programs = ProgInfoIter::default().map(|program| program.id).collect();
    let maps = MapInfoIter::default().map(|map| map.id).collect();
    let links = LinkInfoIter::default().map(|link| link.id).collect();
    (programs, maps, links)
}

#[test]
fn everything_is_detached() {
    if !live::have(&[Capability::Tracing]) {
        return;
    }
    // Other tests of this machine may load programs meanwhile, so ids are compared, not counted.
    let before = loaded();
    let live = Live::start(&[Capability::Tracing]).unwrap();
    let during = loaded();
    let ours: BTreeSet<u32> = names().into_iter().collect();
    let new: Vec<u32> = during.0.difference(&before.0).copied().filter(|id| ours.contains(id)).collect();
    assert!(new.len() >= 5, "{} programs", new.len());
    assert!(during.2.len() > before.2.len());
    drop(live);
    // The kernel frees programs after a grace period.
    let mut left = Vec::new();
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(100));
        let after = loaded();
        left = new.iter().copied().filter(|id| after.0.contains(id)).collect();
        if left.is_empty() {
            return;
        }
    }
    panic!("programs {left:?} are still loaded");
}

/// Ids of programs with Davy's names that this process loaded now.
fn names() -> Vec<u32> {
    let known =
        ["on_fork", "on_exec", "on_exit", "on_rename", "on_signal", "on_state", "on_sent", "on_received"];
    ProgInfoIter::default()
        .filter(|program| known.iter().any(|name| program.name.to_string_lossy() == *name))
        .map(|program| program.id)
        .collect()
}
