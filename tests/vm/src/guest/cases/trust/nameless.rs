use anyhow::{Result, ensure};
use davy_kernel::Rights;
use davy_model::{CodeKind, CodeOutcome, CodeReason, Mode};

use davy_test_vm::report::Answer;

use super::{LOADER, Scene, dynamic, tried};
use crate::cases::SELF;

/// Programs that have no name, although their content is vouched for.
pub(super) fn nameless_programs_are_refused() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let program = scene.path("program");
    let copy = format!("cp /bin/busybox {program}");
    scene.refused("a memfd", &format!("{SELF} act memfd /bin/busybox true"))?;
    scene.refused("a deleted file", &format!("{copy} && {SELF} act deleted {program} true"))?;
    scene.refused("an O_TMPFILE", &format!("{SELF} act tmpfile {} /bin/busybox true", scene.folder))?;
    scene.refused("a memfd that is mapped", &format!("{SELF} act map-memfd /bin/busybox"))?;
    scene.told(CodeKind::Nameless, CodeOutcome::Denied, CodeReason::Nameless, None)?;
    // A container runtime runs a sealed copy of itself.
    scene.vouch("/bin/busybox", Rights { may_be_nameless: true, ..Rights::default() })?;
    scene.allowed("a memfd that may", &format!("{SELF} act memfd /bin/busybox true"))
}

/// A file that is known is read once, wherever it lies that can be remembered: running it often costs no hashing.
pub(super) fn trusted_files_are_read_once() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let program = dynamic(&scene)?;
    let copy = scene.path("copy");
    std::fs::copy(program, &copy)?;
    for file in [program, &copy] {
        scene.allowed("a dynamic program", file)?;
        let before = scene.gate.counts();
        scene.bound_only(
            "running it often",
            &format!("for n in 1 2 3 4 5 6 7 8 9 0; do {file} || exit 1; done"),
        )?;
        ensure!(scene.gate.counts() == before, "{file}: counted {before:?}, then {:?}", scene.gate.counts());
    }
    Ok(())
}

/// The loader is known, and what it is given is judged all the same.
pub(super) fn code_for_the_loader_is_judged() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let program = dynamic(&scene)?;
    scene.allowed("a dynamic program", program)?;
    scene.allowed("a dynamic program by its loader", &format!("{LOADER} {program}"))?;
    let stranger = scene.altered(program, "stranger")?;
    scene.refused("an unknown program by the loader", &format!("{LOADER} {stranger}"))?;
    scene.told(CodeKind::Library, CodeOutcome::Denied, CodeReason::Unknown, Some(&stranger))?;
    scene.refused("a memfd by the loader", &format!("{SELF} act by-descriptor {LOADER} {program}"))?;
    // The loader goes on without a library that it cannot preload, and says so.
    let library = scene.altered("/lib/x86_64-linux-gnu/libc.so.6", "strange.so")?;
    let preload = |what: &str| {
        format!("LD_PRELOAD={library} {program} 2>{}; {what} -s {}", scene.path("said"), scene.path("said"))
    };
    scene.free_only("preloading an unknown library", &preload("test !"))?;
    scene.bound_only("an unknown library was not preloaded", &preload("test"))?;
    tried("an unknown library by LD_PRELOAD", Answer::Refused);
    scene.refused("an unknown library, mapped as dlopen does", &format!("{SELF} act map {library}"))?;
    scene.vouch(&library, Rights::default())?;
    scene.bound_only("preloading a known library", &preload("test !"))
}
