//! The drill of isolation: from a cgroup that is isolated nobody can be reached, and everybody again after the undo.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use davy_model::{Action, ActionState};

use crate::agent::Agent;
use crate::respond::{Rehearsal, probe};
use crate::runner::Seen;
use crate::stage::Stage;
use crate::watch::now;

/// How long the cgroup is isolated at the most; longer than the drill takes.
const ISOLATED: Duration = Duration::from_secs(60);

/// Plays it. What is isolated is the act's cgroup, and nothing else.
pub(crate) fn play(agent: &Agent, stage: &Stage) -> anyhow::Result<Seen> {
    let cgroup = stage.cgroup().context("the act has no cgroup of its own")?;
    let _let_out = Rehearsal::to_reach_out(agent, stage)?;
    let before = probe(stage)?;
    ensure!(before == "connected", "the other end could not be reached before anything was done: {before}");
    let (since, begin) = (now(), Instant::now());
    agent.isolate(cgroup, ISOLATED).context("isolate the act")?;
    let stop_ms = u64::try_from(begin.elapsed().as_millis()).ok();
    let isolated = probe(stage);
    let of_act = |action: &Action| matches!(action, Action::Isolate { cgroup: Some(c), .. } if c == cgroup);
    let done = agent.actions(since)?.into_iter().find(|r| of_act(&r.action) && r.state == ActionState::Done);
    let record = done.context("the journal does not say that the act was isolated")?;
    agent.undo(record.id).context("undo the isolation")?;
    let isolated = isolated?;
    if !isolated.starts_with("refused") {
        return Ok(Seen::refused(
            false,
            None,
            None,
            "isolated, the act still reached the other end".to_owned(),
        ));
    }
    let after = probe(stage)?;
    ensure!(after == "connected", "the other end could not be reached after the undo: {after}");
    let said = format!("isolated, and a connection {isolated}; let through again after the undo");
    Ok(Seen::refused(true, None, stop_ms, said))
}
