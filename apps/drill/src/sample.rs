//! The drill of scans: an inert sample is written, found, taken away, and given back.

use anyhow::{Context, ensure};
use davy_model::Action;

use crate::acts::SAMPLE;
use crate::agent::Agent;
use crate::drill::Marks;
use crate::patience::Patience;
use crate::respond::{Kept, PROGRAM, Rehearsal, leave_nothing};
use crate::runner::Seen;
use crate::stage::Stage;
use crate::watch::Watch;

/// Plays it.
pub(crate) fn play(agent: &Agent, stage: &Stage, patience: &Patience) -> anyhow::Result<Seen> {
    let cgroup = stage.cgroup().context("the act has no cgroup of its own")?;
    let rehearsal = Rehearsal::begin(agent, cgroup)?;
    let mut watch = Watch::begin(agent, stage, PROGRAM, &["sample"], patience)?;
    let seen = found_and_given_back(&mut watch, agent, stage);
    drop(rehearsal);
    watch.actor.end();
    leave_nothing(&watch, agent, stage);
    seen
}

fn found_and_given_back(watch: &mut Watch<'_>, agent: &Agent, stage: &Stage) -> anyhow::Result<Seen> {
    let sample = stage.copy().with_file_name(SAMPLE);
    let before = Kept::of(&sample)?;
    let path = sample.to_string_lossy().into_owned();
    let taken = watch.until(|watch| {
        let told = watch.look(&[Marks::MALWARE])?;
        let record = watch.done(|a| matches!(a, Action::Quarantine { path: taken, .. } if *taken == path))?;
        Ok(record.filter(|_| told).map(|record| (record, watch.elapsed())))
    })?;
    let Some((record, stop_ms)) = taken else {
        return Ok(Seen::not(watch, "the sample was not taken away"));
    };
    ensure!(!sample.exists(), "the journal says quarantined, but {path} is still there");
    ensure!(
        watch.actor.ended().is_none(),
        "who wrote the sample was ended, which only who runs it should be"
    );
    agent.undo(record.id).context("undo the quarantine")?;
    let after = Kept::of(&sample).context("look for the sample after the undo")?;
    ensure!(before == after, "the sample came back changed: {before:?} before, {after:?} after");
    Ok(Seen::held(watch, Some(stop_ms), "taken away, and given back unchanged".to_owned()))
}
