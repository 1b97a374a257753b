//! What holds in the kernel: a trial that undoes itself, what was confirmed, and how both are kept.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use davy_firewall::{Error, Ports, Refused, Standing};
use davy_model::{Door, Timestamp};
use davy_net::inbound::{Listener, Plan};
use davy_trust::host;
use serde::{Deserialize, Serialize};

/// For how long the kernel holds ports closed without hearing of an agent whose enforcement is not to outlive it, and how often
/// such an agent is heard of, in seconds.
const LEASE_SECS: f64 = 60.0;
const RENEW_SECS: f64 = 15.0;

/// How often the table is looked at although nobody seems to have changed anything, in seconds.
const LOOK_SECS: f64 = 30.0;

/// The kernel's side; a test has one of its own.
pub(super) trait Hand: Send {
    fn close(&mut self, doors: &[Door], spared: &[IpAddr], lease: Option<Duration>) -> Result<(), Error>;
    fn renew(&mut self, lease: Option<Duration>) -> Result<(), Error>;
    fn spare(&mut self, administrators: &[IpAddr]) -> Result<(), Error>;
    fn remove(&mut self) -> Result<(), Error>;
    fn generation(&mut self) -> Result<u32, Error>;
    fn standing(&mut self) -> Result<Standing, Error>;
    fn refused(&mut self) -> Result<Vec<Refused>, Error>;
}

/// nftables in the agent's own network namespace, spoken to from the first time on that there is something to say.
#[derive(Debug, Default)]
pub(super) struct Nftables(Option<Ports>);

impl Nftables {
    fn ports(&mut self) -> Result<&Ports, Error> {
        match &mut self.0 {
            Some(ports) => Ok(ports),
            none => Ok(none.insert(Ports::open()?)),
        }
    }
}

impl Hand for Nftables {
    fn close(&mut self, doors: &[Door], spared: &[IpAddr], lease: Option<Duration>) -> Result<(), Error> {
        self.ports()?.close_all_but(doors, spared, lease)
    }

    fn renew(&mut self, lease: Option<Duration>) -> Result<(), Error> {
        self.ports()?.renew(lease)
    }

    fn spare(&mut self, administrators: &[IpAddr]) -> Result<(), Error> {
        self.ports()?.spare(administrators)
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.ports()?.remove()
    }

    fn generation(&mut self) -> Result<u32, Error> {
        self.ports()?.generation()
    }

    fn standing(&mut self) -> Result<Standing, Error> {
        self.ports()?.standing()
    }

    fn refused(&mut self) -> Result<Vec<Refused>, Error> {
        self.ports()?.refused()
    }
}

/// What outlives the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// What was confirmed, with all that it named as it was then.
    confirmed: Option<Plan>,
    /// Whether something of Davy's may be in the kernel.
    touched: bool,
}

/// What is closed until it is confirmed.
#[derive(Clone, Debug)]
struct Trial {
    plan: Plan,
    until: Timestamp,
}

/// What was put into the kernel.
#[derive(Debug)]
struct Put {
    doors: Vec<Door>,
    spared: Vec<IpAddr>,
    generation: u32,
    /// When the kernel was told last for how long it holds.
    told: Timestamp,
    /// When it was looked at last.
    looked: Timestamp,
    /// When the first of what is open for a time closes.
    ends: Option<Timestamp>,
}

/// Something that came to pass by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// A trial was not confirmed in time, or the policy enforces no more, and is undone.
    RolledBack,
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
    /// With what an earlier agent kept.
    pub(super) fn open(hand: Box<dyn Hand>, file: PathBuf, outlives: bool) -> Self {
        let kept: Kept = host::load(&file).unwrap_or_else(|error| {
            tracing::error!("which ports were closed is lost, and so they are open: {error}");
            Kept { touched: true, ..Kept::default() }
        });
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

    /// Closes what the plan does not open, until it is confirmed or its time is over.
    pub(super) fn apply(&mut self, plan: Plan, seconds: u32, now: Timestamp) -> Result<(), String> {
        let before = self.trial.replace(Trial { plan, until: now.plus_secs(f64::from(seconds)) });
        self.put = None;
        let outcome = self.touch().and_then(|()| self.hold(now).map_err(|error| error.to_string()));
        if outcome.is_err() {
            self.trial = before;
        }
        outcome
    }

    /// Keeps what is on trial.
    pub(super) fn confirm(&mut self, now: Timestamp) -> Result<(), String> {
        let trial =
            self.trial.as_ref().ok_or("nothing waits to be confirmed; `davy ports` says what holds")?;
        let kept = Kept { confirmed: Some(trial.plan.clone()), touched: true };
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
                    put.told = now;
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

    /// Opens everything, and forgets what was confirmed. Says whether anything was closed.
    pub(super) fn release(&mut self) -> Result<bool, String> {
        let any = self.kept.touched || self.trial.is_some();
        if any {
            self.hand.remove().map_err(|error| error.to_string())?;
        }
        (self.trial, self.put, self.fault, self.clean) = (None, None, None, true);
        if any {
            self.kept = Kept::default();
            self.save().map_err(|error| format!("all is open, but this cannot be kept: {error}"))?;
        }
        Ok(any)
    }

    /// Has the kernel hold what is to hold. `enforce` says whether the policy wants anything held at all.
    pub(super) fn tick(&mut self, enforce: bool, spared: &[IpAddr], now: Timestamp) -> Option<Happened> {
        self.spared = spared.to_vec();
        let over = self.trial.as_ref().is_some_and(|trial| !enforce || trial.until <= now);
        if over {
            self.trial = None;
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
        over.then_some(Happened::RolledBack)
    }

    /// The agent goes. `ordered` says that its enforcement is to go with it.
    pub(super) fn end(&mut self, ordered: bool, enforce: bool, now: Timestamp) {
        let stays = !ordered && self.outlives && enforce && self.kept.confirmed.is_some();
        if self.trial.take().is_some() {
            self.put = None;
        }
        let outcome = if stays { self.hold(now) } else { self.let_go() };
        if let Err(error) = outcome {
            tracing::error!("ports are not left as they are to be: {error}");
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

    /// Until when a trial must be confirmed.
    pub(super) fn trial_until(&self) -> Option<Timestamp> {
        self.trial.as_ref().map(|trial| trial.until)
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

    fn hold(&mut self, now: Timestamp) -> Result<(), Error> {
        let lease = self.lease(now);
        let ended = |put: &Put| put.ends.is_some_and(|ends| ends <= now);
        let stale = self.moved || self.put.as_ref().is_none_or(ended);
        if stale {
            let Some(plan) = self.plan() else { return Ok(()) };
            let (doors, ends) = (plan.doors(now), plan.ends(now));
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
                put.looked = now;
            }
        }
        // A trial was told its time when it began; who asks for more must confirm.
        if self.trial.is_none() && lease.is_some() && now.secs_since(told) >= RENEW_SECS {
            self.hand.renew(lease)?;
            self.note_generation();
            if let Some(put) = &mut self.put {
                put.told = now;
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
        now: Timestamp,
    ) -> Result<(), Error> {
        self.put = None;
        self.clean = false;
        self.hand.close(&doors, &self.spared, lease)?;
        let generation = self.hand.generation()?;
        self.put = Some(Put { doors, spared: self.spared.clone(), generation, told: now, looked: now, ends });
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
            self.hand.remove()?;
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
    fn lease(&self, now: Timestamp) -> Option<Duration> {
        let seconds = match &self.trial {
            Some(trial) => trial.until.secs_since(now).max(0.001),
            None if self.outlives => return None,
            None => LEASE_SECS,
        };
        Some(Duration::from_secs_f64(seconds))
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
