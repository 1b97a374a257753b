use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use davy_kernel::Rights;
use davy_model::{CodeKind, CodeOutcome, CodeReason, Mode};

use super::{Scene, worked};
use crate::cases::{SELF, Started};

/// Memory that was written and is to be executed, and every way there that is known.
pub(super) fn written_memory_is_not_executed() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let act = |act: &str| format!("{SELF} act {act}");
    let ways = [
        ("written, then executable", act("write-then-run-memory")),
        ("writable and executable", act("memory rwx")),
        ("executable without a file, as userfaultfd fills it", act("memory rx")),
        ("pages of a known file, overwritten", act("map-and-write /bin/busybox")),
        ("readable, which implies executable", act("read-implies-exec")),
    ];
    for (what, script) in &ways {
        scene.refused(what, script)?;
    }
    scene.told(CodeKind::Memory, CodeOutcome::Denied, CodeReason::WrittenMemory, None)?;
    // A just-in-time compiler may.
    scene.vouch(SELF, Rights { may_write_and_execute: true, ..Rights::default() })?;
    for (what, script) in &ways {
        scene.allowed(what, script)?;
    }
    scene.allowed("a memfd mapped by a compiler", &act("map-memfd /bin/busybox"))
}

/// A file that is mapped first and made executable then: the hook may not read it, so only what is known may.
pub(super) fn mapped_files_are_judged_when_made_executable() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let stranger = scene.stranger("stranger")?;
    scene.allowed("a known file", &format!("{SELF} act map-then-protect /bin/busybox"))?;
    scene.refused("an unknown file", &format!("{SELF} act map-then-protect {stranger}"))?;
    scene.told(CodeKind::Library, CodeOutcome::Denied, CodeReason::NotJudged, None)?;
    Ok(())
}

/// What is mapped as code is not changed under the mapping.
pub(super) fn mapped_code_is_not_overwritten() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let (good, bad) = (scene.program("good", 3)?, scene.program("bad", 5)?);
    scene.vouch(&good, Rights::default())?;
    let flag = scene.path("mapped");
    let hold = format!("{SELF} act hold-mapped {good} {flag} & while ! test -e {flag}; do sleep 0.1; done");
    let try_it = format!("{hold}; cat {bad} >{good}; done=$?; rm {flag}; wait; exit $done");
    let restore = fs::read(&good)?;
    worked(&scene.free.shell(&try_it)?, "overwriting mapped code outside")?;
    fs::write(&good, restore)?;
    scene.refused_in_scope("overwriting mapped code", &try_it)?;
    scene.told(CodeKind::Library, CodeOutcome::Denied, CodeReason::InUse, None)?;
    // Replacing it by another file, as package managers do, is nobody's harm.
    scene
        .bound_only("replacing it", &format!("{hold}; mv {bad} {good}; done=$?; rm {flag}; wait; exit $done"))
}

/// A program under MMAP_PAGE_ZERO maps code without a file and without calling it anonymous: the machine must not fall.
pub(super) fn page_zero_is_survived() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    for cell in [&scene.free, &scene.bound] {
        // Whether it may is the kernel's business (vm.mmap_min_addr); that it answers is ours.
        let output = cell.shell(&format!("{SELF} act page-zero /bin/busybox"))?;
        ensure!(output.status.code() != Some(99), "the scope could not be entered");
    }
    scene.allowed("a program after it", "busybox true")
}

/// Injection: tracing, another's memory, one's own memory past its protection.
pub(super) fn injection_is_refused() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let victim = Started(Command::new("/bin/sleep").arg("60").spawn()?);
    let into = format!("{SELF} act write-into {}", victim.pid());
    scene.refused("writing into another process", &into)?;
    scene.refused("opening another's memory", &format!("exec 3<>/proc/{}/mem", victim.pid()))?;
    scene.refused("writing past one's own protections", &format!("{SELF} act own-memory"))?;
    scene.refused("asking to be traced", &format!("{SELF} act traceme"))?;
    scene.told(CodeKind::Trace, CodeOutcome::Denied, CodeReason::NotAllowed, None)?;
    scene.vouch(SELF, Rights { may_trace: true, ..Rights::default() })?;
    scene.allowed("a debugger", &into)
}

/// Kernel code: modules by file and out of memory, and BPF programs.
pub(super) fn kernel_code_is_judged() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    scene.refused("a BPF program", &format!("{SELF} act load-bpf"))?;
    scene.vouch(SELF, Rights { may_load_bpf: true, ..Rights::default() })?;
    scene.allowed("a BPF program by one that may", &format!("{SELF} act load-bpf"))?;
    let module = "/lib/modules/msr.ko";
    if !fs::exists(module)? {
        return Err(crate::cases::Lacks("the kernel's msr module".to_owned()).into());
    }
    let load = |how: &str| format!("busybox rmmod msr 2>/dev/null; {SELF} act load-module {how} {module}");
    scene.refused("an unknown module", &load("file"))?;
    scene.told(CodeKind::Module, CodeOutcome::Denied, CodeReason::Unknown, Some(module))?;
    scene.vouch(module, Rights::default())?;
    scene.allowed("a known module", &load("file"))?;
    scene.refused("a module out of memory", &load("memory"))?;
    scene.told(CodeKind::Module, CodeOutcome::Denied, CodeReason::WithoutFile, None)?;
    Ok(())
}
