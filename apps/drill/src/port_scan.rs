//! The drill of port scans: somebody outside looks for open ports of this host, and is told.

use davy_model::FindingKind;

use crate::agent::Agent;
use crate::outsider::Outsider;
use crate::patience::Patience;
use crate::respond;
use crate::runner::Seen;
use crate::stage::Stage;
use crate::watch::{Watch, now};

/// Plays it. Nothing is stopped: scans are told.
pub(crate) fn play(agent: &Agent, stage: &Stage, patience: &Patience) -> anyhow::Result<Seen> {
    let outsider = Outsider::connect(stage, agent.status()?.pid)?;
    let began = now();
    let here = outsider.here.to_string();
    let actor = stage.play_at(&outsider, respond::PROGRAM, &["knock", &here])?;
    let mut watch = Watch::of(agent, actor, began, patience)?;
    // A scan is about an address, and no process.
    let who = format!("{} ", outsider.address);
    let told = watch.until(|watch| {
        let findings = agent.findings(watch.since)?;
        Ok(findings.into_iter().find(|f| f.kind == FindingKind::Scan && f.summary.starts_with(&who)))
    })?;
    let detect_ms = watch.elapsed();
    Ok(match told {
        Some(finding) => Seen::refused(true, Some(detect_ms), None, finding.summary),
        None => Seen::not(&watch, "nobody was told of who looked for open ports"),
    })
}
