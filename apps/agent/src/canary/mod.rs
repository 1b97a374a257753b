//! The agent's own proof that what it enforces is enforced: a process of its own is frozen, cut off and ended, at start,
//! from time to time, and whenever a policy begins to enforce.
//!
//! It goes the way of every action: by the arbiter, past the failsafes, through the journal. Only the policy is not
//! asked, for nobody is harmed.

mod outbound;
mod play;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use davy_drill::Canary;
use davy_model::{Action, ActionRecord, ActionState, Capability, Mode};
use davy_wire::{Proof, Tally};
use tokio::sync::oneshot;

use crate::arbiter::Order;
use crate::clock;
use crate::protections;
use crate::shared::{Input, Intake, Shared, lock};
use play::{Acts, play};

/// When a canary that was not stopped is followed by another: on a busy host, or while somebody repairs what was broken, a
/// day is long.
const AGAIN: Duration = Duration::from_secs(60);

/// How often it is looked whether the policy wants canaries more often than it did.
const LOOK: Duration = Duration::from_secs(60);

/// What the thread is told.
#[derive(Debug)]
enum Word {
    /// Prove now.
    Now,
    /// Time to go.
    Stop,
}

/// The thread that proves.
pub(crate) struct Prover {
    words: SyncSender<Word>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Asks for a proof before its time.
#[derive(Clone, Debug)]
pub(crate) struct Poke(SyncSender<Word>);

impl Poke {
    /// Asks; one that is asked for already is enough.
    pub(crate) fn now(&self) {
        let _ = self.0.try_send(Word::Now);
    }
}

impl Prover {
    /// Proves once now if anything enforces, and then as often as the policy says.
    pub(crate) fn start(shared: Arc<Shared>, orders: SyncSender<Order>, intake: Intake) -> Result<Self> {
        let (words, heard) = sync_channel(1);
        let stopping = Arc::new(AtomicBool::new(false));
        let arbiter = ByOrder { orders, stopping: Arc::clone(&stopping) };
        let proving = Proving { shared, arbiter, intake };
        let thread =
            std::thread::Builder::new().name("davy-canary".to_owned()).spawn(move || proving.run(&heard))?;
        Ok(Self { words, stopping, thread })
    }

    /// A way to ask for a proof.
    pub(crate) fn poke(&self) -> Poke {
        Poke(self.words.clone())
    }

    /// Ends it. A proof that is being made is given up after its next step, which is a matter of seconds; the arbiter must
    /// still run.
    pub(crate) fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.words.send(Word::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the canary's thread had panicked");
        }
    }
}

struct Proving {
    shared: Arc<Shared>,
    arbiter: ByOrder,
    intake: Intake,
}

impl Proving {
    fn run(self, words: &Receiver<Word>) {
        // Also where nothing enforces now: the agent before this one may have.
        Canary::sweep();
        loop {
            let held = !self.is_wanted() || self.prove();
            let proven = Instant::now();
            loop {
                let every = pause(lock(&self.shared.rulebook).policy().drill.every, held);
                let left = every.map_or(LOOK, |every| every.saturating_sub(proven.elapsed()));
                match words.recv_timeout(left.min(LOOK)) {
                    Ok(Word::Now) => break,
                    Ok(Word::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) if every.is_some_and(|e| proven.elapsed() >= e) => break,
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
        }
    }

    /// Whether anything enforces now.
    fn is_wanted(&self) -> bool {
        if self.arbiter.is_stopping() {
            return false;
        }
        let policy = lock(&self.shared.rulebook).policy();
        let mut standing = lock(&self.shared.standing);
        let now = clock::now();
        protections::enforcing(&policy).any(|section| !standing.holds_back(section, now))
    }

    /// Says whether it held, or could not be tried at all.
    fn prove(&self) -> bool {
        if std::process::id() == 1 {
            tracing::warn!(
                "no canary: every orphan is a child of the first process, whose children are spared"
            );
            return true;
        }
        let mut tally = Tally::default();
        let outcome = self.start().and_then(|mut canary| {
            let scope = canary.cgroup().filter(|_| self.can_cut()).map(ToOwned::to_owned);
            let key = davy_proc::key(canary.pid()).context("it cannot be seen in /proc")?;
            let policy = lock(&self.shared.rulebook).policy();
            if let (Some(scope), Mode::Enforce) = (&scope, policy.outbound.mode)
                && !lock(&self.shared.standing).holds_back("outbound", clock::now())
            {
                outbound::prove(&mut canary, scope, &self.shared, &mut tally);
            }
            play(&mut canary, key, scope.as_deref(), &self.arbiter, &mut tally)
        });
        if self.arbiter.is_stopping() {
            return true;
        }
        if let Err(why) = outcome {
            // Not a protection that failed, but none that was proven either.
            tally.count("the canary could not be played", Err(format!("{why:#}")));
        }
        let tally = tally.bounded();
        let held = tally.all_held();
        match held {
            true => tracing::info!("canary: {} of {} held", tally.held, tally.of),
            false => tracing::error!("Davy's own canary was not stopped: {}", tally.failed.join("; ")),
        }
        let proof = Proof { time: clock::now(), tally };
        *lock(&self.shared.last_canary) = Some(proof.clone());
        self.intake.must(Input::Proven(proof));
        held
    }

    fn start(&self) -> Result<Canary> {
        Canary::start(&program()?)
    }

    fn can_cut(&self) -> bool {
        lock(&self.shared.probes).iter().any(|p| p.capability == Capability::CgroupBpf && p.works)
    }
}

/// How long until the next canary, by the policy and by what came of the last; `None` means until something changes.
fn pause(every: Option<Duration>, held: bool) -> Option<Duration> {
    if held { every } else { Some(every.map_or(AGAIN, |every| every.min(AGAIN))) }
}

/// Has the arbiter act.
struct ByOrder {
    orders: SyncSender<Order>,
    stopping: Arc<AtomicBool>,
}

impl ByOrder {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

impl Acts for ByOrder {
    fn act(&self, action: Action, cgroup: Option<&str>) -> Result<ActionRecord> {
        ensure!(!self.is_stopping(), "the agent is stopping");
        let (reply, answer) = oneshot::channel();
        let cgroup = cgroup.map(ToOwned::to_owned);
        self.orders.send(Order::Prove(action, cgroup, reply)).ok().context("the arbiter has stopped")?;
        let record = answer.blocking_recv().context("the arbiter did not answer")?;
        ensure!(record.state == ActionState::Done, "{}", record.note);
        Ok(record)
    }

    fn undo(&self, record: ActionRecord) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Undo(vec![record], reply)).ok().context("the arbiter has stopped")?;
        answer.blocking_recv().context("the arbiter did not answer")?.map(drop).map_err(anyhow::Error::msg)
    }
}

/// The agent's program, which has the verb for acts. After an upgrade its place holds the new one, which has it too.
fn program() -> Result<PathBuf> {
    let path = std::env::current_exe().context("find the agent's program")?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or(path.clone(), PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_not_stopped_is_soon_followed_by_another() {
        let day = Some(Duration::from_secs(86_400));
        assert_eq!((pause(day, true), pause(None, true)), (day, None));
        assert_eq!((pause(day, false), pause(None, false)), (Some(AGAIN), Some(AGAIN)));
    }
}
