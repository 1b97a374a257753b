//! What /proc says of the processes that run now.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use davy_model::{FileId, ProcessKey};
use rustix::fs::stat;

/// `PF_KTHREAD` of the kernel's task flags (include/linux/sched.h), field 9 of proc_pid_stat(5).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// A line of `/proc/PID/stat`, as far as it is needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: u32,
    pub(crate) comm: String,
    pub(crate) state: u8,
    pub(crate) parent: u32,
    pub(crate) session: u32,
    pub(crate) tty: u64,
    pub(crate) kernel_thread: bool,
    pub(crate) start_ticks: u64,
}

impl Stat {
    /// Parses one line; `None` when it is not one.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        // The name stands in brackets and may itself hold brackets and spaces, so the last bracket ends it.
        let (pid, rest) = line.split_once(" (")?;
        let (comm, rest) = rest.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse::<i64>().ok()?;
        let tty = fields.next()?.parse::<i64>().ok()?;
        let flags: u64 = fields.nth(1)?.parse().ok()?;
        // Fields 10 to 21 lie between the flags and the start time.
        let start_ticks = fields.nth(12)?.parse().ok()?;
        Some(Self {
            pid: pid.parse().ok()?,
            comm: comm.to_owned(),
            state,
            parent,
            session: u32::try_from(session).unwrap_or(0),
            tty: u64::try_from(tty).unwrap_or(0),
            kernel_thread: flags & KERNEL_THREAD != 0,
            start_ticks,
        })
    }

    /// The process that has this pid now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(&text(format!("/proc/{pid}/stat"))?)
    }

    pub(crate) fn key(&self, boot: u32) -> ProcessKey {
        ProcessKey { pid: self.pid, start_ticks: self.start_ticks, boot }
    }

    /// Whether it has ended and only waits to be collected.
    pub(crate) fn ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Whether a signal or a tracer has stopped it.
    pub(crate) fn stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }
}

/// A file of /proc as text. A process can give itself any bytes for a name, and must not become invisible by one
/// that is no text.
fn text(path: impl AsRef<Path>) -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned())
}

/// All processes of one look at /proc, by pid.
pub(crate) fn snapshot() -> HashMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, Stat::of(pid)?))).collect()
}

/// Whether every thread of a process is stopped or ended.
pub(crate) fn all_threads_rest(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    tasks.flatten().all(|task| {
        text(task.path().join("stat"))
            .and_then(|line| Stat::parse(&line))
            .is_none_or(|thread| thread.stopped() || thread.ended())
    })
}

/// This boot, as in [`ProcessKey::boot`].
pub(crate) fn boot() -> u32 {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|id| u32::from_str_radix(id.get(..8)?, 16).ok())
        .unwrap_or(0)
}

/// The effective user id.
pub(crate) fn effective_uid(pid: u32) -> Option<u32> {
    let status = text(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether orphans are handed to this process: the first of a pid namespace, or systemd for a user.
pub(crate) fn takes_orphans(pid: u32) -> bool {
    let status = text(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    pid == 1
        || field("NSpid:").is_some_and(|pids| pids.split_ascii_whitespace().next_back() == Some("1"))
        || (field("Name:") == Some("systemd"))
}

/// The program's file, and the path the kernel has for it.
pub(crate) fn image(pid: u32) -> Option<(FileId, PathBuf)> {
    let link = format!("/proc/{pid}/exe");
    let path = fs::read_link(&link).ok()?;
    Some((file_id(Path::new(&link))?, path))
}

/// The identity of the file a path leads to.
pub(crate) fn file_id(path: &Path) -> Option<FileId> {
    let stat = stat(path).ok()?;
    Some(FileId { dev: stat.st_dev, ino: stat.st_ino })
}

/// All cgroups of a process, of every hierarchy (cgroups(7)).
pub(crate) fn cgroups(pid: u32) -> Option<String> {
    text(format!("/proc/{pid}/cgroup"))
}

/// The cgroup v2 path below the mount.
pub(crate) fn cgroup(pid: u32) -> Option<String> {
    cgroups(pid)?.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_full_of_brackets_is_no_trap() {
        let line = "4711 (a) S 1 (b)) T 12 4711 4710 34816 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let stat = Stat::parse(line).expect("a line");
        assert_eq!((stat.pid, stat.comm.as_str(), stat.state), (4711, "a) S 1 (b)", b'T'));
        assert_eq!((stat.parent, stat.session, stat.tty, stat.start_ticks), (12, 4710, 34816, 987_654));
        assert!(!stat.kernel_thread && stat.stopped());
    }

    #[test]
    fn own_line_is_read() {
        let stat = Stat::of(std::process::id()).expect("this process runs");
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(stat.start_ticks > 0 && !stat.kernel_thread);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(line in "\\PC{0,200}") {
            let _ = Stat::parse(&line);
        }

        #[test]
        fn nearly_right_lines_are_survived(
            comm in "[()a-z \n]{0,15}", fields in prop::collection::vec("-?[0-9]{1,21}", 0..60),
        ) {
            let _ = Stat::parse(&format!("1 ({comm}) S {}", fields.join(" ")));
        }
    }
}
