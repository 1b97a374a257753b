//! Whether a connection that no rule allows is refused: shown by an empty datagram that no router passes on.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use davy_drill::Canary;
use davy_model::OutboundProtocol;
use davy_net::outbound::{Ask, Host, allowing, compile};
use davy_wire::Tally;

use crate::clock;
use crate::shared::{Shared, lock};

/// An address for documents (RFC 5737), which nobody has, and the port of discard.
const NOBODY: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// How long the kernel may take to know that the canary's cgroup enforces, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);

/// For how long the canary's cgroup enforces, in seconds, should the agent die meanwhile.
const REHEARSED: f64 = 30.0;

/// Has the canary try what no rule allows, in a cgroup that enforces for that time. Where the policy lets everyone go there, nothing
/// can be shown so, and nothing is counted.
pub(super) fn prove(canary: &mut Canary, cgroup: &str, shared: &Shared, tally: &mut Tally) {
    let policy = lock(&shared.rulebook).policy();
    let host = Host { user: &|name| (name == "root" || name == "0").then_some(0), resolvers: &[] };
    let tables = compile(&policy, &host, clock::now()).tables;
    let ask = Ask {
        units: Vec::new(),
        container: None,
        uid: Some(0),
        protocol: OutboundProtocol::Udp,
        port: NOBODY.1,
        to: NOBODY.0.into(),
        name: None,
    };
    if allowing(&tables, &ask).first().is_some() || tables.spared.contains(&0) {
        return;
    }
    let rehearse = |seconds| {
        let now = clock::now();
        lock(&shared.standing).rehearse(cgroup, now.plus_secs(seconds), now)
    };
    let outcome = if rehearse(REHEARSED) { refused(canary) } else { Ok(()) };
    rehearse(0.0);
    tally.count("outbound", outcome.map_err(|why| format!("{why:#}")));
}

fn refused(canary: &mut Canary) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let came = canary.point(SocketAddr::from(NOBODY))?;
        if came == "refused" {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("what no rule allows is {came}");
        }
        std::thread::sleep(PAUSE);
    }
}
