//! inotify(7) on the persistence places that can be read, for a Davy without root.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use rustix::io::Errno;

use crate::sieve::{Act, Sieve};
use crate::tally::Tally;
use crate::watcher::FileSystems;

/// At most so many folders are watched.
const MAX_FOLDERS: usize = 1024;

/// At most so many homes are looked into.
const MAX_HOMES: usize = 128;

/// How often it is looked whether folders appeared.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Folders that hold persistence places, and those where droppers drop.
const FOLDERS: &[&str] = &[
    "/etc",
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/cron.hourly",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/etc/init.d",
    "/etc/ld.so.conf.d",
    "/etc/modprobe.d",
    "/etc/modules-load.d",
    "/etc/pam.d",
    "/etc/profile.d",
    "/etc/ssh",
    "/etc/sudoers.d",
    "/etc/systemd/system",
    "/etc/systemd/system/multi-user.target.wants",
    "/etc/systemd/user",
    "/usr/lib/systemd/system",
    "/usr/local/lib/systemd/system",
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
    "/tmp",
    "/var/tmp",
    "/dev/shm",
];

/// The same below a home.
const HOME_FOLDERS: &[&str] = &[
    "",
    ".ssh",
    ".config/systemd/user",
    ".local/share/systemd/user",
    ".config/fish",
    ".config/environment.d",
];

/// Watched folders.
#[derive(Debug)]
pub(crate) struct Folders {
    queue: OwnedFd,
    watched: HashMap<i32, PathBuf>,
    wanted: FileSystems,
    tally: Arc<Tally>,
}

impl Folders {
    pub(crate) fn start(wanted: &FileSystems, tally: &Arc<Tally>) -> io::Result<Self> {
        let queue = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut folders =
            Self { queue, watched: HashMap::new(), wanted: wanted.clone(), tally: tally.clone() };
        folders.watch_new();
        let unreadable = folders.folders().into_iter().filter(|f| f.exists() && !folders.watches(f)).count();
        if unreadable > 0 {
            tally.note(format!(
                "files: {unreadable} persistence folders cannot be read by this user and are not watched"
            ));
        }
        Ok(folders)
    }

    fn watches(&self, folder: &Path) -> bool {
        self.watched.values().any(|watched| watched == folder)
    }

    fn watch_new(&mut self) {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::ONLYDIR;
        for folder in self.folders() {
            if self.watches(&folder) {
                continue;
            }
            if self.watched.len() >= MAX_FOLDERS {
                self.tally.note(format!("files: more than {MAX_FOLDERS} folders; the rest is not watched"));
                return;
            }
            if let Ok(watch) = add_watch(&self.queue, &folder, flags) {
                self.watched.insert(watch, folder);
            }
        }
    }

    fn folders(&self) -> Vec<PathBuf> {
        if let FileSystems::At(folders) = &self.wanted {
            return folders.clone();
        }
        let homes = std::fs::read_dir("/home").into_iter().flatten().map_while(Result::ok).take(MAX_HOMES);
        let homes = homes.map(|home| home.path()).chain(["/root".into()]);
        let below = homes.flat_map(|home| HOME_FOLDERS.iter().map(move |folder| home.join(folder)));
        FOLDERS.iter().map(PathBuf::from).chain(below).collect()
    }

    /// Listens until `stop` becomes readable.
    pub(crate) fn run(mut self, stop: &OwnedFd, sieve: &mut Sieve) {
        let mut buffer = vec![MaybeUninit::uninit(); 64 * 1024];
        let mut looked = Instant::now();
        loop {
            let patience = Timespec { tv_sec: LOOK_AGAIN.as_secs() as i64, tv_nsec: 0 };
            let mut waits = [PollFd::new(stop, PollFlags::IN), PollFd::new(&self.queue, PollFlags::IN)];
            let _ = poll(&mut waits, Some(&patience));
            if !waits[0].revents().is_empty() {
                for watch in self.watched.keys() {
                    let _ = remove_watch(&self.queue, *watch);
                }
                return;
            }
            if looked.elapsed() >= LOOK_AGAIN {
                self.watch_new();
                looked = Instant::now();
            }
            let (mut gone, now) = (Vec::new(), Instant::now());
            let mut reader = Reader::new(&self.queue, &mut buffer);
            loop {
                let event = match reader.next() {
                    Ok(event) => event,
                    Err(Errno::INTR) => continue,
                    Err(_) => break,
                };
                let flags = event.events();
                if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                    Tally::count(&self.tally.overflows);
                }
                if flags.contains(ReadFlags::IGNORED) {
                    gone.push(event.wd());
                }
                let (Some(folder), Some(name)) = (self.watched.get(&event.wd()), event.file_name()) else {
                    continue;
                };
                if let Some(act) = act(flags) {
                    let path = folder.join(name.to_string_lossy().as_ref());
                    sieve.take(&path.to_string_lossy(), &act, 0, now);
                }
            }
            gone.iter().for_each(|watch| drop(self.watched.remove(watch)));
        }
    }
}

fn act(flags: ReadFlags) -> Option<Act> {
    let acts = [
        (ReadFlags::MOVED_TO, Act::Renamed { from: None }),
        (ReadFlags::CLOSE_WRITE, Act::Written),
        (ReadFlags::DELETE, Act::Deleted),
        (ReadFlags::ATTRIB, Act::Attributes),
        (ReadFlags::CREATE, Act::Linked),
    ];
    if flags.contains(ReadFlags::ISDIR) {
        return None;
    }
    acts.into_iter().find(|(flag, _)| flags.contains(*flag)).map(|(_, act)| act)
}
