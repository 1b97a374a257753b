//! Protection of the agent by security hooks, where the kernel takes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use davy_model::{FileId, ProcessKey, Timestamp};
use libbpf_rs::btf::ReferencesType as _;
use libbpf_rs::btf::types::{Func, FuncProto};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object};
use rustix::fs::stat;
use zerocopy::IntoBytes;

use crate::abi::{FileKey, Settings};
use crate::error::{During, Error, Result};
use crate::objects;

/// What is to be protected from everyone outside the agent's cgroup.
#[derive(Clone, Debug, Default)]
pub struct SelfGuard {
    /// Process ids of the agent and its workers: not to be signalled or traced.
    pub processes: Vec<u32>,
    /// The agent's cgroup v2 directory. Its members, those of cgroups below it, and the first process are let through.
    pub cgroup: PathBuf,
    /// Files not to be changed, and folders in which nothing is to be made, renamed, removed, or given other attributes.
    pub files: Vec<FileId>,
    /// Folders of which, beyond that, no file is to be written, those that are made later included.
    pub folders: Vec<FileId>,
}

/// An act that was refused because it was aimed at Davy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When.
    pub time: Timestamp,
    /// Who tried.
    pub process: ProcessKey,
    /// What.
    pub act: RefusedAct,
}

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedAct {
    /// This signal to one of the agent's processes.
    Signal(u8),
    /// Tracing one, or opening its memory.
    Trace,
    /// Changing, renaming or removing a protected file.
    FileChange,
    /// Taking hold of one of Davy's programs, maps or links.
    BpfAccess,
}

/// Kernel ids of objects that belong to Davy.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObjectIds {
    pub(crate) programs: Vec<u32>,
    pub(crate) maps: Vec<u32>,
    pub(crate) links: Vec<u32>,
}

impl ObjectIds {
    pub(crate) fn extend(&mut self, other: Self) {
        self.programs.extend(other.programs);
        self.maps.extend(other.maps);
        self.links.extend(other.links);
    }

    /// Keys of the kernel's table: the kind in the high word, the id in the low one.
    fn keys(&self) -> impl Iterator<Item = u64> {
        let of =
            |kind: u64, ids: &[u32]| ids.iter().map(|id| (kind << 32) | u64::from(*id)).collect::<Vec<_>>();
        of(1, &self.programs).into_iter().chain(of(2, &self.maps)).chain(of(3, &self.links))
    }
}

/// Programs that only watch; the others guard.
const SENSORS: [&str; 2] = ["on_trace", "on_protect"];

/// The probe's own program.
const CANARY: &str = "canary_open";

/// Guards pins, and costs every question for a capability a little: attached while something is pinned.
const PINS: &str = "guard_pin";

/// Programs for hooks that kernels have in several forms, or not at all: the hook, and with how many arguments.
const BY_FORM: [(&str, &str, usize); 7] = [
    ("guard_setattr", "inode_setattr", 3),
    ("guard_setattr_before_6_9", "inode_setattr", 2),
    ("guard_setxattr", "inode_setxattr", 6),
    ("guard_removexattr", "inode_removexattr", 3),
    ("guard_set_acl", "inode_set_acl", 4),
    ("guard_remove_acl", "inode_remove_acl", 3),
    ("guard_ioctl_compat", "file_ioctl_compat", 3),
];

/// Values of the kernel's table of files; the kernel's side has the same.
const ITSELF: u32 = 1;
const CONTENTS: u32 = 2;

/// The security programs: watching from the start, guarding once told what.
pub(crate) struct Hooks {
    object: Object,
    sensors: Vec<Link>,
    guards: Vec<Link>,
    pins: Option<Link>,
    /// What is guarded now.
    guard: Option<SelfGuard>,
    /// The enforcing programs, and the files that pin them, by what they are for.
    enforcing: BTreeMap<&'static str, (ObjectIds, Vec<FileId>)>,
    /// Everything else of Davy's.
    sensing: ObjectIds,
    cgroup2: PathBuf,
}

impl Hooks {
    /// Loads every hook that this kernel has, and attaches those that watch.
    pub(crate) fn start(settings: &Settings, shared: &[MapHandle]) -> Result<Self> {
        let mut object = objects::PROTECT.open()?;
        objects::configure(&mut object, settings)?;
        objects::share(&mut object, shared)?;
        let unfit = unfit();
        objects::select(&mut object, |name| name != CANARY && !unfit.contains(&name));
        let object = objects::load(object, "security")?;
        let sensors = objects::attach_named(&object, |name| SENSORS.contains(&name))?;
        Ok(Self {
            object,
            sensors,
            guards: Vec::new(),
            pins: None,
            guard: None,
            enforcing: BTreeMap::new(),
            sensing: ObjectIds::default(),
            cgroup2: PathBuf::new(),
        })
    }

    fn ids(&self) -> ObjectIds {
        let links = self.sensors.iter().chain(&self.guards).chain(&self.pins);
        ObjectIds {
            programs: crate::program_loads::program_ids(&self.object),
            maps: crate::program_loads::map_ids(&self.object),
            links: links.filter_map(|link| link.info().ok().map(|info| info.id)).collect(),
        }
    }

    /// Fills the tables first and switches the guard on last.
    pub(crate) fn guard(&mut self, guard: &SelfGuard, sensing: ObjectIds, cgroup2: &Path) -> Result<()> {
        if stat(&guard.cgroup).during(|| format!("looking at {}", guard.cgroup.display()))?.st_ino
            == stat(cgroup2).during(|| format!("looking at {}", cgroup2.display()))?.st_ino
        {
            return Err(Error::Unsupported(
                "the agent runs in the root cgroup, so nobody is outside its cgroup; start it as a service"
                    .to_owned(),
            ));
        }
        self.guard = Some(guard.clone());
        self.sensing = sensing;
        self.cgroup2 = cgroup2.to_owned();
        self.fill()
    }

    /// Guards these enforcing programs instead of those that were for the same before, and the files that pin them.
    pub(crate) fn guard_enforcing(
        &mut self,
        what: &'static str,
        ids: ObjectIds,
        pins: Vec<FileId>,
    ) -> Result<()> {
        self.enforcing.insert(what, (ids, pins));
        self.fill()
    }

    fn fill(&mut self) -> Result<()> {
        let Some(guard) = self.guard.clone() else { return Ok(()) };
        self.put("guarded_processes", guard.processes.iter().map(|pid| (pid.to_ne_bytes().to_vec(), 1)))?;
        let files = guard.files.iter().copied().chain(control_files(&guard.cgroup, &self.cgroup2)?);
        let pins: Vec<FileId> = self.enforcing.values().flat_map(|(_, pins)| pins).copied().collect();
        let files = files.chain(pins.iter().copied()).map(|file| (file, ITSELF));
        let folders = guard.folders.iter().map(|folder| (*folder, CONTENTS));
        let entry = |(file, guard): (FileId, u32)| (file_key(file).as_bytes().to_vec(), guard);
        self.put("guarded_files", files.chain(folders).map(entry))?;
        if self.guards.is_empty() {
            self.guards = objects::attach_named(&self.object, |name| {
                !SENSORS.contains(&name) && name != CANARY && name != PINS
            })?;
        }
        if pins.is_empty() {
            self.pins = None;
        } else if self.pins.is_none() {
            self.pins = objects::attach_named(&self.object, |name| name == PINS)?.pop();
        }
        let mut ids = self.sensing.clone();
        self.enforcing.values().for_each(|(enforcing, _)| ids.extend(enforcing.clone()));
        ids.extend(self.ids());
        self.put("guarded_objects", ids.keys().map(|key| (key.to_ne_bytes().to_vec(), 1)))?;
        let cgroup = crate::cgroup_id(&guard.cgroup)?;
        objects::map(&self.object, "guard_cgroup")?
            .update(&0u32.to_ne_bytes(), &cgroup.to_ne_bytes(), MapFlags::ANY)
            .during(|| "switching the guard on".to_owned())
    }

    /// Replaces a table's contents.
    fn put(&self, table: &'static str, entries: impl Iterator<Item = (Vec<u8>, u32)>) -> Result<()> {
        let map = objects::map(&self.object, table)?;
        let old: Vec<Vec<u8>> = map.keys().collect();
        let new: Vec<(Vec<u8>, u32)> = entries.collect();
        if new.len() > map.max_entries() as usize {
            return Err(Error::Full { what: table, bound: map.max_entries() });
        }
        for key in old.iter().filter(|key| !new.iter().any(|(wanted, _)| wanted == *key)) {
            let _ = map.delete(key);
        }
        for (key, value) in new {
            map.update(&key, &value.to_ne_bytes(), MapFlags::ANY).during(|| format!("filling {table}"))?;
        }
        Ok(())
    }
}

/// The programs whose hook the running kernel does not have in their form.
fn unfit() -> Vec<&'static str> {
    let kernel = libbpf_rs::btf::Btf::from_vmlinux();
    let arguments = |hook: &str| {
        let function = kernel.as_ref().ok()?.type_by_name::<Func<'_>>(&format!("bpf_lsm_{hook}"))?;
        Some(FuncProto::try_from(function.referenced_type()).ok()?.len())
    };
    let unfit = BY_FORM.iter().filter(|(_, hook, wanted)| arguments(hook) != Some(*wanted));
    unfit.map(|(program, ..)| *program).collect()
}

/// The agent's cgroup, below which someone could make one, and files through which they could join it, or end or freeze it
/// and those above it.
fn control_files(cgroup: &Path, root: &Path) -> Result<Vec<FileId>> {
    let mut files = Vec::new();
    let mut add = |path: PathBuf| {
        if let Ok(found) = stat(&path) {
            files.push(FileId { dev: found.st_dev, ino: found.st_ino });
        }
    };
    for name in ["", "cgroup.procs", "cgroup.threads"] {
        add(cgroup.join(name));
    }
    for above in cgroup.ancestors().take_while(|path| *path != root && path.starts_with(root)) {
        for name in ["cgroup.kill", "cgroup.freeze"] {
            add(above.join(name));
        }
    }
    if files.is_empty() {
        return Err(Error::Unsupported(format!("{} is not a cgroup v2 directory", cgroup.display())));
    }
    Ok(files)
}

/// The kernel's own device number has 20 bits of minor.
pub(crate) fn file_key(file: FileId) -> FileKey {
    let major = (file.dev >> 8) & 0xfff;
    let minor = (file.dev & 0xff) | ((file.dev >> 12) & 0xf_ff00);
    FileKey { ino: file.ino, dev: (major << 20) | minor }
}

/// The identity of a file by the kernel's own numbers.
pub(crate) fn file_id(key: FileKey) -> FileId {
    let (major, minor) = (key.dev >> 20, key.dev & 0xf_ffff);
    FileId { dev: (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12), ino: key.ino }
}

/// Denies one file to this process through a hook and looks whether it is denied: the probe.
pub(crate) fn canary() -> Result<bool> {
    let mut object = objects::PROTECT.open()?;
    objects::select(&mut object, |name| name == CANARY);
    let object = objects::load(object, "security")?;
    let links = objects::attach_named(&object, |name| name == CANARY)?;
    let file = rustix::fs::memfd_create("davy-canary", rustix::fs::MemfdFlags::CLOEXEC)
        .during(|| "making a file to be denied".to_owned())?;
    let found = rustix::fs::fstat(&file).during(|| "looking at the file to be denied".to_owned())?;
    let key = file_key(FileId { dev: found.st_dev, ino: found.st_ino });
    objects::map(&object, "canary")?
        .update(key.as_bytes(), &std::process::id().to_ne_bytes(), MapFlags::ANY)
        .during(|| "denying a file".to_owned())?;
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let denied = std::fs::File::open(&path).is_err_and(|error| error.raw_os_error() == Some(libc::EPERM));
    drop(links);
    Ok(denied && std::fs::File::open(&path).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_the_kernels() {
        let key = file_key(FileId { dev: (8 << 8) | 1, ino: 5 });
        assert_eq!((key.dev, key.ino), ((8 << 20) | 1, 5));
        // Minor 0x12345 is split around the major in st_dev.
        let key = file_key(FileId { dev: (0x123 << 20) | (8 << 8) | 0x45, ino: 5 });
        assert_eq!(key.dev, (8 << 20) | 0x12345);
        assert_eq!(file_id(key), FileId { dev: (0x123 << 20) | (8 << 8) | 0x45, ino: 5 });
    }
}
