use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use davy_model::{CodeKind, FileId, Sha256};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object};
use zerocopy::{FromBytes, IntoBytes};

use super::digests::{Digests, Saying};
use super::modes::{KINDS, TrustModes, TrustScope};
use super::pins;
use crate::abi;
use crate::error::{During, Error, Result};
use crate::guard::{ObjectIds, file_key};
use crate::objects;
use crate::program_loads::{OwnPrograms, map_ids, program_ids};
use crate::sensors::{Sensors, per_cpu_sum};

/// As `enum trust_mode`.
const MODE_READ: u8 = 3;

/// How the gate is to run.
#[derive(Clone, Debug)]
pub struct TrustConfig {
    /// Digests that have room, at most 16,777,216. Each takes some 150 bytes of the kernel's memory.
    pub digests: u32,
    /// Files whose content is remembered; the least recently used are forgotten and read again.
    pub files: u32,
    /// A folder of its own in a BPF file system: what an earlier gate kept there is taken over, and [`TrustGate::pin`]
    /// keeps this one there.
    pub pin: Option<PathBuf>,
    /// The cgroup, by its id, below which nobody is ever judged: the agent's.
    pub exempt: Option<u64>,
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self { digests: 65_536, files: 65_536, pin: None, exempt: None }
    }
}

/// How often code of one kind was judged since the programs were loaded, by this gate or those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JudgedCounts {
    /// Files that were read to be judged.
    pub hashed: u64,
    /// Acts that were refused.
    pub denied: u64,
    /// Acts that would have been refused in enforce mode.
    pub would_deny: u64,
}

/// Decides in the kernel which code may run. Judgements come to the sink of the [`Sensors`] it was started with as
/// [`davy_model::EventKind::CodeJudged`].
///
/// Dropping it ends all judging, unless it is pinned.
pub struct TrustGate {
    inner: Mutex<Inner>,
    counts: MapHandle,
    files: MapHandle,
    config: TrustConfig,
    reads_scripts: bool,
    pinned: Mutex<bool>,
}

struct Inner {
    object: Object,
    links: Vec<(String, Link)>,
    digests: Digests,
    scopes: MapHandle,
    state: MapHandle,
    profiles: MapHandle,
    bound: MapHandle,
}

impl TrustGate {
    /// Loads and attaches the programs, and takes over what an earlier gate pinned. Nobody is bound until
    /// [`TrustGate::set_scope`] says so, or an earlier gate did.
    ///
    /// # Errors
    /// When the kernel refuses a program, or pins cannot be taken over.
    pub fn start(config: TrustConfig, sensors: &Sensors) -> Result<Self> {
        let (lanes, own) = sensors.lanes()?;
        let gate = Self::load(config, &lanes, &own)?;
        sensors.adopt(gate.ids());
        Ok(gate)
    }

    /// The same without sensors: what is judged is counted, and told to nobody.
    ///
    /// # Errors
    /// As [`TrustGate::start`].
    pub fn unheard(config: TrustConfig) -> Result<Self> {
        Self::load(config, &[], &OwnPrograms::default())
    }

    pub(super) fn load(config: TrustConfig, lanes: &[MapHandle], own: &OwnPrograms) -> Result<Self> {
        if !runs_side_by_side()? {
            return Err(Error::Unsupported(
                "this kernel passes a security program over while it already runs on the same processor, so code could get by; \
                 Linux 6.2 and later do not, nor does 6.1 as Debian 12 has it"
                    .to_owned(),
            ));
        }
        let kept = config.pin.clone().filter(|folder| pins::are_there(folder));
        // Where a hook after the open may sleep, scripts are read there; else what is known of them decides.
        let reads_scripts = objects::kernel_has_function("bpf_lsm_file_post_open");
        let load = || -> Result<(Object, bool)> {
            let mut object = objects::TRUST.open()?;
            objects::share(&mut object, lanes)?;
            for mut map in object.maps_mut() {
                let bound = match map.name().to_str() {
                    Some("digests" | "judgements") => config.digests,
                    Some("files") => config.files,
                    // Nobody reads lanes of its own.
                    Some("priority_lane" | "bulk_lane") if lanes.is_empty() => 1 << 12,
                    _ => continue,
                };
                map.set_max_entries(bound).during(|| format!("sizing a table to {bound} entries"))?;
            }
            objects::select(&mut object, |name| match name {
                "trust_script" => reads_scripts,
                "trust_script_by_cache" => !reads_scripts,
                _ => true,
            });
            let adopted = match &kept {
                Some(folder) => pins::adopt(&mut object, folder)?,
                None => false,
            };
            Ok((objects::load(object, "judging")?, adopted))
        };
        let (mut object, adopted) =
            own.during(load, |loaded| loaded.as_ref().map(|(o, _)| program_ids(o)).unwrap_or_default())?;
        if kept.is_some() && !adopted {
            tracing::warn!("the pinned tables of trust are of another version, and are filled anew");
        }
        let map = |name| objects::map(&object, name);
        let digests = Digests::new(map("digests")?, map("judgements")?, map("written")?)?;
        let (profiles, bound) = (map("profiles")?, map("bound")?);
        let (scopes, state, counts) = (map("scopes")?, map("trust_state")?, map("judged_counts")?);
        let files = map("files")?;
        if let Some(cgroup) = config.exempt {
            let mut record = abi::TrustScope { modes: [0; 12], exempt: 1 };
            // What the agent maps is read and remembered, and nothing more.
            record.modes[1] = MODE_READ;
            scopes
                .update(&cgroup.to_ne_bytes(), record.as_bytes(), MapFlags::ANY)
                .during(|| "exempting the agent's cgroup".to_owned())?;
        }
        let mut links = attach(&object)?;
        if let Some(folder) = &kept {
            if !adopted {
                pins::remove(folder)?;
            }
            pins::keep(&mut object, &mut links, folder)?;
        }
        let inner = Inner { object, links, digests, scopes, state, profiles, bound };
        let pinned = Mutex::new(kept.is_some());
        Ok(Self { inner: Mutex::new(inner), counts, files, config, reads_scripts, pinned })
    }

    /// Binds a scope by modes; called again for the same scope, it replaces them.
    ///
    /// # Errors
    /// [`Error::Full`] when 1,024 scopes have modes; [`Error::Unsupported`] when the whole host is to be enforced and no
    /// cgroup is exempt, for then the agent could refuse itself.
    pub fn set_scope(&self, scope: TrustScope, modes: TrustModes) -> Result<()> {
        if scope == TrustScope::Host && modes.enforce() && self.config.exempt.is_none() {
            return Err(Error::Unsupported(
                "code is not refused to the whole host while the agent has no cgroup of its own that is exempt"
                    .to_owned(),
            ));
        }
        let inner = self.lock();
        let put = inner.scopes.update(&scope.key().to_ne_bytes(), modes.record().as_bytes(), MapFlags::ANY);
        put.or_else(|error| {
            if inner.scopes.keys().count() >= inner.scopes.max_entries() as usize {
                return Err(Error::Full { what: "the table of scopes", bound: inner.scopes.max_entries() });
            }
            Err(error).during(|| "binding a scope".to_owned())
        })
    }

    /// Lets a scope go; says whether it was bound.
    ///
    /// # Errors
    /// When the table cannot be changed.
    pub fn clear_scope(&self, scope: TrustScope) -> Result<bool> {
        let inner = self.lock();
        let key = scope.key().to_ne_bytes();
        let bound = inner.scopes.lookup(&key, MapFlags::ANY).during(|| "reading a scope".to_owned())?;
        if bound.is_some() {
            inner.scopes.delete(&key).during(|| "letting a scope go".to_owned())?;
        }
        Ok(bound.is_some())
    }

    /// Says something of contents, in place of what was said of them before. It holds from the next act on, for files
    /// that were judged before too.
    ///
    /// # Errors
    /// [`Error::Full`] when the table has no room; those before the one that had none are in it.
    pub fn vouch(&self, sayings: &[(Sha256, Saying)]) -> Result<()> {
        let mut inner = self.lock();
        let said = inner.digests.say(sayings);
        inner.tell_state(*said.as_ref().unwrap_or(&1) > 0)?;
        said.map(drop)
    }

    /// Takes back what was said of contents; what was never said of is passed over. Processes that run such a program
    /// already go on, and keep what it may do.
    ///
    /// # Errors
    /// When the tables cannot be changed.
    pub fn withdraw(&self, digests: &[Sha256]) -> Result<()> {
        let mut inner = self.lock();
        let withdrawn = inner.digests.withdraw(digests);
        inner.tell_state(false)?;
        withdrawn.map(drop)
    }

    /// Every content that something is said of; an earlier gate may have said it.
    #[must_use]
    pub fn vouched(&self) -> Vec<Sha256> {
        self.lock().digests.all()
    }

    /// Forgets what a file was found to be, and a mark on it: it is read when it is next run. Says whether anything was known.
    #[must_use]
    pub fn forget(&self, file: FileId) -> bool {
        self.files.delete(file_key(file).as_bytes()).is_ok()
    }

    /// Has the kernel read a file now and remember what it is, so that it is known where it cannot be read: scripts that an
    /// interpreter is given, before Linux 6.8, and files that are mapped first and made executable then.
    ///
    /// # Errors
    /// When this process is not in the exempt cgroup, the file is empty, or lies where nothing may be executed.
    pub fn read(&self, file: &File) -> Result<()> {
        use std::os::fd::AsFd;
        if self.config.exempt.is_none() {
            return Err(Error::Unsupported("files are read ahead from the exempt cgroup only".to_owned()));
        }
        crate::sys::map_executable_once(file.as_fd()).during(|| "having a file read".to_owned())
    }

    /// Says which classes of programs what comes from a service may not start, by the profile's place; the classes are bits of
    /// the caller's, as in [`super::Rights::classes`]. Further profiles forbid nothing.
    ///
    /// # Errors
    /// When the table cannot be changed.
    pub fn forbid(&self, classes: &[u8]) -> Result<()> {
        let mut record = abi::ServiceProfiles { forbids: [0; 32] };
        record.forbids.iter_mut().zip(classes).for_each(|(place, classes)| *place = *classes);
        let key = 0u32.to_ne_bytes();
        let told = self.lock().profiles.update(&key, record.as_bytes(), MapFlags::ANY);
        told.during(|| "telling what services have no use for".to_owned())
    }

    /// Binds a process that runs already by profiles, one bit each, and with it what it forks and executes from now on. It holds
    /// for the first thread of a process; who has ended is passed over.
    ///
    /// # Errors
    /// When the table cannot be changed.
    pub fn bind_process(&self, pid: u32, profiles: u32) -> Result<()> {
        use std::os::fd::AsRawFd;
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let Some(process) =
            pid.and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok())
        else {
            return Ok(());
        };
        let record = abi::ServiceBound { now: profiles, next: profiles };
        let key = process.as_raw_fd().to_ne_bytes();
        let told = self.lock().bound.update(&key, record.as_bytes(), MapFlags::ANY);
        told.during(|| "binding a process that comes from a service".to_owned())
    }

    /// Whether the kernel reads a script when an interpreter opens it. Where it cannot, before Linux 6.8, a script that was
    /// not read ahead is refused once.
    #[must_use]
    pub fn reads_scripts(&self) -> bool {
        self.reads_scripts
    }

    /// How often code was judged, by its kind.
    #[must_use]
    pub fn counts(&self) -> Vec<(CodeKind, JudgedCounts)> {
        let count = |kind: usize, what: usize| {
            let index = u32::try_from(kind * 3 + what).unwrap_or(u32::MAX);
            per_cpu_sum(&self.counts, &index.to_ne_bytes())
        };
        let counts = |kind| JudgedCounts {
            hashed: count(kind, 0),
            denied: count(kind, 1),
            would_deny: count(kind, 2),
        };
        KINDS.iter().enumerate().map(|(index, kind)| (*kind, counts(index))).collect()
    }

    /// Keeps the gate in the kernel when this is dropped or its process ends, until [`TrustGate::unpin`] or the next boot.
    ///
    /// # Errors
    /// When no folder was given, or it cannot be made in a BPF file system.
    pub fn pin(&self) -> Result<()> {
        let folder = self.config.pin.as_ref();
        let folder = folder.ok_or_else(|| Error::Unsupported("no folder to pin trust in".to_owned()))?;
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if !*pinned {
            let inner = &mut *self.lock();
            pins::keep(&mut inner.object, &mut inner.links, folder)?;
            *pinned = true;
        }
        Ok(())
    }

    /// Lets the gate end with this value again.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn unpin(&self) -> Result<()> {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = self.config.pin.as_ref().filter(|_| *pinned) {
            pins::remove(folder)?;
            *pinned = false;
        }
        Ok(())
    }

    fn ids(&self) -> ObjectIds {
        let inner = self.lock();
        ObjectIds {
            programs: program_ids(&inner.object),
            maps: map_ids(&inner.object),
            links: inner.links.iter().filter_map(|(_, link)| link.info().ok().map(|info| info.id)).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Tells the programs of new digests, so that files that nobody vouched for are read again, and of trusted writers.
    fn tell_state(&self, new: bool) -> Result<()> {
        let key = 0u32.to_ne_bytes();
        let before = self.state.lookup(&key, MapFlags::ANY).during(|| "reading trust's state".to_owned())?;
        let before = before.and_then(|bytes| abi::TrustState::read_from_bytes(&bytes).ok());
        let vouched = before.map_or(0, |before| before.vouched).wrapping_add(u32::from(new));
        let state = abi::TrustState { vouched, writers: self.digests.writers() };
        self.state.update(&key, state.as_bytes(), MapFlags::ANY).during(|| "telling trust's state".to_owned())
    }
}

/// Whether the kernel runs a security program although it already runs on the same processor. Where it does not, whoever keeps one
/// reading a file gets everything else by; the kernel that was changed tells the two apart by functions of its own.
fn runs_side_by_side() -> Result<bool> {
    let symbols = File::open("/proc/kallsyms").during(|| "opening /proc/kallsyms".to_owned())?;
    let mut lines = BufReader::new(symbols).lines().map_while(std::io::Result::ok);
    Ok(lines.any(|line| line.split(' ').nth(2) == Some("__bpf_prog_enter_sleepable_recur")))
}

fn attach(object: &Object) -> Result<Vec<(String, Link)>> {
    let mut links = Vec::new();
    for program in object.progs_mut().filter(|program| program.autoload()) {
        let name = program.name().to_string_lossy().into_owned();
        let link = program.attach().during(|| format!("attaching {name}"))?;
        links.push((name, link));
    }
    Ok(links)
}
