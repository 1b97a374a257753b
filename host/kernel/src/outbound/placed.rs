//! The programs in their places, and what of them outlives the agent.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use davy_model::FileId;
use libbpf_rs::{Link, MapHandle, Object};

use crate::error::{During, Result};
use crate::guard::ObjectIds;
use crate::pin;
use crate::program_loads::{map_ids, program_ids};

/// The table that is kept beside the links: what names led to.
const ANSWERED: &str = "names_answered";

/// Links by the names of their programs.
pub(super) struct Placed {
    folder: Option<PathBuf>,
    links: BTreeMap<String, Link>,
}

impl Placed {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, links: BTreeMap::new() }
    }

    /// The table of answers to go on with: that of the programs before, or one that an earlier agent left.
    pub(super) fn answered(&self, now: Option<MapHandle>) -> Result<Option<MapHandle>> {
        let kept = self.folder.as_ref().map(|folder| folder.join(ANSWERED));
        match (now, kept.filter(|path| path.exists())) {
            (None, Some(path)) => {
                let map = MapHandle::from_pinned_path(&path);
                map.map(Some).during(|| format!("opening {}", path.display()))
            }
            (now, _) => Ok(now),
        }
    }

    /// Puts every loaded program in the place of the one before, its own or an earlier agent's, or in a new one.
    pub(super) fn put(&mut self, object: &Object, root: &Path) -> Result<()> {
        let cgroup = crate::cgroups::open(root)?;
        let mut placed = BTreeMap::new();
        // Names first: whoever has to know what a name leads to may connect at once.
        let mut programs: Vec<_> = object.progs_mut().filter(|program| program.autoload()).collect();
        programs.sort_by_key(|program| !program.section().to_string_lossy().starts_with("cgroup_skb"));
        for program in programs {
            let name = program.name().to_string_lossy().into_owned();
            let before = self.links.remove(&name).or_else(|| self.left(&name));
            let adopted = before.and_then(|mut link| {
                let replaced = link.update_prog(&program);
                replaced.inspect_err(|error| tracing::warn!(%error, "{name} is attached anew")).ok()?;
                Some(link)
            });
            let link = match adopted {
                Some(link) => link,
                None => program
                    .attach_cgroup(cgroup.as_fd().as_raw_fd())
                    .during(|| format!("attaching {name} to the cgroup"))?,
            };
            placed.insert(name, link);
        }
        // What has no place any more is detached, and its pin with it.
        for name in self.links.keys() {
            if let Some(path) = self.path_of(name) {
                let _ = std::fs::remove_file(path);
            }
        }
        self.links = placed;
        Ok(())
    }

    /// A link that an earlier agent left.
    fn left(&self, name: &str) -> Option<Link> {
        self.path_of(name).and_then(|path| Link::open(path).ok())
    }

    fn path_of(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(pin::link_name(name)))
    }

    /// Pins what is in place, or takes the pins away.
    pub(super) fn keep(&mut self, keep: bool, answered: Option<MapHandle>) -> Result<()> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        if !keep {
            return self.unpin(&folder);
        }
        pin::prepare(&folder)?;
        for (name, link) in &mut self.links {
            let path = folder.join(pin::link_name(name));
            if path.exists() && link.pin_path().is_some_and(|pinned| pinned == path) {
                continue;
            }
            // A pin whose link is gone gives its name to the new one.
            let _ = std::fs::remove_file(&path);
            link.pin(&path).during(|| format!("pinning {}", path.display()))?;
        }
        let path = folder.join(ANSWERED);
        if let Some(mut map) = answered.filter(|_| !path.exists()) {
            map.pin(&path).during(|| format!("pinning {}", path.display()))?;
        }
        pin::close_pins(&folder)
    }

    fn unpin(&mut self, folder: &Path) -> Result<()> {
        if !pin::on_bpf_file_system(folder) {
            return Ok(());
        }
        for (name, link) in &mut self.links {
            if link.pin_path().is_some() {
                link.unpin().during(|| format!("removing the pin of {name}"))?;
            }
        }
        // What an earlier agent left and this one has no place for.
        pin::remove(folder)?;
        let _ = folder.parent().map(std::fs::remove_dir);
        Ok(())
    }

    /// Detaches everything and takes the pins away.
    pub(super) fn release(&mut self) -> Result<()> {
        if let Some(folder) = self.folder.clone() {
            self.unpin(&folder)?;
        }
        for (name, link) in std::mem::take(&mut self.links) {
            link.detach().during(|| format!("detaching {name}"))?;
        }
        Ok(())
    }

    /// Lets go of the links: what is pinned stays.
    pub(super) fn let_go(&mut self) {
        self.links.clear();
    }

    /// What the agent's guard is to protect.
    pub(super) fn guarded(&self, object: Option<&Object>) -> (ObjectIds, Vec<FileId>) {
        let links = self.links.values().filter_map(|link| link.info().ok().map(|info| info.id)).collect();
        let ids = ObjectIds {
            programs: object.map(program_ids).unwrap_or_default(),
            maps: object.map(map_ids).unwrap_or_default(),
            links,
        };
        let kept = self.links.values().any(|link| link.pin_path().is_some());
        let pins = self.folder.as_ref().filter(|_| kept).map(|folder| pin::files(folder)).unwrap_or_default();
        (ids, pins)
    }
}
