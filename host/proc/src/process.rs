//! Everything known of one process, put together from its folder in /proc.

use std::collections::HashMap;

use davy_model::{Credentials, Namespaces, ProcessInfo, ProcessKey};

use crate::cgroup::{self, Ids, MAX_MOUNTINFO};
use crate::environ::{self, MAX_ARGS_BYTES, MAX_ENVIRON};
use crate::procfs::{ProcFs, ProcessFolder};
use crate::stat::Stat;
use crate::status::parse_status;
use crate::{image, terminal};

/// "No login" and "no session" in `loginuid` and `sessionid`.
const UNSET: u32 = u32::MAX;

/// Reads processes one after the other, remembering what they share.
#[derive(Debug)]
pub(crate) struct Reader<'p> {
    proc: &'p ProcFs,
    cgroups: Ids,
    keys: HashMap<u32, ProcessKey>,
}

impl<'p> Reader<'p> {
    pub(crate) fn new(proc: &'p ProcFs) -> Self {
        let mountinfo = proc.file("self/mountinfo", MAX_MOUNTINFO).unwrap_or_default();
        Self { proc, cgroups: Ids::new(&mountinfo), keys: HashMap::new() }
    }

    pub(crate) fn read(&mut self, pid: u32) -> Option<ProcessInfo> {
        let folder = self.proc.open(pid)?;
        let stat = folder.stat()?;
        Some(self.describe(&folder, stat))
    }

    /// Describes a process whose stat was read already.
    pub(crate) fn describe(&mut self, folder: &ProcessFolder, stat: Stat) -> ProcessInfo {
        let key = self.proc.key_of(&stat);
        self.keys.insert(key.pid, key);
        let parent = self.parent(&key, stat.parent);
        let member =
            folder.text("cgroup", 64 * 1024).map(|text| cgroup::membership(&text)).unwrap_or_default();
        let cgroup_id = if member.unified { self.cgroups.id(&member.path) } else { 0 };
        let (args, args_cut) = environ::args(&folder.file("cmdline", MAX_ARGS_BYTES + 1).unwrap_or_default());
        let environ = if stat.kernel_thread { None } else { folder.file("environ", MAX_ENVIRON) };
        ProcessInfo {
            key,
            parent,
            comm: stat.comm,
            image: image::read(folder),
            args,
            args_cut,
            env: environ.map(|bytes| environ::of_interest(&bytes)).unwrap_or_default(),
            cwd: folder.link("cwd").unwrap_or_default(),
            creds: credentials(folder),
            tty: terminal::name(stat.tty),
            cgroup: member.path,
            cgroup_id,
            container: member.container,
            ns: namespaces(folder),
            kernel_thread: stat.kernel_thread,
        }
    }

    /// The parent's key. A parent that began after its child is another process with a reused pid.
    fn parent(&mut self, child: &ProcessKey, pid: u32) -> Option<ProcessKey> {
        if pid == 0 {
            return None;
        }
        let known = self.keys.get(&pid).copied();
        let key = known.or_else(|| self.proc.key(pid))?;
        self.keys.insert(pid, key);
        (key.start_ticks <= child.start_ticks).then_some(key)
    }
}

impl ProcFs {
    /// Every process running now, at most [`crate::MAX_PROCESSES`].
    #[must_use]
    pub fn list(&self) -> Vec<ProcessInfo> {
        let mut reader = Reader::new(self);
        self.pids().into_iter().filter_map(|pid| reader.read(pid)).collect()
    }

    /// One process, when it is there and its start can be read.
    #[must_use]
    pub fn read(&self, pid: u32) -> Option<ProcessInfo> {
        Reader::new(self).read(pid)
    }
}

fn credentials(folder: &ProcessFolder) -> Credentials {
    let status = folder.file("status", 16 * 1024).map(|text| parse_status(&text)).unwrap_or_default();
    let set = |path| folder.number::<u32>(path).filter(|id| *id != UNSET);
    Credentials {
        uid: status.uid.0,
        euid: status.uid.1,
        gid: status.gid,
        caps: status.caps,
        login_uid: set("loginuid"),
        session: set("sessionid"),
    }
}

fn namespaces(folder: &ProcessFolder) -> Namespaces {
    let inode = |path| folder.link(path).and_then(|link| namespace(&link)).unwrap_or(0);
    Namespaces { pid: inode("ns/pid"), mnt: inode("ns/mnt"), net: inode("ns/net"), user: inode("ns/user") }
}

/// The number in a link such as `net:[4026531840]`.
pub(crate) fn namespace(link: &str) -> Option<u64> {
    link.split_once(":[")?.1.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn namespaces_have_their_number() {
        assert_eq!(namespace("net:[4026531840]"), Some(4_026_531_840));
        for odd in ["", "net:4026531840", "net:[x]", "net:[1", "net"] {
            assert_eq!(namespace(odd), None);
        }
    }

    #[test]
    fn odd_processes_are_described_as_far_as_they_can_be() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir_all(at("9/ns")).unwrap();
        std::fs::create_dir(at("1")).unwrap();
        let stat = |pid: u32, name: &str, parent: u32, start: u64| {
            format!("{pid} ({name}) S {parent} 0 0 34817 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0")
        };
        std::fs::write(at("9/stat"), stat(9, ") S 1 (\n", 1, 50)).unwrap();
        // The parent began after its child: its pid was reused.
        std::fs::write(at("1/stat"), stat(1, "late", 0, 60)).unwrap();
        std::fs::write(at("9/cmdline"), b"\xff\xfe\0--x\0".repeat(3000)).unwrap();
        std::fs::write(at("9/environ"), b"=\0LD_PRELOAD\0LD_PRELOAD=/a\xff\0").unwrap();
        std::fs::write(at("9/status"), "Uid:\t7\t8\t8\t8\nGid:\nCapEff:\tzz\n").unwrap();
        std::fs::write(at("9/loginuid"), "4294967295").unwrap();
        std::fs::write(at("9/sessionid"), "12\n").unwrap();
        std::fs::write(at("9/cgroup"), "nonsense\n0::/a:b/c\n").unwrap();
        symlink("net:[77]", at("9/ns/net")).unwrap();
        symlink("/memfd:x (deleted)", at("9/exe")).unwrap();
        let proc = ProcFs::at(root.path()).unwrap();
        let all = proc.list();
        assert_eq!(all.len(), 2);
        let odd = all.iter().find(|p| p.key.pid == 9).unwrap();
        assert_eq!((odd.comm.as_str(), odd.parent, odd.tty.as_deref()), (") S 1 (\n", None, Some("pts/1")));
        assert!(odd.args_cut && odd.args.len() <= 256 && odd.args[1] == "--x");
        assert_eq!(odd.env, vec![("LD_PRELOAD".to_owned(), "/a\u{fffd}".to_owned())]);
        assert_eq!((odd.creds.uid, odd.creds.euid, odd.creds.gid, odd.creds.caps), (7, 8, 0, 0));
        assert_eq!((odd.creds.login_uid, odd.creds.session), (None, Some(12)));
        assert_eq!((odd.cgroup.as_str(), odd.ns.net, odd.ns.pid), ("/a:b/c", 77, 0));
        assert_eq!(odd.image.kind, davy_model::ImageKind::Memfd);
    }
}
