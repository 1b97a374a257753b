//! What the acts do, each in a process of its own.
//!
//! An act speaks to the runner by lines on its standard output: `steady` once it does what it is there for, with the pid of
//! whoever does it in its place, or with what came of it; `listening ADDRESS CERTIFICATE`, `connected`, `refused WHY`, or
//! `failed WHY`.

pub(crate) use enter::NOBODY;
pub(crate) use pool::resolver_beside;
pub(crate) use sample::NAME as SAMPLE;

mod attempt;
mod campaign;
mod canary;
mod compute;
mod enter;
mod knock;
mod lines;
mod nameless;
mod persistence;
mod pool;
mod pool_name;
mod sample;
mod signal;
mod stratum;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;

/// The longest any act lives.
pub const ACT_LIMIT: Duration = Duration::from_secs(40);

/// The most threads an act computes on.
pub(crate) const MAX_THREADS: usize = 2;

/// Plays one act in this process: the hidden verb `davy drill-act NAME ARGS…`. It ends within [`ACT_LIMIT`], and
/// with its parent.
///
/// # Errors
/// An act that there is not, arguments that make no sense, or an act that cannot be played here. The reason is told
/// on standard output too, for the runner.
pub fn act(name: &str, args: &[String]) -> anyhow::Result<()> {
    // A change of user clears it, so every step of an act sets it again. The canary is left behind on purpose, and ends
    // when what it reads from does.
    if name != "canary-sits" {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .context("tie the act to its parent")?;
    }
    let until = Instant::now() + ACT_LIMIT;
    std::thread::Builder::new().name("davy-drill-end".to_owned()).spawn(move || {
        std::thread::sleep(ACT_LIMIT + Duration::from_millis(500));
        std::process::exit(3);
    })?;
    let played = play(name, args, until);
    if let Err(why) = &played {
        println!("failed {}", format!("{why:#}").replace('\n', " "));
    }
    played
}

fn play(name: &str, args: &[String], until: Instant) -> anyhow::Result<()> {
    match (name, args) {
        ("enter", [cgroup, network, program, argv0, act @ ..]) => {
            enter::enter(cgroup, network, program, argv0, act)
        }
        ("attempt", [cgroup, code, folder]) => attempt::run(cgroup, code, Path::new(folder)),
        ("canary", [cgroup]) => canary::leave(cgroup),
        ("canary-sits", []) => canary::sit(),
        ("compute", [threads]) => compute::run(threads.parse()?, until),
        ("renamed", [comm]) => compute::renamed(comm, until),
        ("memfd", []) => nameless::memfd(),
        ("deleted", []) => nameless::deleted(),
        ("sample", []) => sample::run(until),
        ("persistence", []) => persistence::run(until),
        ("campaign", []) => campaign::run(until),
        ("signal", [cgroup, pid, socket]) => signal::run(cgroup, pid, Path::new(socket), until),
        ("stratum", [pool, threads]) => stratum::run(address(pool)?, threads.parse()?, until),
        ("pool-tls", [pool, certificate]) => stratum::run_in_tls(address(pool)?, certificate, until),
        ("pool-name", [pool, resolver, name]) => pool_name::run(address(pool)?, resolver, name, until),
        ("outsider", [process, name, address]) => {
            knock::outsider(process.parse()?, name, address.parse()?, until)
        }
        ("call", [to]) => knock::call(address(to)?, until),
        ("knock", [host]) => knock::knock(host.parse()?, until),
        ("connect", [pool]) => stratum::reach(address(pool)?),
        ("stage", [place, wire]) => pool::stage(place == "private", wire == "tls", until),
        _ => anyhow::bail!("there is no act `{name}` with {} arguments", args.len()),
    }
}

/// The program that runs, which must be a drill's copy: an act never touches what belongs to anyone else.
fn own_copy() -> anyhow::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe").context("look up its own program")?;
    let ours = path.components().any(|c| c.as_os_str().to_string_lossy().starts_with(crate::actor::FOLDER));
    anyhow::ensure!(ours, "{} is not a drill's copy", path.display());
    Ok(path)
}

fn address(text: &str) -> anyhow::Result<SocketAddr> {
    text.parse().with_context(|| format!("`{text}` is not an address with a port"))
}

/// Tells the runner that the act does what it is there for.
fn steady() {
    println!("steady");
}
