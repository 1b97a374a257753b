use anyhow::{Result, ensure};
use davy_kernel::Rights;
use davy_model::{CodeKind, CodeOutcome, CodeReason, Mode};

use super::{Scene, identity, worked};

/// What a trusted writer alone wrote runs for a time; what anyone else had a hand in does not.
pub(super) fn trusted_writers_output_is_trusted() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let (program, other) = (scene.program("program", 3)?, scene.program("other", 5)?);
    // A copy of busybox that is a trusted writer, unlike busybox itself.
    let writer = scene.stranger("compiler")?;
    scene.vouch(&writer, Rights { trusted_writer_secs: 600, ..Rights::default() })?;
    let out = scene.path("out");
    let good = format!("{out}; test $? = 3");
    let make = |script: &str| -> Result<()> {
        let fresh = format!("rm -f {out}; {script}; chmod 755 {out}").replace("COMPILER", &writer);
        worked(&scene.bound.shell(&fresh)?, script)
    };
    let ran = |what: &str, script: &str, run: &str| -> Result<()> {
        make(script)?;
        scene.bound_only(what, run)
    };
    let refused = |what: &str, script: &str, run: &str| -> Result<()> {
        make(script)?;
        scene.refused(what, run)
    };
    let write = format!("COMPILER cp {program} {out}");
    ran("what it wrote", &write, &good)?;
    let told = scene.told(CodeKind::Exec, CodeOutcome::Marked, CodeReason::WrittenByTrusted, Some(&out))?;
    ensure!(told.file == Some(identity(&out)?), "told of {:?}", told.file);
    ran("what it wrote, renamed", &format!("COMPILER cp {program} {out}.new; mv {out}.new {out}"), &good)?;
    ran("what it wrote twice", &format!("{write}; COMPILER dd if={program} of={out} conv=notrunc"), &good)?;

    let bad = format!("{out}; test $? = 5");
    refused("what another wrote", &format!("cp {other} {out}"), &bad)?;
    refused("what another wrote after it", &format!("{write}; cat {other} >{out}"), &bad)?;
    refused("what it wrote over another's file", &format!("cp {other} {out}; {write}"), &good)?;
    refused(
        "what it wrote while another has it open",
        &format!("exec 3>{out}; {write}; cat {other} >&3"),
        &bad,
    )?;
    refused("what it wrote through another's opening", &format!("COMPILER cat {program} >{out}"), &good)?;
    refused(
        "what a program wrote that it left an opening to",
        &format!("COMPILER sh -c 'exec 3>{out}; exec /bin/busybox cat {other} >&3'"),
        &bad,
    )?;
    // What it is told to forget is read, and nobody vouches for it.
    make(&write)?;
    ensure!(scene.gate.forget(identity(&out)?), "nothing was known of it");
    scene.refused_in_scope("what was forgotten", &good)
}
