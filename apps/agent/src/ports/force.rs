//! What holds in the kernel: a trial that undoes itself, what was confirmed, and how both are kept.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use davy_firewall::{Error, Refused, Standing};
use davy_model::{Door, Timestamp};
use davy_net::inbound::{Listener, Plan};
use davy_trust::host;
use serde::{Deserialize, Serialize};

use super::hand::Hand;
use super::moment::Moment;

/// For how long the kernel holds ports closed without hearing of an agent whose enforcement is not to outlive it, and how often
/// such an agent is heard of, in seconds.
const LEASE: Duration = Duration::from_secs(60);
const RENEW_SECS: f64 = 15.0;

/// How often the table is looked at although nobody seems to have changed anything, in seconds.
const LOOK_SECS: f64 = 30.0;

/// What outlives the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// What was confirmed, with all that it named as it was then.
    confirmed: Option<Plan>,
    /// The number of the action that it was closed by.
    #[serde(default)]
    action: Option<u64>,
    /// Whether something of Davy's may be in the kernel.
    touched: bool,
}

/// What is closed until it is confirmed.
#[derive(Clone, Debug)]
struct Trial {
    /// The number of the action that began it.
    action: u64,
    plan: Plan,
    /// By the clock that only goes on.
    ends: Duration,
}

impl Trial {
    fn left(&self, now: Moment) -> Duration {
        self.ends.saturating_sub(now.steady)
    }
}

/// What was put into the kernel.
#[derive(Debug)]
struct Put {
    doors: Vec<Door>,
    spared: Vec<IpAddr>,
    generation: u32,
    /// When the kernel was told last for how long it holds.
    told: Duration,
    /// When it was looked at last.
    looked: Duration,
    /// When the first of what is open for a time closes.
    ends: Option<Timestamp>,
}

/// Something that came to pass by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// The trial that this action began was not confirmed in time, or the policy enforces no more, and is undone.
    RolledBack { action: u64 },
}

/// What holds, and what is to hold.
pub(super) struct Force {
    hand: Box<dyn Hand>,
    file: PathBuf,
    /// Whether what was confirmed holds without an agent.
    outlives: bool,
    kept: Kept,
    trial: Option<Trial>,
    put: Option<Put>,
    /// Whether nothing of Davy's is in the kernel, for certain.
    clean: bool,
    spared: Vec<IpAddr>,
    /// Whether services listen elsewhere than when the doors were made.
    moved: bool,
    fault: Option<String>,
    put_back: u64,
}

impl Force {
    /// With what an earlier agent kept. `alone` says that no agent with another folder may have closed what is closed: where
    /// the file is gone then, nobody knows any more what is in the kernel, and it is looked at.
    pub(super) fn open(hand: Box<dyn Hand>, file: PathBuf, outlives: bool, alone: bool) -> Self {
        let lost = alone && !file.exists();
        let mut kept: Kept = host::load(&file).unwrap_or_else(|error| {
            tracing::error!("which ports were closed is lost, and so they are open: {error}");
            Kept { touched: true, ..Kept::default() }
        });
        kept.touched |= lost;
        Self {
            hand,
            file,
            outlives,
            kept,
            trial: None,
            put: None,
            clean: false,
            spared: Vec::new(),
            moved: false,
            fault: None,
            put_back: 0,
        }
    }

    /// Lets these in everywhere, from the next change on.
    pub(super) fn spare_from_now(&mut self, spared: &[IpAddr]) {
        self.spared = spared.to_vec();
    }

    /// Closes what the plan does not open, until it is confirmed or its time is over. `action` is its number in the journal.
    pub(super) fn apply(&mut self, action: u64, plan: Plan, seconds: u32, now: Moment) -> Result<(), String> {
        let ends = now.steady + Duration::from_secs(seconds.into());
        let before = self.trial.replace(Trial { action, plan, ends });
        self.put = None;
        let outcome = self.touch().and_then(|()| self.hold(now).map_err(|error| error.to_string()));
        if outcome.is_err() {
            self.trial = before;
        }
        outcome
    }

    /// Keeps what is on trial.
    pub(super) fn confirm(&mut self, now: Moment) -> Result<(), String> {
        let trial =
            self.trial.as_ref().ok_or("nothing waits to be confirmed; `davy ports` says what holds")?;
        let kept = Kept { confirmed: Some(trial.plan.clone()), action: Some(trial.action), touched: true };
        // Kept first: what the kernel held for good and nobody knew of would be there for ever.
        let before = std::mem::replace(&mut self.kept, kept);
        if let Err(error) = self.save() {
            self.kept = before;
            return Err(format!("it cannot be kept, so it is not confirmed and undoes itself: {error}"));
        }
        let trial = self.trial.take();
        match self.hand.renew(self.lease(now)) {
            Ok(()) => {
                if let Some(put) = &mut self.put {
                    put.told = now.steady;
                    put.generation = self.hand.generation().unwrap_or(put.generation);
                }
                Ok(())
            }
            Err(error) => {
                (self.trial, self.kept) = (trial, before);
                let _ = self.save();
                Err(format!("it is not confirmed, and undoes itself: {error}"))
            }
        }
    }

    /// Ends a trial before its time: what was confirmed before it holds again, else all is open.
    pub(super) fn abandon(&mut self, now: Moment) -> Result<(), String> {
        let Some(trial) = self.trial.take() else { return Ok(()) };
        let put = self.put.take();
        let outcome = if self.is_confirmed() { self.hold(now) } else { self.let_go() };
        outcome.map_err(|error| {
            (self.trial, self.put) = (Some(trial), put);
            error.to_string()
        })
    }

    /// Forgets what was confirmed. A trial goes on, and all is open when that is over.
    pub(super) fn forget(&mut self) -> Result<(), String> {
        if self.trial.is_none() {
            return self.release().map(drop);
        }
        let before = std::mem::replace(&mut self.kept, Kept { touched: true, ..Kept::default() });
        self.save().map_err(|error| {
            self.kept = before;
            format!("it cannot be kept, so what was confirmed stays: {error}")
        })
    }

    /// Opens everything, and forgets what was confirmed. Says whether anything was closed, which the kernel is asked for whatever
    /// was kept: what was kept may be lost.
    pub(super) fn release(&mut self) -> Result<bool, String> {
        let known = self.kept.touched || self.trial.is_some();
        let any = match self.hand.remove() {
            Ok(was_there) => known || was_there,
            Err(Error::Absent) if !self.is_confirmed() => known,
            Err(error) => return Err(error.to_string()),
        };
        (self.trial, self.put, self.fault, self.clean) = (None, None, None, true);
        if any {
            self.kept = Kept::default();
            self.save().map_err(|error| format!("all is open, but this cannot be kept: {error}"))?;
        }
        Ok(any)
    }

    /// Has the kernel hold what is to hold. `enforce` says whether the policy wants anything held at all.
    pub(super) fn tick(&mut self, enforce: bool, spared: &[IpAddr], now: Moment) -> Option<Happened> {
        self.spared = spared.to_vec();
        let over = self.trial.take_if(|trial| !enforce || trial.left(now).is_zero());
        if over.is_some() {
            self.put = None;
        }
        let outcome = if enforce && self.plan().is_some() { self.hold(now) } else { self.let_go() };
        let fault = outcome.err().map(|error| error.to_string());
        if fault.is_some() && fault != self.fault {
            tracing::error!(
                "ports are not closed as they are to be: {}",
                fault.as_deref().unwrap_or_default()
            );
        }
        self.fault = fault;
        over.map(|trial| Happened::RolledBack { action: trial.action })
    }

    /// The agent goes. `ordered` says that its enforcement is to go with it.
    pub(super) fn end(&mut self, ordered: bool, enforce: bool, now: Moment) {
        let stays = !ordered && self.outlives && enforce && self.kept.confirmed.is_some();
        if self.trial.take().is_some() {
            self.put = None;
        }
        let outcome = if stays { self.hold(now) } else { self.let_go() };
        if let Err(error) = outcome {
            tracing::error!("ports are not left as they are to be: {error}");
        }
    }

    /// Opens what is closed and says whether anything was; what was confirmed is kept for an agent that comes later.
    pub(super) fn take_away(mut self) -> Result<bool, String> {
        if !self.kept.touched {
            return Ok(false);
        }
        match self.hand.remove() {
            Ok(was_there) => Ok(was_there),
            Err(Error::Absent) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Looks where services listen now.
    pub(super) fn hear(&mut self, listeners: &[Listener]) {
        self.moved |= self.trial.as_mut().is_some_and(|trial| trial.plan.hear(listeners));
        if self.kept.confirmed.as_mut().is_some_and(|plan| plan.hear(listeners)) {
            self.moved = true;
            if let Err(error) = self.save() {
                tracing::warn!("where services listen now cannot be kept: {error}");
            }
        }
    }

    /// What is to hold.
    pub(super) fn plan(&self) -> Option<&Plan> {
        self.trial.as_ref().map(|trial| &trial.plan).or(self.kept.confirmed.as_ref())
    }

    /// Until when a trial must be confirmed, by people's clock as it goes now.
    pub(super) fn trial_until(&self, now: Moment) -> Option<Timestamp> {
        self.trial.as_ref().map(|trial| now.wall.plus_secs(trial.left(now).as_secs_f64()))
    }

    /// Whether what holds must yet be confirmed.
    pub(super) fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// The number of the action that closed what was confirmed.
    pub(super) fn confirmed_action(&self) -> Option<u64> {
        self.kept.action.filter(|_| self.is_confirmed())
    }

    /// Whether there is nothing to look after: nothing is to hold, and nothing is left to be taken away.
    pub(super) fn is_idle(&self) -> bool {
        self.trial.is_none() && self.put.is_none() && (!self.kept.touched || self.clean)
    }

    /// Whether anything was confirmed.
    pub(super) fn is_confirmed(&self) -> bool {
        self.kept.confirmed.is_some()
    }

    /// Whether the kernel holds it.
    pub(super) fn is_held(&self) -> bool {
        self.put.is_some()
    }

    /// How it stands in the kernel, where anything does.
    pub(super) fn standing(&mut self) -> Standing {
        if self.put.is_none() {
            return Standing::default();
        }
        self.hand.standing().unwrap_or_default()
    }

    /// Who was refused lately.
    pub(super) fn refused(&mut self) -> Vec<Refused> {
        if self.put.is_none() {
            return Vec::new();
        }
        self.hand.refused().unwrap_or_default()
    }

    /// What is wrong, in words.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.fault.iter().cloned().collect();
        if self.put_back > 0 {
            let times =
                if self.put_back == 1 { "once".to_owned() } else { format!("{} times", self.put_back) };
            faults.push(format!(
                "somebody removed Davy's table from nftables {times}, as `flush ruleset` does; it was put back within seconds"
            ));
        }
        faults
    }

    fn hold(&mut self, now: Moment) -> Result<(), Error> {
        let lease = self.lease(now);
        let ended = |put: &Put| put.ends.is_some_and(|ends| ends <= now.wall);
        let stale = self.moved || self.put.as_ref().is_none_or(ended);
        if stale {
            let Some(plan) = self.plan() else { return Ok(()) };
            let (doors, ends) = (plan.doors(now.wall), plan.ends(now.wall));
            let same = self.put.as_ref().is_some_and(|put| put.doors == doors);
            if !same {
                return self.put_in(doors, ends, lease, now);
            }
            if let Some(put) = &mut self.put {
                put.ends = ends;
            }
            self.moved = false;
        }
        let Some(put) = &self.put else { return Ok(()) };
        let (told, doors, ends) = (put.told, put.doors.clone(), put.ends);
        // Somebody's change right after Davy's own would have the generation of both.
        if self.hand.generation()? != put.generation || now.secs_since(put.looked) >= LOOK_SECS {
            let standing = self.hand.standing()?;
            if !standing.whole || !standing.armed {
                tracing::error!("somebody removed Davy's table from nftables; it is put back");
                self.put_back += 1;
                return self.put_in(doors, ends, lease, now);
            }
            self.note_generation();
            if let Some(put) = &mut self.put {
                put.looked = now.steady;
            }
        }
        // A trial was told its time when it began; who asks for more must confirm.
        if self.trial.is_none() && lease.is_some() && now.secs_since(told) >= RENEW_SECS {
            self.hand.renew(lease)?;
            self.note_generation();
            if let Some(put) = &mut self.put {
                put.told = now.steady;
            }
        }
        if self.put.as_ref().is_some_and(|put| put.spared != self.spared) {
            self.hand.spare(&self.spared)?;
            self.note_generation();
            if let Some(put) = &mut self.put {
                put.spared.clone_from(&self.spared);
            }
        }
        Ok(())
    }

    fn put_in(
        &mut self,
        doors: Vec<Door>,
        ends: Option<Timestamp>,
        lease: Option<Duration>,
        now: Moment,
    ) -> Result<(), Error> {
        self.put = None;
        self.clean = false;
        self.hand.close(&doors, &self.spared, lease)?;
        let generation = self.hand.generation()?;
        let (told, looked) = (now.steady, now.steady);
        self.put = Some(Put { doors, spared: self.spared.clone(), generation, told, looked, ends });
        self.moved = false;
        Ok(())
    }

    fn note_generation(&mut self) {
        if let (Ok(generation), Some(put)) = (self.hand.generation(), &mut self.put) {
            put.generation = generation;
        }
    }

    /// Takes what is in the kernel away, if anything may be.
    fn let_go(&mut self) -> Result<(), Error> {
        if !self.kept.touched {
            return Ok(());
        }
        if !self.clean {
            match self.hand.remove() {
                // What cannot be put there, and of which nobody knows that it was, is not there.
                Err(Error::Absent | Error::Forbidden) if !self.is_confirmed() => {}
                other => drop(other?),
            }
            (self.put, self.clean) = (None, true);
        }
        if !self.is_confirmed() {
            self.kept.touched = false;
            if let Err(error) = self.save() {
                tracing::warn!("that all ports are open cannot be kept: {error}");
            }
        }
        Ok(())
    }

    /// For how long the kernel is to hold it: a trial for its time, and what was confirmed for ever where it outlives the agent.
    fn lease(&self, now: Moment) -> Option<Duration> {
        match &self.trial {
            Some(trial) => Some(trial.left(now).max(Duration::from_millis(1))),
            None if self.outlives => None,
            None => Some(LEASE),
        }
    }

    /// Keeps in mind that there may be something in the kernel, before there is.
    fn touch(&mut self) -> Result<(), String> {
        if self.kept.touched {
            return Ok(());
        }
        self.kept.touched = true;
        self.save().map_err(|error| {
            self.kept.touched = false;
            format!("it cannot be kept that ports are closed, so nothing is: {error}")
        })
    }

    fn save(&self) -> std::io::Result<()> {
        host::save(&self.kept, &self.file)
    }
}

#[cfg(test)]
#[path = "force_tests.rs"]
mod tests;
