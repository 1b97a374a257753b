//! BPF programs that others load, noticed by their ids, which the kernel counts upwards.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use davy_model::{CodeAct, Event, EventKind};
use libbpf_rs::{MapCore, Object, ProgramHandle};

use crate::clock::wall_now;
use crate::sys;

/// Programs told of in one look; a flood beyond it is not told.
const BOUND: usize = 64;

/// The ids of Davy's own programs. Held while loading, so that a look never sees one before it is in here.
#[derive(Clone, Default)]
pub(crate) struct OwnPrograms(Arc<Mutex<HashSet<u32>>>);

impl OwnPrograms {
    /// Loads through `load` and remembers what it loaded.
    pub(crate) fn during<T>(&self, load: impl FnOnce() -> T, objects: impl Fn(&T) -> Vec<u32>) -> T {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = load();
        own.extend(objects(&loaded));
        loaded
    }

    fn contains(&self, id: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}

/// Ids of an object's loaded programs.
pub(crate) fn program_ids(object: &Object) -> Vec<u32> {
    use std::os::fd::AsFd;
    object
        .progs()
        .filter(libbpf_rs::Program::autoload)
        .filter_map(|program| libbpf_rs::Program::id_from_fd(program.as_fd()).ok())
        .collect()
}

/// Ids of an object's maps.
pub(crate) fn map_ids(object: &Object) -> Vec<u32> {
    object.maps().filter_map(|map| map.info().ok().map(|info| info.info.id)).collect()
}

/// Looks for programs with ids above the last one seen.
pub(crate) struct ProgramLoads {
    own: OwnPrograms,
    last: u32,
}

impl ProgramLoads {
    /// Begins after the programs that are loaded now.
    pub(crate) fn new(own: OwnPrograms) -> Self {
        let mut last = 0;
        while let Some(next) = sys::next_program_id(last) {
            last = next;
        }
        Self { own, last }
    }

    /// Tells of every program that was loaded since the last look and is still there.
    pub(crate) fn look(&mut self, out: &mut Vec<Event>) {
        let mut told = 0;
        while let Some(id) = sys::next_program_id(self.last) {
            self.last = id;
            if told >= BOUND || self.own.contains(id) {
                continue;
            }
            let Ok(program) = ProgramHandle::from_prog_id(id) else { continue };
            told += 1;
            let act = CodeAct::BpfLoad {
                name: program.name().to_string_lossy().into_owned(),
                program_type: program.prog_type() as u32,
            };
            out.push(Event { time: wall_now(), process: None, kind: EventKind::Code(act) });
        }
    }
}
