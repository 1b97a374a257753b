//! The flow sensor: loading, attaching at the root of the cgroup tree, and adopting the sockets that are there.

use std::io::Read;
use std::path::Path;

use libbpf_rs::{Iter, Link, MapHandle, Object};

use crate::abi::{Flow, Settings};
use crate::error::{During, Error, Result};
use crate::{cgroups, objects};

/// Bytes of records taken in of sockets that were there before: a hundred thousand sockets.
const ADOPTED_BOUND: u64 = 8 << 20;

/// Loads and attaches the flow programs. Without a cgroup v2 root only TCP opens and closes are seen.
pub(crate) fn start(
    cgroup2: Option<&Path>,
    settings: &Settings,
    shared: &[MapHandle],
    adopted: &mut dyn FnMut(&[u8]),
) -> Result<(Object, Vec<Link>)> {
    let mut object = objects::NETWORK.open()?;
    objects::configure(&mut object, settings)?;
    objects::share(&mut object, shared)?;
    objects::select(&mut object, |name| cgroup2.is_some() || matches!(name, "on_state" | "adopt_sockets"));
    let object = objects::load(object, "flow")?;
    let mut links = objects::attach_tracing(&object)?;
    if let Some(root) = cgroup2 {
        links.extend(objects::attach_cgroup(&object, root)?);
    }
    // After attaching, so that no socket falls between.
    adopt(&object, adopted)?;
    Ok((object, links))
}

/// Loads and attaches the device program.
pub(crate) fn start_devices(
    cgroup2: &Path,
    settings: &Settings,
    shared: &[MapHandle],
) -> Result<(Object, Vec<Link>)> {
    let mut object = objects::DEVICES.open()?;
    objects::configure(&mut object, settings)?;
    objects::share(&mut object, shared)?;
    let object = objects::load(object, "device")?;
    let links = objects::attach_cgroup(&object, cgroup2)?;
    Ok((object, links))
}

/// Loads the flow programs and attaches them to a cgroup, for as long as the call lasts.
pub(crate) fn probe(cgroup: &Path) -> Result<()> {
    start(Some(cgroup), &Settings::default(), &[], &mut |_| {}).map(drop)
}

/// Asks which process holds each socket that is open now.
fn adopt(object: &Object, adopted: &mut dyn FnMut(&[u8])) -> Result<()> {
    let program = object.progs_mut().find(|program| program.name() == "adopt_sockets");
    let program =
        program.ok_or_else(|| Error::Unsupported("the flow programs cannot adopt sockets".to_owned()))?;
    let link = program.attach().during(|| "attaching the iterator over open files".to_owned())?;
    let mut iterator = Iter::new(&link).during(|| "starting the iterator over open files".to_owned())?;
    let mut records = Vec::new();
    iterator
        .by_ref()
        .take(ADOPTED_BOUND)
        .read_to_end(&mut records)
        .during(|| "reading the iterator over open files".to_owned())?;
    records.chunks_exact(size_of::<Flow>()).for_each(adopted);
    Ok(())
}

/// Character device majors that reach model-specific registers or GPUs: fixed ones, and those that this kernel gave
/// to GPU drivers by name in `/proc/devices`. At most seven.
pub(crate) fn device_majors() -> [u32; 7] {
    /// `/dev/cpu/*/msr` (Linux allocated devices list).
    const MSR: u32 = 202;
    /// `/dev/nvidia*`.
    const NVIDIA: u32 = 195;
    let listed = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    let mut majors = vec![MSR, NVIDIA];
    for line in listed.lines().take_while(|line| !line.starts_with("Block")) {
        let mut words = line.split_whitespace();
        if let (Some(Ok(major)), Some(name)) = (words.next().map(str::parse), words.next())
            && (name == "kfd" || name.starts_with("nvidia"))
            && !majors.contains(&major)
        {
            majors.push(major);
        }
    }
    let mut bounded = [0; 7];
    bounded.iter_mut().zip(majors).for_each(|(to, major)| *to = major);
    bounded
}

/// The directory, if it is one of a cgroup v2 tree.
pub(crate) fn usable_root(directory: Option<&Path>) -> Option<&Path> {
    directory.filter(|directory| cgroups::open(directory).is_ok())
}
