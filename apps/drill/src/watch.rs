//! What the agent says about one act, and how long that took.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use davy_model::{Action, ActionRecord, ActionState, Finding, Incident, IncidentId, Timestamp};

use crate::actor::Actor;
use crate::agent::Agent;
use crate::drill::Marks;
use crate::patience::Patience;
use crate::stage::Stage;

/// How often the agent is asked.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// How long an act may take to do what it is there for.
const READY: Duration = Duration::from_secs(10);

/// A process that used no CPU for so long, though it computes without end, stands still.
const STILL: Duration = Duration::from_millis(500);

/// A finding about the act.
#[derive(Debug)]
pub(crate) struct Found {
    /// Milliseconds from the steady act.
    pub(crate) ms: u64,
    pub(crate) finding: Finding,
    /// The evidence that it was recognised by, in plain words.
    pub(crate) mark: String,
}

/// One act that is being watched.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    agent: &'a Agent,
    pub(crate) actor: Actor,
    /// What the act said when it was steady.
    pub(crate) said: String,
    /// Whom a finding is to be about: the act, or who does it in its place.
    subject: u32,
    /// A little before the act began, on the agent's clock.
    pub(crate) since: Timestamp,
    /// When the act began: what was done before that was done about another.
    began: Timestamp,
    /// When the act did what it is there for.
    steady: Instant,
    until: Instant,
    patience: &'a Patience,
    /// What the agent found.
    pub(crate) found: Option<Found>,
}

impl<'a> Watch<'a> {
    /// Starts an act and waits until it does what it is there for.
    pub(crate) fn begin(
        agent: &'a Agent,
        stage: &Stage,
        argv0: &str,
        act: &[&str],
        patience: &'a Patience,
    ) -> anyhow::Result<Self> {
        let began = now();
        Self::of(agent, stage.play(argv0, act)?, began, patience)
    }

    /// Waits until an act that was started does what it is there for.
    pub(crate) fn of(
        agent: &'a Agent,
        actor: Actor,
        began: Timestamp,
        patience: &'a Patience,
    ) -> anyhow::Result<Self> {
        let since = began.plus_secs(-1.0);
        let (steady, said) = actor.wait_for("steady", READY)?;
        let subject = said.parse().unwrap_or(actor.pid());
        Ok(Self {
            agent,
            actor,
            said,
            subject,
            since,
            began,
            steady,
            until: Instant::now() + patience.length,
            patience,
            found: None,
        })
    }

    /// Milliseconds from the steady act to a moment on the agent's clock.
    pub(crate) fn ms_to(&self, moment: Timestamp) -> u64 {
        let ago = now().secs_since(moment).max(0.0) * 1000.0;
        self.elapsed().saturating_sub(ago as u64)
    }

    /// Milliseconds since the act was steady.
    pub(crate) fn elapsed(&self) -> u64 {
        u64::try_from(self.steady.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Asks the agent again and again until the closure has what it wants; `None` when time ran out.
    pub(crate) fn until<T>(
        &mut self,
        mut look: impl FnMut(&mut Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        loop {
            if let Some(seen) = look(self)? {
                return Ok(Some(seen));
            }
            self.patience.check()?;
            if Instant::now() >= self.until {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Looks for a finding about the act that has the marks, and keeps the first.
    pub(crate) fn look(&mut self, marks: &[Marks]) -> anyhow::Result<bool> {
        if self.found.is_none() {
            let findings = self.agent.findings(self.since)?;
            let ours = findings.into_iter().filter(|f| is_about(f, self.subject));
            self.found = ours.into_iter().find_map(|finding| {
                let mark = marks.iter().find_map(|m| m.fit(&finding))?.to_owned();
                Some(Found { ms: self.elapsed(), finding, mark })
            });
        }
        Ok(self.found.is_some())
    }

    /// The incident about the act.
    pub(crate) fn incident(&self) -> anyhow::Result<Option<Incident>> {
        let pid = self.actor.pid();
        let incidents = self.agent.incidents(self.since)?;
        Ok(incidents.into_iter().find(|i| {
            i.findings.iter().any(|f| is_about(f, pid))
                || i.tree.iter().any(|n| n.suspect && n.process.pid == pid)
        }))
    }

    /// Actions since the act began that the closure wants.
    pub(crate) fn actions(&self, wanted: impl Fn(&Action) -> bool) -> anyhow::Result<Vec<ActionRecord>> {
        let actions = self.agent.actions(self.began)?;
        Ok(actions.into_iter().filter(|r| wanted(&r.action)).collect())
    }

    /// Actions of an incident, done or only thought of, whenever that was.
    pub(crate) fn of_incident(&self, incident: IncidentId) -> anyhow::Result<Vec<ActionRecord>> {
        let actions = self.agent.actions(Timestamp::default())?;
        Ok(actions.into_iter().filter(|r| r.incident == Some(incident)).collect())
    }

    /// The first of those actions that was done; the reason, when the agent tried and did not.
    pub(crate) fn done(&self, wanted: impl Fn(&Action) -> bool) -> anyhow::Result<Option<ActionRecord>> {
        let records = self.actions(wanted)?;
        let ends = [ActionState::Done, ActionState::Undone, ActionState::Expired];
        if let Some(record) = records.iter().find(|r| ends.contains(&r.state)) {
            return Ok(Some(record.clone()));
        }
        let refused = records.iter().find(|r| matches!(r.state, ActionState::Failed | ActionState::Refused));
        match refused {
            Some(record) => anyhow::bail!("the agent did not do it ({:?}): {}", record.state, record.note),
            None => Ok(None),
        }
    }

    /// Waits until the act stands still; gives the milliseconds to its last sign of life.
    pub(crate) fn stands_still(&mut self) -> anyhow::Result<Option<u64>> {
        let mut ticks = self.actor.ticks().context("the act ended while it was to stand still")?;
        let mut last = (Instant::now(), self.elapsed());
        self.until(|watch| {
            let now = watch.actor.ticks().context("the act ended while it was to stand still")?;
            if now != ticks {
                ticks = now;
                last = (Instant::now(), watch.elapsed());
            }
            Ok((last.0.elapsed() >= STILL).then_some(last.1))
        })
    }

    /// Waits until the act computes again.
    pub(crate) fn runs_again(&mut self) -> anyhow::Result<bool> {
        let before = self.actor.ticks().context("the act ended while it stood still")?;
        let seen = self.until(|watch| {
            let now = watch.actor.ticks().context("the act ended instead of running on")?;
            Ok((now > before + 2).then_some(()))
        })?;
        Ok(seen.is_some())
    }

    /// Waits until the act has ended; gives the signal that ended it.
    pub(crate) fn ends(&mut self) -> anyhow::Result<Option<Option<i32>>> {
        self.until(|watch| Ok(watch.actor.ended()))
    }
}

/// Whether a finding is about a process.
pub(crate) fn is_about(finding: &Finding, pid: u32) -> bool {
    finding.subject.is_some_and(|p| p.pid == pid) || finding.processes.iter().any(|p| p.pid == pid)
}

/// Whether an action is on a process.
pub(crate) fn is_on(action: &Action, pid: u32) -> bool {
    match action {
        Action::Freeze { root, tree } | Action::Kill { root, tree } => {
            root.pid == pid || tree.iter().any(|p| p.pid == pid)
        }
        _ => false,
    }
}

/// The wall clock now.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
