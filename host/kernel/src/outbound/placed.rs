//! The programs in their places, and what of them outlives the agent.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use davy_model::FileId;
use libbpf_rs::{Link, MapCore, MapHandle, Object, Program};

use crate::error::{During, Result};
use crate::guard::ObjectIds;
use crate::objects;
use crate::pin::{self, HEARD};
use crate::program_loads::{map_ids, program_ids};
use crate::sys;

/// What a change of programs has done so far.
#[derive(Default)]
struct Change {
    /// Links that have a new program, and the one before.
    replaced: Vec<(String, OwnedFd)>,
    attached: BTreeMap<String, Link>,
}

/// The program that a link runs now.
fn program_of(link: &Link) -> libbpf_rs::Result<OwnedFd> {
    Program::fd_from_id(link.info()?.prog_id)
}

/// Links by the names of their programs.
pub(super) struct Placed {
    folder: Option<PathBuf>,
    links: BTreeMap<String, Link>,
}

impl Placed {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, links: BTreeMap::new() }
    }

    /// The tables of what was heard to go on with: those of the programs before, or what an earlier agent left.
    pub(super) fn heard(&self, before: Option<&Object>) -> Result<Vec<MapHandle>> {
        if let Some(object) = before {
            return HEARD.iter().map(|name| objects::map(object, name)).collect();
        }
        let left = self.folder.iter().flat_map(|folder| HEARD.map(|name| folder.join(name)));
        let open = |path: PathBuf| {
            MapHandle::from_pinned_path(&path).during(|| format!("opening {}", path.display()))
        };
        left.filter(|path| path.exists()).map(open).collect()
    }

    /// Puts every loaded program in the place of the one before, its own or an earlier agent's, or in a new one: all of them, or
    /// none, so that no hook decides by half a policy.
    pub(super) fn put(&mut self, object: &Object, root: &Path) -> Result<()> {
        let cgroup = crate::cgroups::open(root)?;
        // Names first: whoever has to know what a name leads to may connect at once.
        let mut programs: Vec<_> = object.progs_mut().filter(|program| program.autoload()).collect();
        programs.sort_by_key(|program| !program.section().to_string_lossy().starts_with("cgroup_skb"));
        let mut change = Change::default();
        for program in &programs {
            let name = program.name().to_string_lossy().into_owned();
            if !self.links.contains_key(&name)
                && let Some(left) = self.left(&name)
            {
                self.links.insert(name.clone(), left);
            }
            if let Some(link) = self.links.get_mut(&name) {
                let before = program_of(link);
                match before.and_then(|before| link.update_prog(program).map(|()| before)) {
                    Ok(before) => {
                        change.replaced.push((name, before));
                        continue;
                    }
                    Err(error) => tracing::warn!(%error, "{name} is attached anew"),
                }
            }
            match program.attach_cgroup(cgroup.as_fd().as_raw_fd()) {
                Ok(link) => drop(change.attached.insert(name, link)),
                Err(error) => {
                    self.take_back(change);
                    return Err(error).during(|| format!("attaching {name} to the cgroup"));
                }
            }
        }
        // What has no place any more, or a new one, is detached, and its pin with it.
        let stays = |name: &String| change.replaced.iter().any(|(replaced, _)| replaced == name);
        let gone: Vec<String> = self.links.keys().filter(|name| !stays(name)).cloned().collect();
        for name in gone {
            self.links.remove(&name);
            if let Some(path) = self.path_of(&name) {
                let _ = std::fs::remove_file(path);
            }
        }
        self.links.append(&mut change.attached);
        Ok(())
    }

    /// Has every hook decide as before; what was attached goes as it is dropped.
    fn take_back(&mut self, change: Change) {
        for (name, before) in change.replaced {
            let Some(link) = self.links.get(&name) else { continue };
            if let Err(error) = sys::update_link(link.as_fd(), before.as_fd()) {
                tracing::error!(%error, "{name} decides by a policy that holds nowhere else");
            }
        }
    }

    /// A link that an earlier agent left.
    fn left(&self, name: &str) -> Option<Link> {
        self.path_of(name).and_then(|path| Link::open(path).ok())
    }

    fn path_of(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(pin::link_name(name)))
    }

    /// Pins what is in place, or takes the pins away.
    pub(super) fn keep(&mut self, keep: bool, heard: Vec<MapHandle>) -> Result<()> {
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
        for mut map in heard {
            let path = folder.join(map.name());
            if !path.exists() {
                map.pin(&path).during(|| format!("pinning {}", path.display()))?;
            }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Programs of one kind that a cgroup takes (`BPF_CGROUP_MAX_PROGS` of the kernel).
    const MOST: usize = 64;

    /// A cgroup of the test's own.
    struct OwnCgroup(PathBuf);

    impl Drop for OwnCgroup {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir(&self.0);
        }
    }

    /// The program that each hook runs.
    fn running(placed: &Placed) -> BTreeMap<String, u32> {
        placed.links.iter().map(|(name, link)| (name.clone(), link.info().unwrap().prog_id)).collect()
    }

    #[test]
    fn all_programs_take_their_places_or_none() {
        let probes = crate::probe(&crate::ProbeContext::default());
        if probes.iter().any(|p| p.capability == davy_model::Capability::CgroupBpf && !p.works) {
            return eprintln!("SKIPPED: no cgroup programs here");
        }
        let name = format!("davy-test-placed-{}", std::process::id());
        let cgroup = OwnCgroup(crate::cgroup2_mount().unwrap().join(name));
        std::fs::create_dir(&cgroup.0).unwrap();
        let [first, second, third] = [(); 3].map(|()| super::super::load(&[]).unwrap());
        let mut placed = Placed::new(None);
        placed.put(&first, &cgroup.0).unwrap();
        let before = running(&placed);
        assert_eq!(before.len(), first.progs().count());
        // Somebody detached the last of the hooks, and there is no room for it any more.
        let (last, _) = before.last_key_value().unwrap();
        let programs: Vec<_> = first.progs_mut().collect();
        let last = programs.iter().find(|program| program.name() == last.as_str()).unwrap();
        placed.links[&last.name().to_string_lossy().into_owned()].detach().unwrap();
        let directory = crate::cgroups::open(&cgroup.0).unwrap();
        let attach = |_| last.attach_cgroup(directory.as_fd().as_raw_fd()).unwrap();
        let mut crowd: Vec<Link> = (0..MOST).map(attach).collect();
        let full = placed.put(&second, &cgroup.0).unwrap_err();
        assert!(full.to_string().contains("attaching"), "{full}");
        let still = running(&placed);
        let others = |of: &BTreeMap<String, u32>| -> Vec<u32> {
            of.iter().filter(|(name, _)| last.name() != name.as_str()).map(|(_, id)| *id).collect()
        };
        assert_eq!(others(&still), others(&before), "every hook runs what it ran before");
        crowd.pop();
        placed.put(&third, &cgroup.0).unwrap();
        let after = running(&placed);
        assert_eq!(after.len(), before.len());
        assert!(others(&after).iter().all(|id| !others(&before).contains(id)));
    }
}
