//! The drill of tampering: the agent is signalled, which is refused or else told, and runs on.

use anyhow::ensure;
use davy_model::Tier;

use crate::agent::Agent;
use crate::drill::Marks;
use crate::patience::Patience;
use crate::runner::Seen;
use crate::stage::Stage;
use crate::watch::{Watch, now};

/// Plays it. By the tier that the agent says it has, the signal must be refused.
pub(crate) fn play(
    tier: Option<Tier>,
    agent: &Agent,
    stage: &Stage,
    patience: &Patience,
) -> anyhow::Result<Seen> {
    let pid = agent.status()?.pid;
    let actor = stage.signal(pid, agent.control())?;
    let mut watch = Watch::of(agent, actor, now(), patience)?;
    let refused = watch.said.strip_prefix("refused ").map(str::to_owned);
    if tier == Some(Tier::Lsm) && refused.is_none() {
        return Ok(Seen::not(&watch, "the signal reached the agent"));
    }
    let told = watch.until(|watch| Ok(watch.look(&[Marks::TAMPERING])?.then_some(())))?;
    let after = agent.status()?.pid;
    ensure!(after == pid, "the agent is another since the signal: {after}, and {pid} before");
    let (stop_ms, said) = match refused {
        Some(why) => (Some(0), format!("refused ({why})")),
        None => (None, "delivered, and the agent runs on".to_owned()),
    };
    Ok(match told {
        Some(()) => Seen::held(&watch, stop_ms, said),
        None => Seen::not(&watch, &format!("{said}, but the agent did not tell of it")),
    })
}
