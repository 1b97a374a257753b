use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use davy_kernel::Rights;
use davy_model::{CodeKind, Mode};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{Scene, digest, identity, run_it};
use crate::cases::Lacks;

/// What was known of a file system that is gone says nothing of the next one with its device number.
pub(super) fn another_file_system_is_judged_anew() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let (good, bad) = (scene.program("good", 3)?, scene.program("bad", 5)?);
    scene.vouch(&good, Rights::default())?;
    let place = scene.path("mount");
    fs::create_dir(&place)?;
    let file = format!("{place}/file");
    let fresh = |from: &str| -> Result<_> {
        mount("tmpfs", &*place, "tmpfs", MountFlags::empty(), None)?;
        fs::copy(from, &file)?;
        identity(&file)
    };
    let first = fresh(&good)?;
    scene.allowed("a known program", &run_it(&file, 3))?;
    unmount(&*place, UnmountFlags::empty())?;
    let second = fresh(&bad)?;
    ensure!(
        first == second,
        "the second file system has other numbers, so nothing is tried: {first:?}, {second:?}"
    );
    scene.refused("a file of the same numbers on another file system", &run_it(&file, 5))?;
    unmount(&*place, UnmountFlags::empty())?;
    Ok(())
}

/// On an overlay bytes change behind the inode that runs, so nothing is remembered there.
pub(super) fn nothing_is_remembered_on_overlays() -> Result<()> {
    let _ = Command::new("/bin/insmod").arg("/lib/modules/overlay.ko").output()?;
    if !fs::read_to_string("/proc/filesystems")?.contains("overlay") {
        return Err(Lacks("overlayfs".to_owned()).into());
    }
    let scene = Scene::set(Mode::Enforce)?;
    let (good, bad) = (scene.program("good", 3)?, scene.program("bad", 5)?);
    scene.vouch(&good, Rights::default())?;
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| scene.path(name));
    for folder in [&lower, &upper, &work, &merged] {
        fs::create_dir(folder)?;
    }
    fs::copy(&good, format!("{lower}/file"))?;
    let options = std::ffi::CString::new(format!("lowerdir={lower},upperdir={upper},workdir={work}"))?;
    mount("overlay", &*merged, "overlay", MountFlags::empty(), &*options)?;
    let file = format!("{merged}/file");
    scene.allowed("a known program on an overlay", &run_it(&file, 3))?;
    fs::write(format!("{lower}/file"), fs::read(&bad)?)?;
    scene.refused("what was changed below", &run_it(&file, 5))?;
    // A new inode above: written by the overlay itself.
    fs::write(&file, fs::read(&good)?)?;
    scene.allowed("what was made good above", &run_it(&file, 3))?;
    fs::write(format!("{upper}/file"), fs::read(&bad)?)?;
    scene.refused("what was changed in the upper layer", &run_it(&file, 5))?;
    let before = scene.count(CodeKind::Exec).hashed;
    ensure!(
        !scene.bound.shell(&file)?.status.success() && scene.count(CodeKind::Exec).hashed > before,
        "not read again"
    );
    ensure!(digest(&file)? == digest(&bad)?, "the overlay shows something else");
    unmount(&*merged, UnmountFlags::empty())?;
    Ok(())
}
