use std::cell::Cell as Counter;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use davy_kernel::Rights;
use davy_model::{CodeKind, CodeOutcome, CodeReason, Mode};

use super::{Scene, identity, tiny, worked};
use crate::cases::SELF;

/// Programs that are each another content: what a trusted writer wrote once is known by its digest.
struct Programs<'s>(&'s Scene, Counter<u32>);

impl Programs<'_> {
    fn next(&self, code: u8) -> Result<String> {
        self.1.set(self.1.get() + 1);
        let name = format!("program{}", self.1.get());
        self.0.put(&name, &[tiny(code), name.as_bytes().to_vec()].concat())
    }
}

/// A package manager's word counts while root runs it, and what it has another program write is its own.
pub(super) fn package_managers_are_trusted_as_root() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let programs = Programs(&scene, Counter::default());
    fs::set_permissions(&scene.folder, Permissions::from_mode(0o777))?;
    let (manager, hand) = (scene.stranger("manager")?, scene.stranger("hand")?);
    let installs = Rights { trusted_writer_secs: 600, writes_as_root: true, ..Rights::default() };
    scene.vouch(&manager, installs)?;
    scene.vouch(&hand, Rights { writes_for_writers: true, ..Rights::default() })?;
    let out = scene.path("out");
    let fresh = |write: &str| -> Result<String> {
        let write = write.replace("PROGRAM", &programs.next(3)?).replace("OUT", &out);
        let write = write.replace("MANAGER", &manager).replace("HAND", &hand);
        Ok(format!("rm -f {out}; {write} && chmod 755 {out} && {{ {out}; test $? = 3; }}"))
    };
    let as_user = format!("{SELF} act as-user 1000");
    scene.bound_only("what it wrote as root", &fresh("MANAGER cp PROGRAM OUT")?)?;
    scene.refused(
        "what a package manager wrote as a user",
        &fresh(&format!("{as_user} MANAGER cp PROGRAM OUT"))?,
    )?;
    let by_hand = "MANAGER sh -c 'HAND cp PROGRAM OUT; true'";
    scene.bound_only("what it had another write", &fresh(by_hand)?)?;
    scene.refused("what that other wrote for anybody", &fresh("HAND cp PROGRAM OUT")?)?;
    scene.refused(
        "what that other wrote for a package manager of a user",
        &fresh(&format!("{as_user} {by_hand}"))?,
    )
}

/// What a trusted writer alone wrote runs for a time; what anyone else had a hand in does not.
pub(super) fn trusted_writers_output_is_trusted() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let programs = Programs(&scene, Counter::default());
    // A copy of busybox that is a trusted writer, unlike busybox itself.
    let writer = scene.stranger("compiler")?;
    scene.vouch(&writer, Rights { trusted_writer_secs: 600, ..Rights::default() })?;
    let (out, copy) = (scene.path("out"), scene.path("copy"));
    let make = |script: &str| -> Result<()> {
        let script = script.replace("PROGRAM", &programs.next(3)?).replace("OTHER", &programs.next(5)?);
        let script = script.replace("COMPILER", &writer).replace("OUT", &out);
        worked(&scene.bound.shell(&format!("rm -f {out}; {script}; chmod 755 {out}"))?, &script)
    };
    let ran = |what: &str, script: &str, run: &str| -> Result<()> {
        make(script)?;
        scene.bound_only(what, run)
    };
    let refused = |what: &str, script: &str, run: &str| -> Result<()> {
        make(script)?;
        scene.refused(what, run)
    };
    let (good, bad) = (format!("{out}; test $? = 3"), format!("{out}; test $? = 5"));
    let write = "COMPILER cp PROGRAM OUT";
    ran("what it wrote", write, &good)?;
    let told = scene.told(CodeKind::Exec, CodeOutcome::Marked, CodeReason::WrittenByTrusted, Some(&out))?;
    ensure!(told.file == Some(identity(&out)?), "told of {:?}", told.file);
    ensure!(told.sha256 == Some(super::digest(&out)?), "told of the content {:?}", told.sha256);
    ran("what it wrote, renamed", "COMPILER cp PROGRAM OUT.new; mv OUT.new OUT", &good)?;
    ran("what it wrote twice", "COMPILER cp PROGRAM OUT; COMPILER dd if=PROGRAM of=OUT conv=notrunc", &good)?;

    refused("what another wrote", "cp OTHER OUT", &bad)?;
    refused("what another wrote after it", &format!("{write}; cat OTHER >OUT"), &bad)?;
    refused("what it wrote over another's file", &format!("cp OTHER OUT; {write}"), &good)?;
    refused("what it wrote while another has it open", &format!("exec 3>OUT; {write}; cat OTHER >&3"), &bad)?;
    refused("what it wrote through another's opening", "COMPILER cat PROGRAM >OUT", &good)?;
    refused(
        "what a program wrote that it left an opening to",
        "COMPILER sh -c 'exec 3>OUT; exec /bin/busybox cat OTHER >&3'",
        &bad,
    )?;
    // A copy by anyone is as good as what was copied, once the kernel has read that.
    let copied = format!("rm -f {copy}; cp {out} {copy}; {copy}; test $? = 3");
    ran("a copy of what it wrote and what ran since", write, &format!("{{ {good}; }} && {{ {copied}; }}"))?;
    if scene.gate.reads_scripts() {
        ran("a copy of what it wrote and nobody ran", write, &copied)?;
    } else {
        make(write)?;
        scene.refused_in_scope("a copy of what it wrote and nobody ran", &copied)?;
    }
    let changed = format!("cp {out} {copy}; echo >>{copy}; {copy}; test $? = 3");
    refused("a changed copy of what it wrote", write, &changed)?;
    // What it is told to forget is read. Its content is taken back too: it ran.
    make(write)?;
    scene.bound_only("what it wrote", &good)?;
    scene.gate.withdraw(&[super::digest(&out)?])?;
    ensure!(scene.gate.forget(identity(&out)?), "nothing was known of it");
    scene.refused_in_scope("what was forgotten", &good)
}
