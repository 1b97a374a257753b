//! Plays the drills one after the other and says what came of each.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use davy_model::{Capability, Mode, ProtectionStatus, Tier};
use davy_wire::{AgentStatus, DrillOutcome, DrillResult};

use crate::actor::CannotPlay;
use crate::acts::ACT_LIMIT;
use crate::agent::Agent;
use crate::connect;
use crate::drill::{Act, Code, Drill, Marks, Plot, chosen};
use crate::isolate;
use crate::pace::Pace;
use crate::patience::Patience;
use crate::port_scan;
use crate::refuse::{self, Ground};
use crate::respond::{self, Rehearsal};
use crate::sample;
use crate::stage::{self, Stage, Wire};
use crate::tamper;
use crate::watch::Watch;

/// A name on Davy's own list of pools.
const LISTED_POOL: &str = "pool.supportxmr.com";

/// What a kernel thread calls itself.
const KERNEL_THREAD: &str = "kworker/0:1";

/// What a throttled miner leaves itself, in percent of the time.
const THROTTLE: u32 = 25;

/// The agent's word for a policy without a scope.
pub(crate) const WHOLE_HOST: &str = "host";

/// How drills are run.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// The agent's read socket.
    pub read_socket: PathBuf,
    /// The agent's control socket.
    pub control_socket: PathBuf,
    /// `room/what`, or a room's name for all of it; empty for all.
    pub names: Vec<String>,
    /// How long one drill waits for the agent; at most [`ACT_LIMIT`].
    pub timeout: Duration,
    /// The program with the verb `drill-act`; `None` for the one that runs now.
    pub program: Option<PathBuf>,
}

/// What happens while drills are run.
#[derive(Clone, Debug)]
pub enum DrillProgress {
    /// A drill begins.
    Started {
        /// Which.
        drill: Drill,
        /// Its number, from one.
        number: usize,
        /// How many there are.
        of: usize,
    },
    /// A drill is over.
    Finished(DrillResult),
}

/// Runs drills against the live agent. Call it from a thread that outlives it: the acts die with that thread.
///
/// # Errors
/// A name that is no drill, or an agent that cannot be asked. What goes wrong in one drill is its result.
pub fn run(
    options: &DrillOptions,
    progress: &mut dyn FnMut(DrillProgress),
) -> anyhow::Result<Vec<DrillResult>> {
    let drills = chosen(&options.names)?;
    let agent = Agent::new(&options.read_socket, &options.control_socket);
    let program = match &options.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("find the program that runs now")?,
    };
    stage::sweep();
    let patience = Patience::of(options.timeout.min(ACT_LIMIT))?;
    let mut results = Vec::new();
    for (index, drill) in drills.iter().enumerate() {
        // Asked each time: a drill must not be told by what held before it.
        let status = agent.status().context("a drill needs a running agent; start one with `davy run`")?;
        progress(DrillProgress::Started { drill: *drill, number: index + 1, of: drills.len() });
        let result = perform(drill, &agent, &status, &program, &patience);
        progress(DrillProgress::Finished(result.clone()));
        results.push(result);
        if patience.interrupted() {
            anyhow::bail!(
                "interrupted after {} of {} drills; everything is cleaned up",
                index + 1,
                drills.len()
            );
        }
    }
    // An older agent does not know what to do with it; the results stand all the same.
    let _ = agent.drilled(&results);
    Ok(results)
}

/// What was seen of one drill.
#[derive(Debug)]
pub(crate) struct Seen {
    held: bool,
    detect_ms: Option<u64>,
    stop_ms: Option<u64>,
    evidence: String,
}

impl Seen {
    /// It went as it should.
    pub(crate) fn held(watch: &Watch<'_>, stop_ms: Option<u64>, said: String) -> Self {
        Self { held: true, stop_ms, ..Self::not(watch, &said) }
    }

    /// Refused, or not, without a process that could be watched.
    pub(crate) fn refused(
        held: bool,
        detect_ms: Option<u64>,
        stop_ms: Option<u64>,
        evidence: String,
    ) -> Self {
        Self { held, detect_ms, stop_ms, evidence }
    }

    /// It did not.
    pub(crate) fn not(watch: &Watch<'_>, said: &str) -> Self {
        let mut parts = vec![said];
        if let Some(found) = &watch.found {
            parts.push(&found.finding.summary);
            if !found.finding.summary.contains(&found.mark) {
                parts.push(&found.mark);
            }
        }
        parts.retain(|part| !part.is_empty());
        let detect_ms = watch.found.as_ref().map(|f| f.ms);
        Self { held: false, detect_ms, stop_ms: None, evidence: parts.join("; ") }
    }
}

fn perform(
    drill: &Drill,
    agent: &Agent,
    status: &AgentStatus,
    program: &Path,
    patience: &Patience,
) -> DrillResult {
    let mut result = DrillResult {
        name: drill.name.to_owned(),
        phase: drill.phase.to_owned(),
        technique: drill.technique.to_owned(),
        expected: drill.expected.to_owned(),
        outcome: DrillOutcome::Failed,
        tier: None,
        detect_ms: None,
        stop_ms: None,
        evidence: String::new(),
    };
    if let Some((outcome, why)) = obstacle(drill, agent, status) {
        (result.outcome, result.evidence) = (outcome, why);
        return result;
    }
    let protection = status.protections.iter().find(|p| p.name == drill.protection);
    result.tier = protection.map_or(Some(status.tier), |p| p.tier);
    if drill.plot == Plot::Refuse(Code::Memory) && missing(Capability::TrustLsm, status).is_some() {
        result.tier = Some(Tier::Signal);
    }
    // What judges in the kernel does so on every file system; what asks is to ask about nobody else's.
    let asked = missing(Capability::TrustLsm, status).is_some()
        && missing(Capability::FanotifyPermission, status).is_none();
    match attempt((drill.plot, result.tier), asked, agent, program, patience) {
        Ok(seen) => {
            result.outcome = if seen.held { DrillOutcome::Held } else { DrillOutcome::Failed };
            (result.detect_ms, result.stop_ms, result.evidence) =
                (seen.detect_ms, seen.stop_ms, seen.evidence);
        }
        Err(why) => {
            result.evidence = format!("{why:#}");
            // An act that could not be played says nothing of the protection.
            if why.is::<CannotPlay>() {
                (result.outcome, result.tier) = (DrillOutcome::Unsupported, None);
            }
        }
    }
    result
}

/// Why a drill cannot be played here at all.
fn obstacle(drill: &Drill, agent: &Agent, status: &AgentStatus) -> Option<(DrillOutcome, String)> {
    let unsupported = |why: String| Some((DrillOutcome::Unsupported, why));
    let stopped = !matches!(drill.plot, Plot::Detect { .. });
    // What is off looks at nothing, a rehearsal or not. What cannot be is off too, and says below what it lacks.
    let looks = !stopped || matches!(drill.plot, Plot::Sample | Plot::Tamper | Plot::PortScan);
    let by_policy = |p: &ProtectionStatus| p.mode == Mode::Off && p.tier.is_some();
    if looks && status.protections.iter().any(|p| p.name == drill.protection && by_policy(p)) {
        return Some((DrillOutcome::Off, format!("`{}` is off by policy", drill.protection)));
    }
    let spoken_of = status.protections.iter().any(|p| p.name == drill.protection && p.mode != Mode::Off);
    if matches!(drill.plot, Plot::Inbound | Plot::Outbound) && !spoken_of {
        return Some((DrillOutcome::Off, format!("the policy has no `[{}]`", drill.protection)));
    }
    if stopped && !rustix::process::geteuid().is_root() {
        return unsupported(
            "root is missing: an act that is stopped needs a cgroup and a namespace".to_owned(),
        );
    }
    if stopped && !agent.takes_commands() {
        return unsupported("the agent's control socket cannot be reached".to_owned());
    }
    if stopped && status.disarmed_until.is_some() {
        return unsupported("Davy is disarmed; `davy disarm --end` arms it".to_owned());
    }
    let at_once =
        status.mode_of(drill.protection) == Some(Mode::Enforce) && status.policy.scope == WHOLE_HOST;
    if drill.plot == Plot::FreezeUndo && at_once {
        return unsupported(
            "the policy ends every miner on this host at once, so that none stays frozen".to_owned(),
        );
    }
    if drill.plot == Plot::FreezeUndo && respond::refuses_connections(status) {
        return unsupported("the policy refuses connections to the drill's pool on this host".to_owned());
    }
    let lacks = drill.needs.iter().find_map(|need| missing(*need, status))?;
    if let Plot::Refuse(code) = drill.plot
        && missing(code.needs_instead(), status).is_none()
    {
        return None;
    }
    unsupported(lacks)
}

/// What the agent says about a capability that it lacks.
fn missing(need: Capability, status: &AgentStatus) -> Option<String> {
    match status.probes.iter().find(|p| p.capability == need) {
        Some(probe) if probe.works => None,
        Some(probe) => Some(format!("{need:?} is missing: {}", probe.reason)),
        None => Some(format!("{need:?} is missing: the agent did not probe it")),
    }
}

fn attempt(
    (plot, tier): (Plot, Option<Tier>),
    asked: bool,
    agent: &Agent,
    program: &Path,
    patience: &Patience,
) -> anyhow::Result<Seen> {
    let set = |file_name, pool| {
        // Where no stage can be set, nothing was tried.
        Stage::set(program, file_name, pool).map_err(|why| anyhow::Error::new(CannotPlay(format!("{why:#}"))))
    };
    match plot {
        Plot::Detect { act, marks } => {
            let file_name = if act == Act::Masquerade { "kworker" } else { respond::PROGRAM };
            detect(act, marks, agent, &set(file_name, act.pool())?, patience)
        }
        Plot::Sample => sample::play(agent, &set(respond::PROGRAM, None)?, patience),
        Plot::Tamper => tamper::play(tier, agent, &set(respond::PROGRAM, None)?, patience),
        Plot::Inbound => connect::into(agent, &set(respond::PROGRAM, None)?, patience),
        Plot::Outbound => {
            let whole_host = agent.status()?.policy.scope == WHOLE_HOST;
            connect::out_of(whole_host, agent, &set(respond::PROGRAM, Some(Wire::Clear))?, patience)
        }
        Plot::PortScan => port_scan::play(agent, &set(respond::PROGRAM, None)?, patience),
        Plot::Isolate => isolate::play(agent, &set(respond::PROGRAM, Some(Wire::Clear))?),
        Plot::Refuse(code) => {
            let stage = set(respond::PROGRAM, None)?;
            let ground = asked.then(Ground::make).transpose();
            let ground = ground.map_err(|why| anyhow::Error::new(CannotPlay(format!("{why:#}"))))?;
            refuse::play(code, ground.as_ref(), agent, &stage, patience)
        }
        stopped => respond::play(stopped, agent, &set(respond::PROGRAM, Some(Wire::Clear))?, patience),
    }
}

fn detect(act: Act, marks: Marks, agent: &Agent, stage: &Stage, patience: &Patience) -> anyhow::Result<Seen> {
    let pool = stage.pool().map(|p| p.to_string()).unwrap_or_default();
    let resolver = stage.resolver().map_or_else(|| "-".to_owned(), |r| r.to_string());
    let bracketed = format!("[{KERNEL_THREAD}]");
    let argv0 = if act == Act::Masquerade { &bracketed } else { respond::PROGRAM };
    let line: &[&str] = match act {
        Act::Compute | Act::Throttled => &["compute", "2"],
        Act::Stratum => &["stratum", &pool, "0"],
        Act::PoolTls => &["pool-tls", &pool, stage.certificate()],
        Act::PoolName => &["pool-name", &pool, &resolver, LISTED_POOL],
        Act::Masquerade => &["renamed", KERNEL_THREAD],
        Act::Memfd => &["memfd"],
        Act::Deleted => &["deleted"],
        Act::Persistence => &["persistence"],
        Act::Campaign => &["campaign"],
    };
    let rehearsal = Rehearsal::to_reach_out(agent, stage)?;
    let mut watch = Watch::begin(agent, stage, argv0, line, patience)?;
    let pace = match act {
        Act::Throttled => Some(Pace::keep(watch.actor.handle()?, THROTTLE)),
        _ => None,
    };
    let seen = watch.until(|watch| Ok(watch.look(&[marks])?.then_some(())))?;
    drop((pace, rehearsal));
    // Where the policy enforces for the whole host, even an act that is only to be found is stopped.
    watch.actor.end();
    respond::leave_nothing(&watch, agent, stage);
    Ok(match seen {
        Some(()) => Seen::held(&watch, None, String::new()),
        None => Seen::not(&watch, "no such finding about the act"),
    })
}
