//! The enforcing programs in the kernel, and how they outlive the agent.
//!
//! With a folder in a BPF file system, the tables and the links are pinned there. A later agent takes the tables
//! as they are and puts its own programs in place of the old ones, link by link, each in one step: at no moment is a
//! destination open that was closed.

use std::fs::Permissions;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use davy_model::FileId;
use libbpf_rs::{Link, MapCore, MapHandle, Object};

use crate::error::{During, Error, Result};
use crate::guard::ObjectIds;
use crate::objects;
use crate::program_loads::{OwnPrograms, map_ids, program_ids};

/// `BPF_FS_MAGIC` of statfs(2).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The tables; pinned under their own names.
const TABLES: [&str; 5] = ["blocked", "blocked_in_scope", "isolated", "kept_sessions", "kept_networks"];

/// The tables of `[outbound]` that are kept in a folder of its own: what names lead to, questions under way, who was heard, and
/// sockets whose destination was refused.
pub(crate) const HEARD: [&str; 4] = ["names_answered", "outbound_asked", "outbound_heard", "outbound_unsent"];

/// How the names of pinned links begin.
const LINK: &str = "link_";

/// The name under which a program's link is pinned.
pub(crate) fn link_name(program: &str) -> String {
    format!("{LINK}{program}")
}

/// Loaded and attached enforcement.
pub(crate) struct Enforcement {
    object: Object,
    links: Vec<Link>,
    pub(crate) blocked: MapHandle,
    pub(crate) scoped: MapHandle,
    pub(crate) isolated: MapHandle,
    pub(crate) sessions: MapHandle,
    pub(crate) networks: MapHandle,
}

impl Enforcement {
    /// Loads and attaches at the cgroup root; adopts and keeps what is pinned in `folder`.
    pub(crate) fn start(root: &Path, folder: Option<&Path>, own: &OwnPrograms) -> Result<Self> {
        if let Some(folder) = folder {
            prepare(folder)?;
        }
        let object =
            own.during(|| load(folder), |loaded| loaded.as_ref().map(program_ids).unwrap_or_default())?;
        let links = match folder {
            None => objects::attach_cgroup(&object, root)?,
            Some(folder) => attach_pinned(&object, root, folder)?,
        };
        if let Some(folder) = folder {
            close_pins(folder)?;
        }
        let [blocked, scoped, isolated, sessions, networks] =
            TABLES.map(|table| objects::map(&object, table));
        let (blocked, scoped, isolated) = (blocked?, scoped?, isolated?);
        let (sessions, networks) = (sessions?, networks?);
        Ok(Self { object, links, blocked, scoped, isolated, sessions, networks })
    }

    pub(crate) fn ids(&self) -> ObjectIds {
        ObjectIds {
            programs: program_ids(&self.object),
            maps: map_ids(&self.object),
            links: self.links.iter().filter_map(|link| link.info().ok().map(|info| info.id)).collect(),
        }
    }
}

fn load(folder: Option<&Path>) -> Result<Object> {
    let mut open = objects::BLOCK.open()?;
    if let Some(folder) = folder {
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            if TABLES.contains(&name.as_str()) && path.exists() {
                map.reuse_pinned_map(&path).during(|| format!("adopting {}", path.display()))?;
            }
        }
    }
    let mut object = objects::load(open, "blocking")?;
    if let Some(folder) = folder {
        for mut map in object.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            if TABLES.contains(&name.as_str()) && !path.exists() {
                map.pin(&path).during(|| format!("pinning {}", path.display()))?;
            }
        }
    }
    Ok(object)
}

fn attach_pinned(object: &Object, root: &Path, folder: &Path) -> Result<Vec<Link>> {
    let cgroup = crate::cgroups::open(root)?;
    let mut links = Vec::new();
    for program in object.progs() {
        let name = program.name().to_string_lossy().into_owned();
        let path = folder.join(link_name(&name));
        let adopted = Link::open(&path).ok().and_then(|mut link| {
            let replaced = link.update_prog(&program);
            replaced
                .inspect_err(|error| tracing::warn!(%error, "{} is attached anew", path.display()))
                .ok()?;
            Some(link)
        });
        links.push(match adopted {
            Some(link) => link,
            None => {
                let attaching = object.progs_mut().find(|program| program.name() == name.as_str());
                let attaching = attaching.ok_or_else(|| Error::Unsupported(format!("no program {name}")))?;
                use std::os::fd::AsRawFd;
                let link = attaching.attach_cgroup(cgroup.as_fd().as_raw_fd());
                let mut link = link.during(|| format!("attaching {name} to the cgroup"))?;
                // A pin whose link is gone (its cgroup was removed) gives its name to the new one.
                let _ = std::fs::remove_file(&path);
                link.pin(&path).during(|| format!("pinning {}", path.display()))?;
                link
            }
        });
    }
    Ok(links)
}

/// Takes every right from the pins. Whoever opens one has to override that, root too, which is what the agent's guard can
/// refuse; the agents that come later override it.
pub(crate) fn close_pins(folder: &Path) -> Result<()> {
    for path in pins(folder) {
        std::fs::set_permissions(&path, Permissions::from_mode(0o000))
            .during(|| format!("closing {}", path.display()))?;
    }
    Ok(())
}

/// The paths of what is pinned in a folder.
fn pins(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        TABLES.contains(&name.as_str()) || HEARD.contains(&name.as_str()) || name.starts_with(LINK)
    };
    entries.map(|entry| entry.path()).filter(ours).collect()
}

/// The folder and what is pinned in it, as files.
pub(crate) fn files(folder: &Path) -> Vec<FileId> {
    let identity = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some(FileId { dev: found.dev(), ino: found.ino() })
    };
    pins(folder).iter().chain([&folder.to_owned()]).filter_map(identity).collect()
}

/// Makes the folder, inside a BPF file system; one is mounted on `/sys/fs/bpf` when that is where it should lie.
pub(crate) fn prepare(folder: &Path) -> Result<()> {
    if std::fs::create_dir_all(folder).is_ok() && on_bpf_file_system(folder) {
        return Ok(());
    }
    let usual = Path::new("/sys/fs/bpf");
    if folder.starts_with(usual) && !on_bpf_file_system(usual) {
        rustix::mount::mount("bpf", usual, "bpf", rustix::mount::MountFlags::empty(), None)
            .during(|| "mounting a BPF file system on /sys/fs/bpf".to_owned())?;
        std::fs::create_dir_all(folder).during(|| format!("making {}", folder.display()))?;
    }
    if on_bpf_file_system(folder) {
        Ok(())
    } else {
        Err(Error::Unsupported(format!("{} does not lie in a BPF file system", folder.display())))
    }
}

pub(crate) fn on_bpf_file_system(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == BPF_FS_MAGIC)
}

/// Whether an earlier agent pinned something here.
pub(crate) fn is_there(folder: &Path) -> bool {
    on_bpf_file_system(folder) && TABLES.iter().any(|table| folder.join(table).exists())
}

/// Detaches what is pinned, removes the pins, and the folder. Removing a pin alone would detach too, but at a time of
/// the kernel's choosing.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    if !on_bpf_file_system(folder) {
        return Ok(());
    }
    for path in pins(folder) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(LINK)
            && let Ok(link) = Link::open(&path)
        {
            link.detach().during(|| format!("detaching {}", path.display()))?;
        }
        std::fs::remove_file(&path).during(|| format!("removing {}", path.display()))?;
    }
    let _ = std::fs::remove_dir(folder);
    Ok(())
}
