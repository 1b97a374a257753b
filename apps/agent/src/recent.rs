//! Who held a pid lately, and which programs ran: for the file watcher, whose news come when a short writer is gone already.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

use davy_model::{Event, EventKind, ProcessInfo, ProcessKey};

use crate::shared::lock;

/// Places for pids. Two pids that share a place push each other out, the newer one stays.
const PIDS: usize = 16_384;

/// The most programs remembered. When full, all are forgotten and those that run again come back.
const PROGRAMS: usize = 16_384;

/// What was seen lately.
#[derive(Debug)]
pub(crate) struct Recent {
    pids: Mutex<Box<[Option<ProcessKey>]>>,
    /// Hashes of paths: a chance match means one more deletion told, which harms nobody.
    programs: Mutex<HashSet<u64>>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { pids: Mutex::new(vec![None; PIDS].into_boxed_slice()), programs: Mutex::default() }
    }
}

impl Recent {
    /// Learns from an event; constant work.
    pub(crate) fn learn(&self, event: &Event) {
        match &event.kind {
            EventKind::Fork { child, .. } => self.holds(*child),
            EventKind::Found(info) | EventKind::Exec(info) => self.runs(info),
            _ => {}
        }
    }

    /// Who holds or held the pid last.
    pub(crate) fn holder(&self, pid: u32) -> Option<ProcessKey> {
        lock(&self.pids)[pid as usize % PIDS].filter(|key| key.pid == pid)
    }

    /// Whether a program of this path ran since Davy began to watch.
    pub(crate) fn ran(&self, path: &str) -> bool {
        lock(&self.programs).contains(&hash(path))
    }

    fn holds(&self, key: ProcessKey) {
        lock(&self.pids)[key.pid as usize % PIDS] = Some(key);
    }

    fn runs(&self, info: &ProcessInfo) {
        self.holds(info.key);
        let mut programs = lock(&self.programs);
        if programs.len() >= PROGRAMS {
            programs.clear();
        }
        programs.insert(hash(&info.image.path));
    }
}

fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use davy_model::Timestamp;

    use super::*;

    #[test]
    fn the_newest_holder_of_a_pid_is_known_and_no_other() {
        let recent = Recent::default();
        for start_ticks in [1, 2] {
            let child = ProcessKey { pid: 7, start_ticks, boot: 1 };
            let kind = EventKind::Fork { child, comm: String::new() };
            recent.learn(&Event { time: Timestamp(0), process: None, kind });
        }
        assert_eq!(recent.holder(7).map(|k| k.start_ticks), Some(2));
        assert_eq!(recent.holder(7 + PIDS as u32), None, "another pid in the same place");
    }
}
