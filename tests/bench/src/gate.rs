//! What the permission gate costs: execs of programs that it knows, and the first sight of one that it does not.
//!
//! A mark on a shared mount would hold up others, so each measurement is made in a mount namespace of its own, on a mount
//! of the root there; the load runs below it, so that programs and their loader are both asked for.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use davy_files::permission::{Answer, GateConfig, Marked, PermissionGate};
use serde::Serialize;

use crate::ratio::Ratio;

/// Execs of one measurement, and programs that are seen for the first time.
const EXECS: u32 = 1_000;
const SIGHTS: u32 = 40;

/// Bytes of a program that is seen for the first time.
const SIZE: usize = 1 << 20;

/// Rounds; each measures without and with the gate, which take turns at going first.
const ROUNDS: u32 = 7;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct GateCost {
    /// Fork, exec and exit of a known program, with the gate against without.
    pub(crate) execs: Ratio,
    /// Milliseconds that the first exec of an unknown program of 1 MiB takes longer, the median of the rounds.
    pub(crate) first_sight_ms: f64,
}

/// One measurement: nanoseconds an exec, of a known program and of one seen for the first time.
type Times = (f64, f64);

/// Measures in turns; `None` where mount namespaces and permission events are not to be had.
pub(crate) fn measure() -> Result<Option<GateCost>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let (mut known, mut first) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (alone, with) = if round % 2 == 0 {
            let alone = once(false)?;
            (alone, once(true)?)
        } else {
            let with = once(true)?;
            (once(false)?, with)
        };
        // The first round warms caches and is not counted.
        if round > 0 {
            known.push(with.0 / alone.0);
            first.push((with.1 - alone.1) / 1e6);
        }
    }
    let (execs, first) = (Ratio::of(&known), Ratio::of(&first));
    Ok(execs.zip(first).map(|(execs, first)| GateCost { execs, first_sight_ms: first.median }))
}

fn once(gate: bool) -> Result<Times> {
    let own = std::env::current_exe()?;
    let output = Command::new("timeout")
        .args(["120", "unshare", "--mount", "--propagation", "private"])
        .arg(own)
        .args(["gate", if gate { "with" } else { "without" }])
        .stderr(Stdio::inherit())
        .output()
        .context("unshare")?;
    ensure!(output.status.success(), "the measurement of the permission gate ended: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(known)), Some(Ok(first))) => Ok((known, first)),
        _ => anyhow::bail!("no times in {text:?}"),
    }
}

/// `gate with|without`: in the namespace.
pub(crate) fn inside(with: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mounted = Command::new("mount").args(["--rbind", "/"]).arg(folder.path()).status()?;
    ensure!(mounted.success(), "no mount of the root below {}", folder.path().display());
    let own = std::env::current_exe()?;
    let gate = with.then(|| start(folder.path())).transpose()?;
    let load = Command::new("chroot").arg(folder.path()).arg(&own).args(["gate", "load"]).status();
    let counts = gate.map(PermissionGate::stop);
    let unmounted = Command::new("umount").arg("-l").arg(folder.path()).status()?;
    ensure!(load?.success() && unmounted.success(), "the load failed");
    if let Some(counts) = counts {
        ensure!(counts.late + counts.absent + counts.crowded == 0, "not everything was judged: {counts:?}");
        ensure!(counts.asked >= u64::from(EXECS), "the gate was not asked: {counts:?}");
    }
    Ok(())
}

/// A gate as a guard would keep it: it knows digests. Here nothing is on its list, and all is allowed after a look there.
fn start(root: &Path) -> Result<PermissionGate> {
    let own = std::env::current_exe()?;
    let keeper = move || {
        let mut command = Command::new(&own);
        command.args(["gate", "keep"]);
        command
    };
    let blocked: HashSet<[u8; 32]> = HashSet::new();
    let judge = move |ask: &davy_files::permission::Ask| match ask.digest() {
        Ok(digest) if blocked.contains(&digest) => Answer::Deny,
        _ => Answer::AllowAnyone,
    };
    Ok(PermissionGate::start(GateConfig::new(keeper, judge), vec![Marked::Mount(root.to_owned())])?)
}

/// `gate load`: below the mount. Prints the two times.
pub(crate) fn load() -> Result<()> {
    let run = |program: &Path| -> Result<Duration> {
        let begin = Instant::now();
        ensure!(Command::new(program).status()?.success(), "{} failed", program.display());
        Ok(begin.elapsed())
    };
    let known = Path::new("/bin/true");
    run(known)?;
    let mut time = Duration::ZERO;
    for _ in 0..EXECS {
        time += run(known)?;
    }
    let folder = tempfile::tempdir()?;
    let mut bytes = fs::read(known)?;
    bytes.resize(SIZE, 0);
    let mut first = Duration::ZERO;
    for number in 0..SIGHTS {
        bytes[SIZE - 4..].copy_from_slice(&number.to_ne_bytes());
        let path = folder.path().join(number.to_string());
        fs::write(&path, &bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        first += run(&path)?;
    }
    println!("{} {}", time.as_nanos() / u128::from(EXECS), first.as_nanos() / u128::from(SIGHTS));
    Ok(())
}
