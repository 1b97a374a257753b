use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use davy_model::{Event, ProcessKey};
use rustix::event::EventfdFlags;

use crate::sieve::Sieve;
use crate::tally::Tally;
use crate::{fanotify, inotify};

/// Which file systems are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSystems {
    /// Every local one that can be written, also those mounted later.
    Host,
    /// Only those mounted at these points (fanotify), or these folders (inotify).
    At(Vec<PathBuf>),
}

/// How the file system is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Whole file systems, with the process that acted: needs CAP_SYS_ADMIN and kernel 5.9.
    Fanotify,
    /// The readable persistence places and drop folders only, without the process.
    Inotify,
}

/// What to watch and whom to ask.
pub struct WatchConfig {
    /// The boot, for process keys.
    pub boot: u32,
    /// Which file systems.
    pub file_systems: FileSystems,
    /// At most so many file systems are marked; on a host with more, those with the shortest mount points.
    pub max_marks: usize,
    /// At most so many events a second are given for one process; as many again for persistence places.
    pub per_process: u32,
    /// The way to use; `None` for the best that works.
    pub way: Option<Way>,
    /// Who held a pid, asked when the process is gone by the time its event is read.
    pub resolve: Box<dyn Fn(u32) -> Option<ProcessKey> + Send>,
    /// Whether a path is a program that runs now, so that its deletion is told.
    pub is_program: Box<dyn Fn(&str) -> bool + Send>,
}

impl WatchConfig {
    /// The whole host, with nobody to ask but /proc.
    #[must_use]
    pub fn new(boot: u32) -> Self {
        Self {
            boot,
            file_systems: FileSystems::Host,
            max_marks: 256,
            per_process: 200,
            way: None,
            resolve: Box::new(|_| None),
            is_program: Box::new(|_| false),
        }
    }

    /// Who holds a pid, or held it last.
    pub(crate) fn key(&self, pid: u32) -> Option<ProcessKey> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok();
        let start_ticks = stat.and_then(|stat| start_ticks(&stat));
        start_ticks
            .map(|start_ticks| ProcessKey { pid, start_ticks, boot: self.boot })
            .or_else(|| (self.resolve)(pid))
    }
}

impl fmt::Debug for WatchConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchConfig")
            .field("file_systems", &self.file_systems)
            .field("max_marks", &self.max_marks)
            .field("per_process", &self.per_process)
            .field("way", &self.way)
            .finish_non_exhaustive()
    }
}

/// Field 22 of proc_pid_stat(5), counted from behind the name's last bracket.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let close = stat.iter().rposition(|b| *b == b')')?;
    std::str::from_utf8(&stat[close + 1..]).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Why nothing can be watched.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// fanotify was asked for alone and refused.
    #[error("fanotify: {0}; it needs CAP_SYS_ADMIN and Linux 5.9")]
    Fanotify(std::io::Error),
    /// Not even inotify works.
    #[error("inotify: {0}")]
    Inotify(std::io::Error),
    /// No thread or descriptor is to be had.
    #[error("starting the watching thread: {0}")]
    Thread(std::io::Error),
}

/// Watches until it is stopped or dropped; then every mark and watch is gone.
#[derive(Debug)]
pub struct Watcher {
    way: Way,
    tally: Arc<Tally>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts watching in a thread of its own, which calls `sink` for every event. Marks stand when it returns.
    ///
    /// # Errors
    /// When neither way works, or the one asked for does not.
    pub fn start(config: WatchConfig, sink: Box<dyn FnMut(Event) + Send>) -> Result<Self, StartError> {
        let tally = Arc::new(Tally::default());
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = Arc::new(stop.map_err(|e| StartError::Thread(e.into()))?);
        let listener = match config.way {
            Some(Way::Inotify) => None,
            wanted => {
                match fanotify::Listener::start(config.file_systems.clone(), config.max_marks, tally.clone())
                {
                    Ok(listener) => Some(listener),
                    Err(error) if wanted == Some(Way::Fanotify) => return Err(StartError::Fanotify(error)),
                    Err(error) => {
                        tally.note(format!("files: fanotify does not work ({error}); persistence places are watched by inotify"));
                        None
                    }
                }
            }
        };
        let way = if listener.is_some() { Way::Fanotify } else { Way::Inotify };
        let folders = match listener {
            Some(_) => None,
            None => Some(inotify::Folders::start(&config.file_systems, &tally).map_err(StartError::Inotify)?),
        };
        let mut sieve = Sieve::new(config, tally.clone(), sink);
        let stopped = stop.clone();
        let work = move || {
            if let Some(listener) = listener {
                listener.run(&stopped, &mut sieve);
            } else if let Some(folders) = folders {
                folders.run(&stopped, &mut sieve);
            }
        };
        let thread =
            std::thread::Builder::new().name("davy-files".into()).spawn(work).map_err(StartError::Thread)?;
        Ok(Self { way, tally, stop, thread: Some(thread) })
    }

    /// How it watches.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// What was lost since the start, by kind; empty is good.
    #[must_use]
    pub fn drops(&self) -> Vec<(String, u64)> {
        self.tally.drops()
    }

    /// What cannot be watched and why, in plain words.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.tally.notes()
    }

    /// Stops; when it returns, no mark is left and the sink is called no more.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::start_ticks;
    use proptest::prelude::*;

    #[test]
    fn the_start_is_behind_whatever_name() {
        let stat = b"9 (a) R 1 (b\n) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_ticks(stat), Some(4711));
        assert_eq!(start_ticks(b"9 (a"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = start_ticks(&bytes);
        }
    }
}
