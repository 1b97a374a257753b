use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use davy_kernel::{TrustConfig, TrustGate, TrustModes, TrustScope, cgroup_id};
use davy_model::{CodeKind, CodeOutcome, CodeReason, Mode};

use super::{Scene, digest};
use crate::cases::{Cell, SELF, Started};
use crate::watch::Watch;

const PINS: &str = "/sys/fs/bpf/davy-trust";

fn config() -> TrustConfig {
    TrustConfig { pin: Some(PathBuf::from(PINS)), ..TrustConfig::default() }
}

/// An agent in small: enforces in a cgroup, vouches for busybox and itself, pins, says so, and waits for its end.
pub(crate) fn agent(cgroup: &str, flag: &str) -> ExitCode {
    let run = || -> Result<()> {
        let watch = Watch::start()?;
        let gate = TrustGate::start(config(), &watch.sensors)?;
        for file in ["/bin/busybox", SELF] {
            gate.vouch(&[(digest(file)?, davy_kernel::Saying::allow())])?;
        }
        gate.set_scope(TrustScope::Cgroup(cgroup_id(cgroup.as_ref())?), TrustModes::all(Mode::Enforce))?;
        gate.pin()?;
        fs::write(flag, "")?;
        std::thread::sleep(Duration::from_secs(100));
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Vouches for every program of the machine, as the list for another says, and binds this process's cgroup, until it is ended.
pub(crate) fn everything(ready: &str) -> ExitCode {
    let run = || -> Result<()> {
        let gate = TrustGate::unheard(TrustConfig::default())?;
        let list = fs::read_to_string("/etc/fapolicyd/fapolicyd.trust")?;
        let digests = list.lines().filter_map(|line| line.rsplit(' ').next()?.parse().ok());
        let sayings: Vec<_> = digests.map(|digest| (digest, davy_kernel::Saying::allow())).collect();
        ensure!(!sayings.is_empty(), "the list of programs is empty");
        gate.vouch(&sayings)?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.trim().strip_prefix("0::").context("no cgroup v2")?;
        let cgroup = cgroup_id(format!("/sys/fs/cgroup{own}").as_ref())?;
        gate.set_scope(TrustScope::Cgroup(cgroup), TrustModes::all(Mode::Enforce))?;
        fs::write(ready, "")?;
        loop {
            std::thread::park();
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

/// kill -9 changes nothing: what is unknown stays refused, what is known runs, and the next agent takes over.
pub(super) fn enforcement_outlives_the_agent() -> Result<()> {
    let (bound, free) = (Cell::make("bound")?, Cell::make("free")?);
    let (flag, stranger) = ("/tmp/trust-agent", "/tmp/busybox-stranger");
    fs::write(stranger, [fs::read("/bin/busybox")?, b"!".to_vec()].concat())?;
    fs::set_permissions(stranger, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let cgroup = bound.0.to_string_lossy().into_owned();
    let mut first = Started(Command::new(SELF).args(["act", "trust-agent", &cgroup, flag]).spawn()?);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fs::exists(flag)? {
        ensure!(first.0.try_wait()?.is_none() && Instant::now() < deadline, "the first agent does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    let holds = |when: &str| -> Result<()> {
        let unknown = bound.shell(&format!("{stranger} true"))?;
        ensure!(!unknown.status.success(), "{when} an unknown program was let through");
        let known = bound.shell("busybox true")?;
        ensure!(known.status.success(), "{when} a known program was refused: {}", super::said(&known));
        ensure!(free.shell(&format!("{stranger} true"))?.status.success(), "{when} another scope was bound");
        Ok(())
    };
    holds("with the first agent")?;
    first.0.kill()?;
    first.0.wait()?;
    // A file that nobody has run yet: it is read although no agent is there.
    fs::copy(stranger, "/tmp/busybox-second")?;
    holds("without an agent")?;
    ensure!(
        !bound.shell("/tmp/busybox-second true")?.status.success(),
        "a new file was let through without an agent"
    );
    let scene = Scene::adopting(config(), bound, free).context("the second agent")?;
    ensure!(scene.gate.vouched().len() >= 2, "taken over: {:?}", scene.gate.vouched());
    scene.refused("an unknown program with the second agent", &format!("{stranger} true"))?;
    // The records come to the new agent. What was told before is only counted for a minute.
    let third = scene.stranger("third")?;
    scene.refused("another unknown program", &format!("{third} true"))?;
    scene.told(CodeKind::Exec, CodeOutcome::Denied, CodeReason::Unknown, Some(&third))?;
    scene.gate.unpin()?;
    ensure!(!fs::exists(PINS)?, "pins are left");
    scene.refused("an unknown program while the second agent runs", &format!("{stranger} true"))?;
    let Scene { gate, bound, .. } = scene;
    drop(gate);
    super::worked(&bound.shell(&format!("{stranger} true"))?, "an unknown program when nothing is bound")
}
