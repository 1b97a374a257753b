use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use davy_kernel::Rights;
use davy_model::{CodeKind, CodeOutcome, CodeReason, Mode};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use super::{Scene, run_it, said};
use crate::cases::{Lacks, SELF};
use crate::fuse::Served;

/// The same unknown program by every name that it can be given, and from within every view of the files.
pub(super) fn unknown_programs_are_refused_by_every_name() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let (good, bad) = (scene.program("good", 3)?, scene.program("bad", 5)?);
    scene.vouch(&good, Rights::default())?;
    symlink(&bad, scene.path("link"))?;
    fs::hard_link(&bad, scene.path("second-name"))?;
    fs::copy(&good, scene.path("covered"))?;
    scene.allowed("a known program", &run_it(&scene.path("covered"), 3))?;
    mount_bind(&*bad, &*scene.path("covered"))?;
    let root = scene.path("root");
    fs::create_dir(&root)?;
    for (from, to) in [("/bin/busybox", "sh"), ("/bin/busybox", "busybox"), (&*bad, "program")] {
        fs::copy(from, format!("{root}/{to}"))?;
    }
    let ways = [
        ("by a symbolic link", run_it(&scene.path("link"), 5)),
        ("by another hard link", run_it(&scene.path("second-name"), 5)),
        ("mounted over a known one", run_it(&scene.path("covered"), 5)),
        ("by /proc/self/fd", format!("exec 3<{bad}; {}", run_it("/proc/self/fd/3", 5))),
        ("in a chroot", format!("busybox chroot {root} /sh -c '{}'", run_it("/program", 5))),
        ("in a user namespace", format!("busybox unshare -U -r sh -c '{}'", run_it(&bad, 5))),
        (
            "in namespaces as bwrap makes them, on a mount of its own",
            format!(
                "busybox unshare -U -r -m sh -c 'busybox mount -t tmpfs none {root} && cp {bad} {root}/new && {}'",
                run_it(&format!("{root}/new"), 5)
            ),
        ),
    ];
    for (what, script) in &ways {
        scene.refused(&format!("an unknown program {what}"), script)?;
    }
    unmount(&*scene.path("covered"), UnmountFlags::empty())?;
    scene.allowed("a known program that is no longer covered", &run_it(&scene.path("covered"), 3))
}

/// A file system in a file, as snaps are, is as good as a disk.
pub(super) fn mounted_images_are_judged() -> Result<()> {
    let _ = Command::new("/bin/insmod").arg("/lib/modules/loop.ko").output()?;
    let scene = Scene::set(Mode::Enforce)?;
    let (good, bad) = (scene.program("good", 3)?, scene.program("bad", 5)?);
    scene.vouch(&good, Rights::default())?;
    let (image, place) = (scene.path("image"), scene.path("place"));
    fs::File::create(&image)?.set_len(1 << 20)?;
    fs::create_dir(&place)?;
    let busybox = |arguments: &[&str]| -> Result<()> {
        let output = Command::new("/bin/busybox").args(arguments).output()?;
        ensure!(output.status.success(), "busybox {arguments:?}: {}", said(&output));
        Ok(())
    };
    busybox(&["mke2fs", "-F", &image])?;
    if let Err(error) = busybox(&["mount", "-o", "loop", &image, &place]) {
        return Err(Lacks(format!("a loop device: {error:#}")).into());
    }
    for (from, to) in [(&good, "good"), (&bad, "bad")] {
        fs::copy(from, format!("{place}/{to}"))?;
    }
    busybox(&["mount", "-o", "remount,ro", &place])?;
    scene.allowed("a known program in a mounted image", &run_it(&format!("{place}/good"), 3))?;
    scene.refused("an unknown program in a mounted image", &run_it(&format!("{place}/bad"), 5))?;
    unmount(&*place, UnmountFlags::DETACH)?;
    Ok(())
}

/// Whoever serves a file system may give each reader other bytes, so that no digest says anything.
pub(super) fn what_user_space_serves_is_refused() -> Result<()> {
    let _ = Command::new("/bin/insmod").arg("/lib/modules/fuse.ko").output()?;
    let scene = Scene::set(Mode::Enforce)?;
    let good = scene.program("good", 3)?;
    scene.vouch(&good, Rights::default())?;
    let place = scene.path("served");
    fs::create_dir(&place)?;
    if !fs::read_to_string("/proc/filesystems")?.contains("\tfuse\n") {
        return Err(Lacks("FUSE".to_owned()).into());
    }
    let served = Served::mount(&place, fs::read(&good)?).context("mounting by FUSE")?;
    let program = format!("{place}/program");
    scene.refused("a known program served by FUSE", &run_it(&program, 3))?;
    scene.told(CodeKind::Exec, CodeOutcome::Denied, CodeReason::Unstable, Some(&program))?;
    scene.refused("a known library served by FUSE", &format!("{SELF} act map {program}"))?;
    drop(served);
    Ok(())
}

/// An overlay that somebody mounted in a user namespace: its layers are theirs to change.
pub(super) fn overlays_of_users_are_refused() -> Result<()> {
    let _ = Command::new("/bin/insmod").arg("/lib/modules/overlay.ko").output()?;
    if !fs::read_to_string("/proc/filesystems")?.contains("overlay") {
        return Err(Lacks("overlayfs".to_owned()).into());
    }
    let scene = Scene::set(Mode::Enforce)?;
    let (good, bad) = (scene.program("good", 3)?, scene.program("bad", 5)?);
    scene.vouch(&good, Rights::default())?;
    let place = scene.path("layers");
    fs::create_dir(&place)?;
    let inside = |program: &str, code: u8| {
        format!(
            "busybox unshare -U -r -m sh -c 'cd {place} && busybox mount -t tmpfs none . && cd {place} && \
             busybox mkdir lower upper work merged && cp {program} lower/program && busybox mount -t overlay \
             -o lowerdir=lower,upperdir=upper,workdir=work none merged && {}'",
            run_it("merged/program", code)
        )
    };
    scene.refused("a known program on an overlay of a user namespace", &inside(&good, 3))?;
    scene.refused("an unknown program on an overlay of a user namespace", &inside(&bad, 5))?;
    // The layers of images lie below an overlay that root mounted.
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| scene.path(name));
    for folder in [&lower, &upper, &work, &merged] {
        fs::create_dir(folder)?;
    }
    fs::copy(&bad, format!("{lower}/bad"))?;
    fs::copy(&good, format!("{lower}/good"))?;
    for name in ["first", "second"] {
        fs::copy(&bad, format!("{lower}/{name}"))?;
    }
    let options = std::ffi::CString::new(format!("lowerdir={lower},upperdir={upper},workdir={work}"))?;
    mount("overlay", &*merged, "overlay", MountFlags::empty(), &*options)?;
    scene.allowed("a known program in an image's layer", &run_it(&format!("{merged}/good"), 3))?;
    scene.refused("an unknown program in an image's layer", &run_it(&format!("{merged}/bad"), 5))?;
    scene.passes(
        "a library of an image's layer, mapped by an opening from before it was overwritten by a known one",
        &format!(
            "for name in first second; do test -e {upper}/$name && continue; \
             {SELF} act map-after-copy {merged}/$name {good}; exit; done; exit 1"
        ),
    )?;
    unmount(&*merged, UnmountFlags::DETACH)?;
    Ok(())
}
