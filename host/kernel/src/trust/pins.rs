//! How the gate outlives the agent: its tables and links in a folder of a BPF file system.
//!
//! Links of security hooks cannot be given another program. A later gate attaches its own beside the old ones, over the same
//! tables, and then puts its links in the places of theirs: for a moment both judge, and at no moment none.

use std::path::{Path, PathBuf};

use libbpf_rs::{Link, MapCore, MapHandle, Object, OpenObject};

use crate::error::{During, Result};
use crate::pin::on_bpf_file_system;

/// The tables that are kept; records go to whoever reads them now.
const TABLES: [&str; 14] = [
    "digests",
    "judgements",
    "files",
    "epochs",
    "scopes",
    "trust_state",
    "judges",
    "told",
    "judged_counts",
    "programs",
    "bound",
    "profiles",
    "written",
    "last_mark",
];

/// Whether an earlier gate is kept here.
pub(super) fn are_there(folder: &Path) -> bool {
    on_bpf_file_system(folder) && TABLES.iter().any(|table| folder.join(table).exists())
}

/// Makes an object that is not loaded yet use the tables that are kept. False when they are of another layout, or not all
/// there: an earlier version kept others.
pub(super) fn adopt(object: &mut OpenObject, folder: &Path) -> Result<bool> {
    let mut fitting = TABLES.iter().all(|table| folder.join(table).exists());
    for map in object.maps() {
        let name = map.name().to_string_lossy().into_owned();
        if fitting && TABLES.contains(&name.as_str()) {
            let path = folder.join(&name);
            let kept = MapHandle::from_pinned_path(&path).during(|| format!("opening {}", path.display()))?;
            fitting &= kept.value_size() == map.value_size() && kept.key_size() == map.key_size();
        }
    }
    for mut map in object.maps_mut().filter(|_| fitting) {
        let name = map.name().to_string_lossy().into_owned();
        if TABLES.contains(&name.as_str()) {
            let path = folder.join(&name);
            map.reuse_pinned_map(&path).during(|| format!("adopting {}", path.display()))?;
        }
    }
    Ok(fitting)
}

/// Keeps tables and links in the folder, in the places of those that are there.
pub(super) fn keep(object: &mut Object, links: &mut [(String, Link)], folder: &Path) -> Result<()> {
    crate::pin::prepare(folder)?;
    for mut map in object.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        let path = folder.join(&name);
        if TABLES.contains(&name.as_str()) && !path.exists() {
            map.pin(&path).during(|| format!("pinning {}", path.display()))?;
        }
    }
    for (name, link) in links {
        let path = folder.join(format!("link_{name}"));
        let beside = folder.join(format!("new_{name}"));
        let _ = std::fs::remove_file(&beside);
        link.pin(&beside).during(|| format!("pinning {}", beside.display()))?;
        std::fs::rename(&beside, &path).during(|| format!("replacing {}", path.display()))?;
    }
    // A hook that this version does not have any more.
    for path in entries(folder).filter(|path| file_name(path).starts_with("new_")) {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Detaches what is kept and removes the pins and the folder.
pub(super) fn remove(folder: &Path) -> Result<()> {
    if !on_bpf_file_system(folder) {
        return Ok(());
    }
    // Links first: programs without tables that are kept would be another gate's.
    let (links, tables): (Vec<_>, Vec<_>) =
        entries(folder).partition(|path| file_name(path).starts_with("link_"));
    for path in links.iter().chain(tables.iter().filter(|path| TABLES.contains(&&*file_name(path)))) {
        std::fs::remove_file(path).during(|| format!("removing {}", path.display()))?;
    }
    let _ = std::fs::remove_dir(folder);
    Ok(())
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
