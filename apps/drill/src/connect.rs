//! The drills of connections that no entry of the policy allows: into this host, and out of it.

use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::Context;
use davy_model::{EventKind, FindingKind, Mode};

use crate::agent::Agent;
use crate::drill::Marks;
use crate::outsider::Outsider;
use crate::patience::Patience;
use crate::respond;
use crate::runner::Seen;
use crate::stage::Stage;
use crate::watch::{Watch, now};

/// Somebody outside connects to a port that the policy opens to nobody. Where the policy enforces it is refused, and told everywhere.
pub(crate) fn into(agent: &Agent, stage: &Stage, patience: &Patience) -> anyhow::Result<Seen> {
    let status = agent.status()?;
    let closed = status.mode_of("inbound") == Some(Mode::Enforce);
    let outsider = Outsider::connect(stage, status.pid)?;
    let listener = TcpListener::bind((outsider.here, 0)).context("listen at the cable")?;
    let address = listener.local_addr().context("look up where it listens")?;
    let began = now();
    let actor = stage.play_at(&outsider, respond::PROGRAM, &["call", &address.to_string()])?;
    let mut watch = Watch::of(agent, actor, began, patience)?;
    let said = watch.said.clone();
    if closed && said == "connected" {
        return Ok(Seen::not(&watch, "a port that the policy opens to nobody was reached"));
    }
    let from = IpAddr::V4(outsider.address);
    let told = watch.until(|watch| {
        let told = agent.inbound(watch.since)?;
        let ours = |kind: &EventKind| {
            matches!(kind, EventKind::Inbound(i) if i.from == from && i.port == address.port())
        };
        Ok(told.iter().any(ours).then_some(()))
    })?;
    let detect_ms = Some(watch.elapsed());
    drop(listener);
    Ok(match told {
        Some(()) if closed => {
            Seen::refused(true, detect_ms, Some(0), format!("a connection from outside was {said}"))
        }
        Some(()) => Seen::refused(true, detect_ms, None, "told, and let in: the policy observes".to_owned()),
        None => Seen::not(&watch, "nobody was told of a connection that the policy does not allow"),
    })
}

/// A process connects to what no entry allows. Where the policy enforces on the whole host it is refused, and told everywhere.
pub(crate) fn out_of(
    whole_host: bool,
    agent: &Agent,
    stage: &Stage,
    patience: &Patience,
) -> anyhow::Result<Seen> {
    let closed = whole_host && agent.status()?.mode_of("outbound") == Some(Mode::Enforce);
    let to: SocketAddr = stage.pool().context("there is nobody to connect to")?;
    let mut watch = Watch::begin(agent, stage, respond::PROGRAM, &["call", &to.to_string()], patience)?;
    let said = watch.said.clone();
    if closed && said == "connected" {
        return Ok(Seen::not(&watch, "what no entry of the policy allows was reached"));
    }
    let told =
        watch.until(|watch| Ok(watch.look(&[Marks::of_kind(FindingKind::Outbound)])?.then_some(())))?;
    let stop_ms = (said != "connected").then_some(0);
    Ok(match told {
        Some(()) => Seen::held(&watch, stop_ms, format!("a connection that no entry allows was {said}")),
        None => Seen::not(&watch, "nobody was told; an entry of the policy may allow it"),
    })
}
