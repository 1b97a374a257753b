//! Drills with code that must not even begin.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::agent::Agent;
use crate::drill::{Code, Marks};
use crate::patience::Patience;
use crate::runner::Seen;
use crate::stage::Stage;
use crate::watch::{LOOK, now};

/// How long the agent is asked to refuse.
const REHEARSAL_SECS: u32 = 60;

/// How long a try may take.
const TRY: Duration = Duration::from_secs(10);

/// Tries the code as it is, then where it must be refused, and then again.
pub(crate) fn play(code: Code, agent: &Agent, stage: &Stage, patience: &Patience) -> anyhow::Result<Seen> {
    let cgroup = stage.cgroup().context("the act has no cgroup of its own")?;
    let before = stage.attempt(code.word(), TRY)?;
    if before != "ran" {
        return Ok(Seen::refused(
            false,
            None,
            None,
            format!("it does not run here even when nothing is refused: {before}"),
        ));
    }
    let since = now().plus_secs(-1.0);
    agent.rehearse(cgroup, REHEARSAL_SECS, true).context("have code refused in the act's cgroup")?;
    let began = Instant::now();
    let inside = stage.attempt(code.word(), TRY);
    let stop_ms = elapsed(began);
    let told = told(agent, since, began, patience);
    agent.rehearse(cgroup, 0, true).context("end the rehearsal")?;
    let inside = inside?;
    let Some(why) = inside.strip_prefix("refused") else {
        return Ok(Seen::refused(false, None, None, "the code ran".to_owned()));
    };
    let Some((detect_ms, words)) = told? else {
        let evidence = format!("refused ({}), but the agent did not say so", why.trim());
        return Ok(Seen::refused(false, None, Some(stop_ms), evidence));
    };
    let after = stage.attempt(code.word(), TRY)?;
    if after != "ran" {
        let evidence = format!("it stays refused when the rehearsal is over: {after}");
        return Ok(Seen::refused(false, Some(detect_ms), Some(stop_ms), evidence));
    }
    Ok(Seen::refused(true, Some(detect_ms), Some(stop_ms), format!("refused ({}); {words}", why.trim())))
}

/// When the agent said that it refused something, and its words.
fn told(
    agent: &Agent,
    since: davy_model::Timestamp,
    began: Instant,
    patience: &Patience,
) -> anyhow::Result<Option<(u64, String)>> {
    while began.elapsed() < patience.length {
        patience.check()?;
        for finding in agent.findings(since)? {
            if let Some(words) = Marks::UNTRUSTED.fit(&finding) {
                return Ok(Some((elapsed(began), words.to_owned())));
            }
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
