use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use davy_kernel::{Rights, TrustModes, TrustScope, cgroup_id};
use davy_model::{CodeKind, CodeOutcome, CodeReason, Mode};

use super::{Scene, worked};
use crate::cases::Started;

/// What profile 0 has no use for.
const SHELL: u8 = 1;

/// A server, a shell that its profile has no use for, and a program in no class. Nothing else is judged: any program may run.
struct Service {
    scene: Scene,
    server: String,
    between: String,
    shell: String,
}

fn service() -> Result<Service> {
    let scene = Scene::set(Mode::Off)?;
    let modes = TrustModes::default().with(CodeKind::Service, Mode::Enforce);
    scene.gate.set_scope(TrustScope::Cgroup(cgroup_id(&scene.bound.0)?), modes)?;
    scene.gate.forbid(&[SHELL, 2])?;
    // Copies of busybox under other names, each another program, and one that ends with a code.
    let (server, between) = (scene.stranger("server")?, scene.stranger("between")?);
    let shell = scene.program("shell", 3)?;
    scene.vouch(&server, Rights { services: 1, ..Rights::default() })?;
    scene.vouch(&shell, Rights { classes: SHELL, ..Rights::default() })?;
    Ok(Service { scene, server, between, shell })
}

/// A server may not start a shell in the scope, however it goes about it, and may outside of it; anybody else may.
pub(super) fn services_start_no_shells() -> Result<()> {
    let Service { scene, server, between, shell } = service()?;
    let run = format!("{shell}; test $? = 3");
    // For a shell within quotes of another.
    let inner = run.replace('$', "\\$");
    scene.allowed("a shell from no service", &run)?;
    scene.allowed("a program in no class from a service", &format!("{server} sh -c '{between} true'"))?;
    for (what, way) in [
        ("a shell", format!("{server} sh -c '{run}'")),
        ("a shell in place of the server", format!("{server} sh -c 'exec {shell}'; test $? = 3")),
        ("a shell through env", format!("{server} sh -c '{between} env {shell}; test $? = 3'")),
        ("a shell through a shell of nobody's", format!("{server} sh -c '{between} sh -c \"{inner}\"'")),
        (
            "a shell in a session of its own",
            format!("{server} sh -c '{between} setsid {shell}; test $? = 3'"),
        ),
        (
            "a shell through a service of another kind",
            format!("{server} sh -c '{server} env {shell}; test $? = 3'"),
        ),
    ] {
        scene.refused(what, &way)?;
    }
    let told = scene.told(CodeKind::Service, CodeOutcome::Denied, CodeReason::NotAllowed, Some(&shell))?;
    ensure!(told.sha256.is_some() || told.file.is_some(), "told nothing of what it was: {told:?}");
    // A double fork: whoever started it is gone, and the first process is its parent.
    let out = scene.path("out");
    let twice = format!(
        "rm -f {out}; {server} sh -c '( ( sleep 0.3; {shell}; echo $? >{out}.new; mv {out}.new {out} ) & ) & exit 0'; \
         n=0; while ! test -e {out} && test $n -lt 100; do sleep 0.1; n=$((n+1)); done; cat {out}"
    );
    let said = |output: std::process::Output| String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (free, bound) = (said(scene.free.shell(&twice)?), said(scene.bound.shell(&twice)?));
    ensure!(
        (free.as_str(), bound.as_str()) == ("3", "126"),
        "a double fork: {free} outside, {bound} in the scope"
    );
    // Observed it runs, and a profile that forbids nothing forbids nothing.
    scene.gate.forbid(&[0, 2])?;
    scene.allowed("a shell that the profile has a use for", &format!("{server} sh -c '{run}'"))
}

/// What begins a container is let go by the profile that says so, and by no other.
pub(super) fn containers_are_not_bound_by_their_daemon() -> Result<()> {
    let Service { scene, server, between, shell } = service()?;
    let way = format!("{server} sh -c '{between} env {shell}; test $? = 3'");
    scene.refused("a shell", &way)?;
    scene.vouch(&between, Rights { releases: 2, ..Rights::default() })?;
    scene.refused("a shell by what another profile lets go", &way)?;
    scene.vouch(&between, Rights { releases: 1, ..Rights::default() })?;
    scene.allowed("a shell in a container", &way)
}

/// A process that ran before anybody knew what it is can be bound.
pub(super) fn running_services_are_bound() -> Result<()> {
    let Service { scene, shell, .. } = service()?;
    let started = |cell: &std::path::Path, name: &str| -> Result<(Started, String)> {
        let (go, out) = (scene.path(&format!("{name}-go")), scene.path(&format!("{name}-out")));
        let script = format!(
            "echo $$ >{}/cgroup.procs || exit 99; while ! test -e {go}; do sleep 0.1; done; {shell}; echo $? >{out}.new; mv {out}.new {out}",
            cell.display()
        );
        let child = Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok((Started(child), out))
    };
    let end = |name: &str, out: &str| -> Result<String> {
        fs::write(scene.path(&format!("{name}-go")), "")?;
        let limit = Instant::now() + Duration::from_secs(20);
        while fs::metadata(out).is_err() {
            ensure!(Instant::now() < limit, "{name} did not end");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(fs::read_to_string(out).context("what it ended with")?.trim().to_owned())
    };
    let (_unbound, out) = started(&scene.bound.0, "unbound")?;
    ensure!(end("unbound", &out)? == "3", "what nobody bound was refused");
    let (bound, out) = started(&scene.bound.0, "bound")?;
    scene.gate.bind_process(bound.pid(), 1)?;
    ensure!(end("bound", &out)? == "126", "what was bound was let through");
    let (free, out) = started(&scene.free.0, "free")?;
    scene.gate.bind_process(free.pid(), 1)?;
    ensure!(end("free", &out)? == "3", "it was refused outside the scope");
    scene.gate.bind_process(u32::MAX, 1)?;
    worked(&scene.bound.shell("true")?, "everything else")
}
