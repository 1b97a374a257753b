//! A host outside: a network namespace at the end of a cable, whose other end is an interface of this host.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Context;

use crate::actor::{Actor, CannotPlay};
use crate::link;
use crate::stage::Stage;

/// How long it may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Networks of four addresses within 203.0.113.0/24, which is nobody's (RFC 5737).
const NETWORKS: u128 = 64;

/// An outsider. The cable goes away with it, both ends, also when the drill is killed.
#[derive(Debug)]
pub(crate) struct Outsider {
    actor: Actor,
    cable: String,
    /// This host's address at the cable.
    pub(crate) here: Ipv4Addr,
    /// The outsider's.
    pub(crate) address: Ipv4Addr,
}

impl Outsider {
    /// Connects one to the network namespace of the agent, which must be the drill's own.
    ///
    /// # Errors
    /// When it is another, or the kernel makes no such cable: then nothing can be played.
    pub(crate) fn connect(stage: &Stage, agent: u32) -> anyhow::Result<Self> {
        Self::make(stage, agent).map_err(|why| CannotPlay(format!("{why:#}")).into())
    }

    fn make(stage: &Stage, agent: u32) -> anyhow::Result<Self> {
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net"));
        let agents = namespace(&agent.to_string()).context("look up the agent's network namespace")?;
        anyhow::ensure!(agents == namespace("self")?, "the agent is in another network namespace");
        // Another address each time, so that what is known of the last one says nothing of this one.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let network = u8::try_from(now.as_millis() / 100 % NETWORKS).unwrap_or(0) * 4;
        let [here, address] = [1, 2].map(|n| Ipv4Addr::new(203, 0, 113, network + n));
        let name = format!("davydr{}", std::process::id());
        let own = std::process::id().to_string();
        let mut command = Command::new(stage.program());
        command.args(["drill-act", "outsider", &own, &name, &address.to_string()]);
        let actor = Actor::start(command)?;
        actor.wait_for("steady", PATIENCE)?;
        let outsider = Self { actor, cable: name, here, address };
        link::address(&outsider.cable, here)?;
        Ok(outsider)
    }

    /// Where it is.
    pub(crate) fn network(&self) -> String {
        format!("/proc/{}/ns/net", self.actor.pid())
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        // It would go with the namespace, but only some time after the actor.
        let _ = link::take_away(&self.cable);
    }
}
