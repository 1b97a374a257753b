//! Drills with code that must not even begin.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use davy_files::permission::detached_mount;
use davy_model::Timestamp;

use crate::agent::Agent;
use crate::drill::{Code, Marks};
use crate::patience::Patience;
use crate::runner::Seen;
use crate::stage::Stage;
use crate::watch::{LOOK, now};

/// How long the agent is asked to refuse.
const REHEARSAL_SECS: u32 = 60;

/// How much the mount of an act's own holds: its copy of a small program.
const GROUND_SIZE: &str = "4m";

/// How long a try may take.
const TRY: Duration = Duration::from_secs(10);

/// A mount in no namespace, for where the kernel asks before code runs: it is to ask about this and nothing else.
#[derive(Debug)]
pub(crate) struct Ground {
    /// Its root, for this process, its acts and the agent.
    path: PathBuf,
    _mount: OwnedFd,
}

impl Ground {
    /// Gone when it is dropped.
    ///
    /// # Errors
    /// Without the rights, or before Linux 5.2.
    pub(crate) fn make() -> anyhow::Result<Self> {
        let mount = detached_mount(GROUND_SIZE).context("make a mount of the act's own")?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd()));
        Ok(Self { path, _mount: mount })
    }
}

/// Tries the code as it is, then where it must be refused, and then again.
pub(crate) fn play(
    code: Code,
    ground: Option<&Ground>,
    agent: &Agent,
    stage: &Stage,
    patience: &Patience,
) -> anyhow::Result<Seen> {
    let cgroup = stage.cgroup().context("the act has no cgroup of its own")?;
    let mount = ground.map(|ground| ground.path.as_path());
    let before = stage.attempt(code.word(), mount, TRY)?;
    if before != "ran" {
        return Ok(Seen::refused(
            false,
            None,
            None,
            format!("it does not run here even when nothing is refused: {before}"),
        ));
    }
    let since = now();
    agent.refuse_code(cgroup, REHEARSAL_SECS, mount).context("have code refused in the act's cgroup")?;
    let began = Instant::now();
    let inside = stage.attempt(code.word(), mount, TRY);
    let stop_ms = elapsed(began);
    let told = told(agent, since, began, patience);
    agent.refuse_code(cgroup, 0, mount).context("end the rehearsal")?;
    let inside = inside?;
    let Some(why) = inside.strip_prefix("refused") else {
        return Ok(Seen::refused(false, None, None, "the code ran".to_owned()));
    };
    let Some((detect_ms, words)) = told? else {
        let evidence = format!("refused ({}), but the agent did not say so", why.trim());
        return Ok(Seen::refused(false, None, Some(stop_ms), evidence));
    };
    let after = stage.attempt(code.word(), mount, TRY)?;
    if after != "ran" {
        let evidence = format!("it stays refused when the rehearsal is over: {after}");
        return Ok(Seen::refused(false, Some(detect_ms), Some(stop_ms), evidence));
    }
    Ok(Seen::refused(true, Some(detect_ms), Some(stop_ms), format!("refused ({}); {words}", why.trim())))
}

/// When the agent said that it refused something, and its words. A finding may be of the drill before this one, and be told anew
/// because of this one: what counts is when its evidence came.
fn told(
    agent: &Agent,
    since: Timestamp,
    began: Instant,
    patience: &Patience,
) -> anyhow::Result<Option<(u64, String)>> {
    while began.elapsed() < patience.length {
        patience.check()?;
        let found = agent.findings(since)?;
        let new =
            found.iter().flat_map(|finding| Marks::UNTRUSTED.evidence(finding)).find(|e| e.time >= since);
        if let Some(evidence) = new {
            return Ok(Some((elapsed(began), evidence.text.clone())));
        }
        std::thread::sleep(LOOK);
    }
    Ok(None)
}

fn elapsed(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The line that an attempt ends with.
pub(crate) fn outcome(line: Option<String>) -> anyhow::Result<String> {
    match line {
        Some(line) => match line.strip_prefix("failed ") {
            Some(why) => Err(crate::actor::CannotPlay(why.to_owned()).into()),
            None => Ok(line),
        },
        None => bail!("the attempt did not say what came of it"),
    }
}
