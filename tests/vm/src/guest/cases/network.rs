//! Who looks for open ports, and who may connect to what.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use davy_model::{OutboundMode, OutboundModes, OutboundProtocol, OutboundTables, RuleSet};

use super::Cell;
use super::blocking::{reaches, unreachable};
use crate::watch::Watch;

/// The kernel takes the watch over who looks for ports, within what it allows the filter of a socket: nothing more, for this
/// machine has no other network than loopback, which is not watched.
pub(super) fn port_watch_begins() -> Result<()> {
    let watch = Watch::start()?;
    let mut ports = watch.sensors.port_watches().start().context("watching ports")?;
    ensure!(ports.read(Duration::from_millis(200)).is_empty(), "nobody is there to look for ports");
    Ok(())
}

/// In its scope, what no rule allows is refused, and what one allows is not.
pub(super) fn outbound_rules_hold_in_their_scope() -> Result<()> {
    let (held, free) = (Cell::make("held.service")?, Cell::make("free.service")?);
    let place = held.0.strip_prefix("/sys/fs/cgroup").context("the cgroup's place")?;
    let one: RuleSet = [0].into_iter().collect();
    let network = std::net::Ipv4Addr::new(198, 51, 100, 0).to_ipv6_mapped().octets();
    let tables = OutboundTables {
        units: vec![("held.service".to_owned(), one)],
        any_container: RuleSet::ALL,
        any_user: RuleSet::ALL,
        ports: vec![((OutboundProtocol::Tcp, 8080), one)],
        destinations: vec![(network, 24 + 96, one)],
        ..OutboundTables::default()
    };
    let place = format!("/{}", place.display());
    let modes = |mode| OutboundModes { everywhere: OutboundMode::Off, places: vec![(place.clone(), mode)] };
    let (allowed, closed): (SocketAddr, SocketAddr) =
        ("198.51.100.1:8080".parse()?, "198.51.100.1:443".parse()?);
    let watch = Watch::start()?;
    let gate = watch.sensors.outbound().context("no gate here")?;
    gate.apply(&tables, &modes(OutboundMode::Enforce)).context("loading the rules")?;
    unreachable(&held, allowed)?;
    reaches(&held, closed, false)?;
    unreachable(&free, closed)?;
    gate.set_modes(&modes(OutboundMode::Observe))?;
    unreachable(&held, closed)?;
    gate.release()?;
    unreachable(&held, closed)
}
