use std::fs;

use anyhow::{Context, Result, ensure};
use davy_kernel::Rights;
use davy_model::{CodeKind, CodeOutcome, CodeReason, Mode};

use davy_test_vm::report::Answer;

use super::{Scene, digest, identity, said, tiny, tried, worked};
use crate::cases::SELF;

/// An unknown program, and what is told of it; then it is vouched for, and withdrawn.
pub(super) fn unknown_programs_are_refused_in_their_scope() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    scene.allowed("a known program", "busybox true")?;
    let stranger = scene.stranger("stranger")?;
    let run = format!("{stranger} true");
    scene.refused("an unknown program", &run)?;
    let told = scene.told(CodeKind::Exec, CodeOutcome::Denied, CodeReason::Unknown, Some(&stranger))?;
    ensure!(told.sha256 == Some(digest(&stranger)?), "the digest told is {:?}", told.sha256);
    ensure!(told.file == Some(identity(&stranger)?), "the file told is {:?}", told.file);
    scene.vouch(&stranger, Rights::default())?;
    scene.allowed("what somebody vouches for now", &run)?;
    scene.gate.withdraw(&[digest(&stranger)?])?;
    scene.refused("what was withdrawn", &run)?;
    let exec = scene.count(CodeKind::Exec);
    ensure!(exec.denied == 2 && exec.would_deny == 0, "counted: {exec:?}");
    Ok(())
}

/// An altered copy of a known program, and every way to put other bytes where known ones were.
pub(super) fn changed_programs_are_refused() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let (good, bad) = (scene.program("good", 3)?, scene.program("bad", 5)?);
    scene.vouch(&good, Rights::default())?;
    let file = scene.path("file");
    let run = format!("{file}; test $? = 5");
    let fresh = || -> Result<()> {
        let _ = fs::remove_file(&file);
        fs::copy(&good, &file)?;
        scene.allowed("a copy of a known program", &format!("{file}; test $? = 3"))
    };
    let ways = [
        ("an altered copy", format!("rm {file}; cp {bad} {file}")),
        ("writing into the same file", format!("cat {bad} >{file}")),
        ("renaming over it", format!("cp {bad} {file}.new; mv {file}.new {file}")),
        (
            "writing through a hard link",
            format!("ln {file} {file}.link; cat {bad} >{file}.link; rm {file}.link"),
        ),
        ("writing through a shared mapping", format!("{SELF} act shared-write {bad} {file}")),
        ("writing by an io_uring", format!("{SELF} act write-by-ring {bad} {file}")),
    ];
    for (what, change) in &ways {
        fresh()?;
        // The change is made from within the scope too: what is known is dropped wherever the writer is.
        worked(&scene.bound.shell(change)?, what)?;
        scene.refused(what, &run)?;
    }
    fresh()?;
    fs::hard_link(&file, scene.path("other"))?;
    scene.allowed("another name of a known program", &format!("{}; test $? = 3", scene.path("other")))
}

/// A writer that puts good and bad bytes into one file in turns never gets the bad ones to run in the scope.
pub(super) fn no_race_of_writer_and_exec_is_won() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let (good, bad) = (scene.program("good", 3)?, scene.program("bad", 5)?);
    scene.vouch(&good, Rights::default())?;
    let race = |kind: &str| format!("{SELF} act {kind} {good} {bad} {}", scene.path(kind));
    let counts = |output: &std::process::Output| -> Result<(u32, u32)> {
        let said = said(output);
        let words: Vec<&str> = said.split_whitespace().collect();
        match words.as_slice() {
            ["good", good, "bad", bad, ..] => Ok((good.parse()?, bad.parse()?)),
            _ => anyhow::bail!("the race said {said}"),
        }
    };
    for (what, kind) in [
        ("writing into a file while it is executed again and again", "race"),
        ("renaming and exchanging files while one is executed again and again", "race-of-names"),
    ] {
        let free = counts(&scene.free.shell(&race(kind))?).context("outside")?;
        ensure!(free.0 > 0 && free.1 > 0, "{what}: outside the scope both ran: {free:?}");
        let bound = counts(&scene.bound.shell(&race(kind))?).context("in the scope")?;
        ensure!(bound.1 == 0, "{what}: the bad one ran {} times in the scope", bound.1);
        ensure!(bound.0 > 0, "{what}: the good one never ran in the scope, so nothing was raced");
        tried(what, Answer::Refused);
    }
    Ok(())
}

/// While large files are being read on every processor, nothing else gets by: some kernels pass a program over that is
/// already running on the same processor, and the gate does not start there.
pub(super) fn judging_is_never_passed_over() -> Result<()> {
    let scene = Scene::set(Mode::Enforce)?;
    let bad = scene.program("bad", 5)?;
    scene.refused("an unknown program", &super::run_it(&bad, 5))?;
    let (big, flag) = (scene.path("big"), scene.path("flag"));
    fs::File::create(&big)?.set_len(16 << 20)?;
    fs::write(&flag, "")?;
    let before = scene.count(CodeKind::Library).hashed;
    // Known to be unknown; new each time; a mapping.
    let script = format!(
        "for n in 1 2 3; do {SELF} act map-memfd-often {big} {flag} & done; sleep 1\n\
         for turn in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do\n\
             {bad} 2>/dev/null; test $? = 5 && echo PASSED exec\n\
             new={}$turn; cp {bad} $new; echo $turn >>$new; $new 2>/dev/null; test $? = 5 && echo PASSED new exec\n\
             cp {bad} $new.so; echo $turn so >>$new.so; {SELF} act map $new.so >/dev/null && echo PASSED map\n\
         done; rm {flag}; wait",
        scene.path("new")
    );
    let said = said(&scene.bound.shell(&script)?);
    ensure!(!said.contains("PASSED"), "not judged while others were: {said}");
    let read = scene.count(CodeKind::Library).hashed - before;
    // Thirty are the new mappings; the others are the large one, again and again until the end.
    ensure!(read > 33, "only {read} files were read, so nothing was in the way: {said}");
    Ok(())
}

/// Nobody is refused in observe mode, and what would have been is told and counted; one unknown file many times is told once.
pub(super) fn observing_refuses_nothing() -> Result<()> {
    let scene = Scene::set(Mode::Observe)?;
    let stranger = scene.stranger("stranger")?;
    for act in [
        format!("{stranger} true"),
        format!("{SELF} act memfd {stranger} true"),
        format!("{SELF} act map {stranger}"),
        format!("{SELF} act write-then-run-memory"),
        format!("{SELF} act own-memory"),
        format!("{SELF} act traceme"),
        format!("{SELF} act load-bpf"),
    ] {
        scene.allowed(&act, &act)?;
    }
    scene.told(CodeKind::Exec, CodeOutcome::WouldDeny, CodeReason::Unknown, Some(&stranger))?;
    scene.told(CodeKind::Nameless, CodeOutcome::WouldDeny, CodeReason::Nameless, None)?;
    scene.told(CodeKind::Memory, CodeOutcome::WouldDeny, CodeReason::WrittenMemory, None)?;
    scene.told(CodeKind::Trace, CodeOutcome::WouldDeny, CodeReason::NotAllowed, None)?;
    scene.told(CodeKind::Bpf, CodeOutcome::WouldDeny, CodeReason::NotAllowed, None)?;
    let before = scene.count(CodeKind::Exec);
    worked(
        &scene.bound.shell(&format!("for i in 1 2 3 4 5 6 7 8 9 0; do {stranger} true; done"))?,
        "running it",
    )?;
    let after = scene.count(CodeKind::Exec);
    ensure!(after.would_deny == before.would_deny + 10, "counted {before:?}, then {after:?}");
    ensure!(after.hashed == before.hashed, "a file that is known to be unknown was read again");
    ensure!(after.denied == 0, "refused while observing: {after:?}");
    ensure!(scene.heard(CodeKind::Exec) == 1, "told {} times", scene.heard(CodeKind::Exec));
    Ok(())
}

/// What the program is that a case runs matters to no one outside; two programs that end differently are all it needs.
pub(super) fn blocked_programs_are_refused_although_vouched_for() -> Result<()> {
    use davy_kernel::{Saying, Verdict};
    let scene = Scene::set(Mode::Enforce)?;
    let file = scene.path("file");
    fs::write(&file, tiny(3))?;
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let run = format!("{file}; test $? = 3");
    scene.vouch(&file, Rights::default())?;
    scene.allowed("a known program", &run)?;
    scene.gate.vouch(&[(digest(&file)?, Saying { verdict: Verdict::Deny, ..Saying::allow() })])?;
    scene.refused("a blocked program", &run)?;
    scene.told(CodeKind::Exec, CodeOutcome::Denied, CodeReason::Blocked, Some(&file))?;
    // A word that has ended is none.
    scene.gate.vouch(&[(digest(&file)?, Saying { until: Some(1), ..Saying::allow() })])?;
    scene.refused("a program whose word has ended", &run)?;
    scene.told(CodeKind::Exec, CodeOutcome::Denied, CodeReason::Expired, Some(&file))?;
    Ok(())
}
