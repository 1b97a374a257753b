use std::fs;

use anyhow::{Result, ensure};
use davy_kernel::Rights;
use davy_model::{CodeKind, Mode};

use super::Scene;

/// Scripts by their first line, and by the arguments of an interpreter.
pub(super) fn unknown_scripts_are_refused() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    scene.vouch("/bin/busybox", Rights { interpreter: true, ..Rights::default() })?;
    let script = |name: &str, text: &str| -> Result<String> {
        let path = scene.path(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(path)
    };
    let (known, unknown) = (script("known", "exit 0")?, script("unknown", "exit 0 # or not")?);
    scene.vouch(&known, Rights::default())?;
    scene.gate.read(&fs::File::open(&known)?)?;
    std::os::unix::fs::symlink(&unknown, scene.path("link"))?;
    std::os::unix::fs::symlink(scene.path("link"), scene.path("second"))?;
    scene.allowed("a known script", &known)?;
    scene.allowed("a known script as an argument", &format!("sh {known}"))?;
    scene.refused("an unknown script", &unknown)?;
    let folder = &scene.folder;
    for (what, way) in [
        ("an unknown script as an argument", format!("sh {unknown}")),
        ("an unknown script by a relative name", format!("cd {folder}; sh ./unknown")),
        ("an unknown script between options and arguments", format!("sh -e -u {unknown} one two")),
        ("an unknown script by a link", format!("sh {}", scene.path("link"))),
        ("an unknown script by a link to a link", format!("sh {}", scene.path("second"))),
        ("an unknown script by /proc/self/fd", format!("sh /proc/self/fd/3 3<{unknown}")),
        ("an unknown script to one program of several names", format!("busybox sh {unknown}")),
    ] {
        scene.refused(what, &way)?;
    }
    ensure!(scene.count(CodeKind::Script).denied >= 8, "counted: {:?}", scene.count(CodeKind::Script));
    // Published limits: what is not named by an argument is not a script to the gate.
    // (The name is put together, for the shell around it would find it among its own arguments.)
    let half = unknown.trim_end_matches("known");
    scene.passes("an unknown script on standard input", &format!("n=known; sh <{half}$n"))?;
    scene.passes("an unknown script that another sources", &format!("n=known; . {half}$n"))?;
    scene.passes("an unknown script through a pipe", &format!("n=known; cat {half}$n | sh"))?;
    scene.passes("commands given to an interpreter as an argument", "sh -c 'exit 0'")?;
    Ok(())
}
