use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use davy_kernel::{BlockScope, Blocker, Kept, SensorConfig, boot_now, cgroup_id};
use davy_model::Destination;

use super::{Cell, SELF};
use crate::watch::Watch;

fn connect(from: &Cell, to: SocketAddr) -> Result<Output> {
    from.shell(&format!("exec {SELF} act connect {to}"))
}

pub(super) fn reaches(from: &Cell, to: SocketAddr, should: bool) -> Result<()> {
    let output = connect(from, to)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() == should, "connecting to {to} from {}: {said}", from.0.display());
    ensure!(should || said.contains("not permitted"), "refused for another reason: {said}");
    Ok(())
}

/// There is no way to a documentation address: whoever gets past the programs hears of that instead.
pub(super) fn unreachable(from: &Cell, to: SocketAddr) -> Result<()> {
    let output = connect(from, to)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success() && !said.contains("not permitted"), "connecting to {to}: {said}");
    Ok(())
}

pub(super) fn blocker(watch: &Watch) -> Result<Blocker> {
    watch.sensors.blocker().context("no blocker here")
}

/// The destination is closed to one cgroup and open to its neighbour, and open again when asked.
pub(super) fn destination_is_closed_for_one_cgroup() -> Result<()> {
    let (bad, good) = (Cell::make("bad")?, Cell::make("good")?);
    let pool = TcpListener::bind("127.0.0.1:0")?;
    let address = pool.local_addr()?;
    let destination = Destination { address: address.ip(), port: address.port() };
    let watch = Watch::start()?;
    let blocker = blocker(&watch)?;
    let scope = BlockScope::Cgroup(cgroup_id(&bad.0)?);
    reaches(&bad, address, true)?;
    blocker.block(destination, scope, None)?;
    reaches(&bad, address, false)?;
    reaches(&good, address, true)?;
    ensure!(blocker.list()?.len() == 1, "listed: {:?}", blocker.list()?);
    ensure!(blocker.unblock(destination, scope)?, "it was not closed");
    reaches(&bad, address, true)
}

/// What is pinned stays closed while no agent runs, and the next agent takes it over.
pub(super) fn pinned_block_outlives_the_agent() -> Result<()> {
    let bad = Cell::make("bad")?;
    let pool = TcpListener::bind("127.0.0.1:0")?;
    let address = pool.local_addr()?;
    let destination = Destination { address: address.ip(), port: address.port() };
    let scope = BlockScope::Cgroup(cgroup_id(&bad.0)?);
    let config = || {
        let mut config = SensorConfig::new(0);
        config.pin = Some(PathBuf::from("/sys/fs/bpf/davy"));
        config
    };
    let first = Watch::with(config())?;
    blocker(&first)?.block(destination, scope, None)?;
    reaches(&bad, address, false)?;
    drop(first);
    reaches(&bad, address, false).context("between two agents")?;
    let second = Watch::with(config())?;
    let blocker = blocker(&second)?;
    ensure!(blocker.list()?.len() == 1, "the second agent lists {:?}", blocker.list()?);
    blocker.release()?;
    reaches(&bad, address, true)
}

/// Nobody on an isolated host gets out, but to loopback and to a network that stays, until it ends by itself.
pub(super) fn isolated_host_reaches_nobody() -> Result<()> {
    let anybody = Cell::make("anybody")?;
    let service = TcpListener::bind("127.0.0.1:0")?;
    let own = service.local_addr()?;
    let (outside, kept): (SocketAddr, SocketAddr) = ("192.0.2.1:443".parse()?, "198.51.100.1:443".parse()?);
    let watch = Watch::start()?;
    let blocker = blocker(&watch)?;
    unreachable(&anybody, outside)?;
    let stays = Kept { sessions: Vec::new(), networks: vec![("198.51.100.0".parse()?, 24)] };
    blocker.isolate(BlockScope::Host, boot_now() + 20_000_000_000, &stays)?;
    reaches(&anybody, outside, false)?;
    unreachable(&anybody, kept)?;
    reaches(&anybody, own, true)?;
    ensure!(blocker.isolated().iter().map(|i| i.scope).eq([BlockScope::Host]), "{:?}", blocker.isolated());
    ensure!(blocker.rejoin(BlockScope::Host)?, "it was not isolated");
    unreachable(&anybody, outside)?;
    blocker.isolate(BlockScope::Host, boot_now() + 3_000_000_000, &stays)?;
    reaches(&anybody, outside, false)?;
    std::thread::sleep(std::time::Duration::from_secs(4));
    unreachable(&anybody, outside)
}
