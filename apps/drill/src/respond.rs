//! Drills that Davy must stop, and whose stop it must be able to undo.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, ensure};
use davy_model::{Action, ActionRecord, ActionState, FindingKind, Mode, ProcessKey};
use davy_wire::AgentStatus;

use crate::actor::CannotPlay;
use crate::agent::Agent;
use crate::drill::{Marks, Plot};
use crate::patience::Patience;
use crate::runner::{Seen, WHOLE_HOST};
use crate::stage::Stage;
use crate::watch::{Found, Watch, is_on};

/// How long the agent is asked to enforce; longer than any act lives.
const REHEARSAL_SECS: u32 = 60;

/// The file name the act's program has.
pub(crate) const PROGRAM: &str = "davy-drill-act";

/// How long, and how often, it is looked whether the agent does anything more about an act that is over.
const SETTLING: Duration = Duration::from_millis(500);
const SETTLING_LOOKS: u32 = 10;

/// How long a probe of the pool may take to say what came of it.
const PROBE: Duration = Duration::from_secs(5);

/// Plays one of the drills that are stopped.
pub(crate) fn play(plot: Plot, agent: &Agent, stage: &Stage, patience: &Patience) -> anyhow::Result<Seen> {
    let cgroup = stage.cgroup().context("the act has no cgroup of its own")?;
    let pool = stage.pool().context("there is no pool")?.to_string();
    // Freezing is ordered and undone by hand; inside a rehearsal the act would be ended at once.
    let rehearsal = (plot != Plot::FreezeUndo).then(|| Rehearsal::begin(agent, cgroup)).transpose()?;
    let mut watch = Watch::begin(agent, stage, PROGRAM, &["stratum", &pool, "2"], patience)?;
    let seen = match plot {
        Plot::FreezeUndo => freeze_undo(&mut watch, agent),
        Plot::QuarantineUndo => quarantine_undo(&mut watch, agent, stage),
        Plot::Cut => cut(&mut watch, agent, stage),
        Plot::Kill
        | Plot::Detect { .. }
        | Plot::Refuse(_)
        | Plot::Sample
        | Plot::Tamper
        | Plot::PortScan
        | Plot::Inbound
        | Plot::Outbound
        | Plot::Isolate => kill(&mut watch),
    };
    drop(rehearsal);
    watch.actor.end();
    leave_nothing(&watch, agent, stage);
    seen
}

/// The agent enforces in the cgroup as long as this lives.
pub(crate) struct Rehearsal<'a> {
    agent: &'a Agent,
    cgroup: &'a str,
}

impl<'a> Rehearsal<'a> {
    pub(crate) fn begin(agent: &'a Agent, cgroup: &'a str) -> anyhow::Result<Self> {
        agent.rehearse(cgroup, REHEARSAL_SECS)?;
        Ok(Self { agent, cgroup })
    }

    /// Has the act let out to its pool, where the policy would refuse it: in a rehearsal connections are only observed. An act without a
    /// cgroup has its pool on loopback, which is refused to nobody.
    pub(crate) fn to_reach_out(agent: &'a Agent, stage: &'a Stage) -> anyhow::Result<Option<Self>> {
        let Some(cgroup) = stage.cgroup().filter(|_| stage.pool().is_some()) else { return Ok(None) };
        if !refuses_connections(&agent.status()?) {
            return Ok(None);
        }
        if !agent.takes_commands() {
            let why = "the policy refuses connections to the drill's pool, and the agent's control socket cannot be reached";
            return Err(CannotPlay(why.to_owned()).into());
        }
        Self::begin(agent, cgroup).map(Some)
    }
}

/// Whether no process of this host may connect to what no entry of the policy allows.
pub(crate) fn refuses_connections(status: &AgentStatus) -> bool {
    status.mode_of("outbound") == Some(Mode::Enforce) && status.policy.scope == WHOLE_HOST
}

impl Drop for Rehearsal<'_> {
    fn drop(&mut self) {
        let _ = self.agent.rehearse(self.cgroup, 0);
    }
}

fn kill(watch: &mut Watch<'_>) -> anyhow::Result<Seen> {
    let pid = watch.actor.pid();
    let ended = watch.until(|watch| {
        watch.look(&[Marks::MINING])?;
        Ok(watch.actor.ended().map(|signal| (watch.elapsed(), signal)))
    })?;
    let Some((end_ms, signal)) = ended else {
        return Ok(Seen::not(watch, "the act was not ended"));
    };
    ensure!(signal == Some(9), "the act ended by itself, not by SIGKILL");
    // The journal and the finding may reach the store a moment after the deed.
    let told = watch.until(|watch| {
        let known = watch.look(&[Marks::MINING])?;
        let frozen = watch.done(|a| matches!(a, Action::Freeze { .. }) && is_on(a, pid))?;
        let killed = watch.done(|a| matches!(a, Action::Kill { .. }) && is_on(a, pid))?;
        Ok(if known { frozen.zip(killed) } else { None })
    })?;
    let Some((frozen, killed)) = told else {
        return Ok(Seen::not(
            watch,
            "the act was ended, but the journal lacks the freeze, the kill or the finding",
        ));
    };
    ensure!(frozen.changed <= killed.changed, "the act was ended before it was frozen");
    // Frozen is stopped; the end, which is seen for certain, comes when the proof is kept and the line cut.
    let stop_ms = watch.ms_to(frozen.changed).min(end_ms);
    Ok(Seen::held(watch, Some(stop_ms), format!("frozen after {stop_ms} ms and ended after {end_ms} ms")))
}

fn freeze_undo(watch: &mut Watch<'_>, agent: &Agent) -> anyhow::Result<Seen> {
    let pid = watch.actor.pid();
    let incident =
        watch.until(|watch| Ok(if watch.look(&[Marks::MINING])? { watch.incident()? } else { None }))?;
    let (Some(incident), Some(Found { finding, .. })) = (incident, &watch.found) else {
        return Ok(Seen::not(watch, "no incident about the act"));
    };
    // What follows stops every living miner of the incident, so there must be none but the act: an incident joins by
    // cause, and the cause may be a session that others work in. Earlier acts may be part of it; they are dead.
    let mining = incident.findings.iter().filter(|f| f.kind == FindingKind::Mining).chain([finding]);
    let ordered = watch.of_incident(incident.id)?;
    let frozen = ordered.iter().filter_map(|r| match &r.action {
        Action::Freeze { root, tree } => Some(tree.iter().chain([root])),
        _ => None,
    });
    let stopped = mining.flat_map(|f| f.processes.iter().chain(&f.subject)).chain(frozen.flatten());
    if let Some(other) = stopped.filter(|p| p.pid != pid).find(|p| is_alive(p)) {
        let why =
            format!("the incident is about another miner too, process {}, so nothing was frozen", other.pid);
        return Err(CannotPlay(why).into());
    }
    agent.freeze(incident.id).context("freeze by order")?;
    let Some(stop_ms) = watch.stands_still()? else {
        return Ok(Seen::not(watch, "the act was to be frozen and ran on"));
    };
    agent.undo_incident(incident.id).context("undo the freeze")?;
    if !watch.runs_again()? {
        return Ok(Seen::not(watch, "the act still stood still after the undo"));
    }
    Ok(Seen::held(watch, Some(stop_ms), "frozen, and running again after the undo".to_owned()))
}

fn quarantine_undo(watch: &mut Watch<'_>, agent: &Agent, stage: &Stage) -> anyhow::Result<Seen> {
    let copy = stage.copy();
    let before = Kept::of(copy)?;
    let taken = watch.until(|watch| {
        watch.look(&[Marks::MINING])?;
        let record = watch.done(|a| matches!(a, Action::Quarantine { .. }) && concerns(a, 0, stage))?;
        Ok(record.map(|r| (r, watch.elapsed())))
    })?;
    let Some((record, stop_ms)) = taken else {
        return Ok(Seen::not(watch, "the act's file was not taken away"));
    };
    ensure!(!copy.exists(), "the journal says quarantined, but {} is still there", copy.display());
    // Given back only when the act is over, so that no second quarantine takes it again.
    ensure!(watch.ends()?.is_some(), "the act was not ended");
    agent.undo(record.id).context("undo the quarantine")?;
    let after = Kept::of(copy).context("look for the file after the undo")?;
    ensure!(before == after, "the file came back changed: {before:?} before, {after:?} after");
    let size = after.size;
    let said =
        format!("its file was taken away, and given back unchanged ({size} bytes, owner and mode too)");
    Ok(Seen::held(watch, Some(stop_ms), said))
}

fn cut(watch: &mut Watch<'_>, agent: &Agent, stage: &Stage) -> anyhow::Result<Seen> {
    let marks = [Marks::MINING, Marks::POOL];
    let cut = watch.until(|watch| {
        watch.look(&marks)?;
        let record = watch.done(|a| matches!(a, Action::Cut { .. }) && concerns(a, 0, stage))?;
        Ok(record.map(|r| (r, watch.elapsed())))
    })?;
    let Some((record, stop_ms)) = cut else {
        return Ok(Seen::not(watch, "the line to the pool was not cut"));
    };
    watch.look(&marks)?;
    let refused = probe(stage)?;
    ensure!(refused.starts_with("refused"), "the journal says cut, but the pool could still be reached");
    agent.undo(record.id).context("undo the cut")?;
    let allowed = probe(stage)?;
    ensure!(allowed == "connected", "the pool could not be reached after the undo: {allowed}");
    let said = format!("cut, and a new connection {refused}; allowed again after the undo");
    Ok(Seen::held(watch, Some(stop_ms), said))
}

/// Tries the pool from inside the act's cgroup and namespace.
pub(crate) fn probe(stage: &Stage) -> anyhow::Result<String> {
    let pool = stage.pool().context("there is no pool")?.to_string();
    stage.play_anew("davy-drill-probe", &["connect", &pool])?.line(PROBE).context("the probe said nothing")
}

/// Undoes whatever still stands because of the act: no quarantined copy, no block, no frozen process is left.
///
/// What the agent decided before it saw the act's end may still come, so this looks until nothing new has come for a while.
pub(crate) fn leave_nothing(watch: &Watch<'_>, agent: &Agent, stage: &Stage) {
    let pid = watch.actor.pid();
    let records = || watch.actions(|a| concerns(a, pid, stage)).unwrap_or_default();
    let open = |r: &ActionRecord| r.state == ActionState::Intended;
    let stands = |r: &ActionRecord| r.state == ActionState::Done && r.undoable;
    let mut count = usize::MAX;
    for _ in 0..SETTLING_LOOKS {
        let now = records();
        if now.is_empty() || (now.len() == count && !now.iter().any(|r| open(r) || stands(r))) {
            break;
        }
        count = now.len();
        for record in now.into_iter().filter(stands) {
            let _ = agent.undo(record.id);
        }
        std::thread::sleep(SETTLING);
    }
}

/// Whether this very process still lives, by its start (proc_pid_stat(5), field 22).
fn is_alive(process: &ProcessKey) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    let start = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19)?.parse::<u64>().ok());
    start == Some(process.start_ticks)
}

/// Whether an action is on the act's process, a file in its folder or its pool.
fn concerns(action: &Action, pid: u32, stage: &Stage) -> bool {
    match action {
        Action::Quarantine { path, .. } => std::path::Path::new(path).parent() == stage.copy().parent(),
        Action::Cut { destination, .. } => stage.pool().is_some_and(|p| p.ip() == destination.address),
        other => is_on(other, pid),
    }
}

/// What must be the same about a file that was taken away and given back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    size: u64,
    mode: u32,
    owner: (u32, u32),
    content: u64,
}

impl Kept {
    pub(crate) fn of(path: &std::path::Path) -> anyhow::Result<Self> {
        use std::hash::{DefaultHasher, Hasher};
        let meta = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&fs::read(path)?);
        let owner = (meta.uid(), meta.gid());
        Ok(Self { size: meta.size(), mode: meta.mode(), owner, content: hasher.finish() })
    }
}
