//! Counts of system calls. The hook that counts costs every system call of the host a little, so it is attached
//! only while a window is open.

use std::time::{Duration, Instant};

use davy_model::{Event, EventKind, ProcessKey};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object};

use crate::clock::wall_now;
use crate::error::{During, Error, Result};
use crate::program_loads::{OwnPrograms, program_ids};
use crate::{objects, sys};

/// Windows open at once; more are refused. The kernel's map has as many places.
const BOUND: u32 = 16;

/// The longest window.
const LONGEST: Duration = Duration::from_secs(5);

struct Window {
    process: ProcessKey,
    end: Instant,
    cpu_before: u64,
}

/// The counting program and its open windows.
pub(crate) struct SyscallCounter {
    own: OwnPrograms,
    loaded: Option<(Object, MapHandle)>,
    link: Option<Link>,
    windows: Vec<Window>,
}

impl SyscallCounter {
    pub(crate) fn new(own: OwnPrograms) -> Self {
        Self { own, loaded: None, link: None, windows: Vec::new() }
    }

    /// Opens a window on a process, of at most five seconds. A second window on one process is refused.
    pub(crate) fn open(&mut self, process: ProcessKey, time: Duration) -> Result<()> {
        if self.windows.len() >= BOUND as usize {
            return Err(Error::Full { what: "the table of system call windows", bound: BOUND });
        }
        if self.windows.iter().any(|window| window.process.pid == process.pid) {
            return Ok(());
        }
        let gone = || Error::Unsupported(format!("process {process} is gone"));
        if started(process.pid) != Some(process.start_ticks) {
            return Err(gone());
        }
        let cpu_before = sys::cpu_time(process.pid).ok_or_else(gone)?;
        self.load()?;
        if let Some((object, counts)) = &self.loaded {
            counts
                .update(&process.pid.to_ne_bytes(), &0u64.to_ne_bytes(), MapFlags::ANY)
                .during(|| "opening a system call window".to_owned())?;
            if self.link.is_none() {
                self.link = objects::attach_tracing(object)?.pop();
            }
        }
        self.windows.push(Window { process, end: Instant::now() + time.min(LONGEST), cpu_before });
        Ok(())
    }

    /// Closes windows whose time is over, and tells their counts. Without windows the hook is detached.
    pub(crate) fn close_ended(&mut self, out: &mut Vec<Event>) {
        let now = Instant::now();
        let (ended, open) =
            std::mem::take(&mut self.windows).into_iter().partition(|window| window.end <= now);
        self.windows = open;
        for window in ended {
            self.close(&window, out);
        }
        if self.windows.is_empty() {
            self.link = None;
        }
    }

    fn close(&self, window: &Window, out: &mut Vec<Event>) {
        let Some((_, counts)) = &self.loaded else { return };
        let key = window.process.pid.to_ne_bytes();
        let count = counts.lookup(&key, MapFlags::ANY).ok().flatten();
        let count = count.and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
        let _ = counts.delete(&key);
        // A process that ended in its window has no count that means anything.
        let (Some(count), Some(cpu)) = (count, sys::cpu_time(window.process.pid)) else { return };
        let kind = EventKind::Syscalls { count, cpu_ns: cpu.saturating_sub(window.cpu_before) };
        out.push(Event { time: wall_now(), process: Some(window.process), kind });
    }

    fn load(&mut self) -> Result<()> {
        if self.loaded.is_none() {
            let object = self.own.during(
                || objects::load(objects::SYSCALLS.open()?, "system call"),
                |loaded| loaded.as_ref().map(program_ids).unwrap_or_default(),
            )?;
            let counts = objects::map(&object, "counts")?;
            self.loaded = Some((object, counts));
        }
        Ok(())
    }
}

/// Start of a process in clock ticks since boot, field 22 of `/proc/PID/stat`.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
