//! What is done to a canary, and whether it shows.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use davy_drill::Canary;
use davy_model::{Action, ActionRecord, Destination, ProcessKey};
use davy_wire::Tally;

/// A canary that says nothing for so long stands still.
const STILL: Duration = Duration::from_millis(500);

/// How long a connection from outside may take.
const REACH: Duration = Duration::from_secs(2);

/// How long its destination stays closed, in seconds, should the agent die meanwhile.
const CUT_SECS: u32 = 60;

/// Who acts on the canary.
pub(super) trait Acts {
    /// Does it, and fails when it says that it was not done. A cut is for this cgroup.
    fn act(&self, action: Action, cgroup: Option<&str>) -> Result<ActionRecord>;
    /// Undoes it, and fails when it says that it was not undone.
    fn undo(&self, record: ActionRecord) -> Result<()>;
}

/// Who is acted on.
pub(super) trait Bird {
    /// Whether it answers within the time, or as long as it may take.
    fn answers(&mut self, within: Option<Duration>) -> Result<bool>;
    /// What comes of a connection from where it is: `connected`, or `refused` and why.
    fn connect(&mut self, to: SocketAddr) -> Result<String>;
    /// Whether it ends in time.
    fn ends(&mut self) -> bool;
}

impl Bird for Canary {
    fn answers(&mut self, within: Option<Duration>) -> Result<bool> {
        Self::answers(self, within)
    }

    fn connect(&mut self, to: SocketAddr) -> Result<String> {
        Self::connect(self, to)
    }

    fn ends(&mut self) -> bool {
        Self::ends(self)
    }
}

/// Freezes, lets go, cuts off, lets through and ends, and counts each by what the bird shows, not by what is said of it.
/// Without a cgroup it is not cut off.
///
/// # Errors
/// When it cannot be told what came of an act; what is counted by then stands.
pub(super) fn play(
    bird: &mut impl Bird,
    key: ProcessKey,
    cgroup: Option<&str>,
    acts: &impl Acts,
    tally: &mut Tally,
) -> Result<()> {
    ensure!(bird.answers(None)?, "it does not answer");
    let tree = vec![key];
    let frozen = acts.act(Action::Freeze { root: key, tree: tree.clone() }, None);
    let record = frozen.as_ref().ok().cloned();
    let stands = frozen.and_then(|_| {
        ensure!(!bird.answers(Some(STILL))?, "it runs on");
        Ok(())
    });
    count(tally, "freeze", stands);
    if let Some(record) = record {
        let runs = acts.undo(record).and_then(|()| {
            ensure!(bird.answers(None)?, "it stands still");
            Ok(())
        });
        count(tally, "undo of the freeze", runs);
    }
    if let Some(cgroup) = cgroup {
        cut(bird, cgroup, acts, tally)?;
    }
    let killed = acts.act(Action::Kill { root: key, tree }, None).and_then(|_| {
        ensure!(bird.ends(), "it runs on");
        Ok(())
    });
    count(tally, "kill", killed);
    Ok(())
}

/// Loopback and a port of the agent's own, so that nothing leaves the host whatever comes of it.
fn cut(bird: &mut impl Bird, cgroup: &str, acts: &impl Acts, tally: &mut Tally) -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0").context("listen for the canary")?;
    let address = port.local_addr().context("listen for the canary")?;
    let before = bird.connect(address)?;
    ensure!(before == "connected", "its connection was {before} before anything was cut");
    let destination = Destination { address: address.ip(), port: address.port() };
    let cut = acts.act(Action::Cut { destination, cgroup: None, seconds: CUT_SECS }, Some(cgroup));
    let record = cut.as_ref().ok().cloned();
    let refused = cut.and_then(|_| {
        let inside = bird.connect(address)?;
        ensure!(inside.starts_with("refused"), "it is {inside} all the same");
        TcpStream::connect_timeout(&address, REACH).context("others are cut off too")?;
        Ok(())
    });
    count(tally, "cut", refused);
    if let Some(record) = record {
        let open = acts.undo(record).and_then(|()| {
            let after = bird.connect(address)?;
            ensure!(after == "connected", "its connection is {after} still");
            Ok(())
        });
        count(tally, "undo of the cut", open);
    }
    Ok(())
}

fn count(tally: &mut Tally, what: &str, outcome: Result<()>) {
    tally.count(what, outcome.map_err(|why| format!("{why:#}")));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;
    use std::rc::Rc;

    use davy_model::{ActionState, FindingId};

    use super::*;
    use crate::deed;

    const KEY: ProcessKey = ProcessKey { pid: 7, start_ticks: 11, boot: 1 };

    /// What acts do to a bird that is no process.
    #[derive(Debug, Default)]
    struct World {
        frozen: bool,
        cut: bool,
        ended: bool,
    }

    struct Tame(Rc<RefCell<World>>);

    impl Bird for Tame {
        fn answers(&mut self, _: Option<Duration>) -> Result<bool> {
            ensure!(!self.0.borrow().ended, "the canary has ended");
            Ok(!self.0.borrow().frozen)
        }

        fn connect(&mut self, to: SocketAddr) -> Result<String> {
            let cut = self.0.borrow().cut;
            let reached =
                if cut { Err("by a program") } else { TcpStream::connect(to).map_err(|_| "nobody") };
            Ok(reached.map_or_else(|why| format!("refused {why}"), |_| "connected".to_owned()))
        }

        fn ends(&mut self) -> bool {
            self.0.borrow().ended
        }
    }

    /// Says of everything that it is done, and does all but one of it.
    struct Arbiter {
        world: Rc<RefCell<World>>,
        forgets: &'static str,
        refuses: &'static str,
        asked: RefCell<Vec<(String, Option<String>)>>,
    }

    impl Acts for Arbiter {
        fn act(&self, action: Action, cgroup: Option<&str>) -> Result<ActionRecord> {
            let mut world = self.world.borrow_mut();
            let (name, state) = match action {
                Action::Freeze { .. } => ("freeze", &mut world.frozen),
                Action::Cut { .. } => ("cut", &mut world.cut),
                _ => ("kill", &mut world.ended),
            };
            self.asked.borrow_mut().push((name.to_owned(), cgroup.map(ToOwned::to_owned)));
            ensure!(name != self.refuses, "a failsafe forbids it");
            *state |= name != self.forgets;
            Ok(ActionRecord { state: ActionState::Done, ..deed::canary(action) })
        }

        fn undo(&self, record: ActionRecord) -> Result<()> {
            assert!(record.is_canary());
            let mut world = self.world.borrow_mut();
            let (name, state) = match record.action {
                Action::Freeze { .. } => ("undo freeze", &mut world.frozen),
                _ => ("undo cut", &mut world.cut),
            };
            *state &= name == self.forgets;
            Ok(())
        }
    }

    fn played(forgets: &'static str, refuses: &'static str, cgroup: Option<&str>) -> (Tally, Result<()>) {
        let world = Rc::new(RefCell::new(World::default()));
        let arbiter = Arbiter { world: Rc::clone(&world), forgets, refuses, asked: RefCell::default() };
        let mut tally = Tally::default();
        let outcome = play(&mut Tame(world), KEY, cgroup, &arbiter, &mut tally);
        let cuts = arbiter.asked.into_inner().into_iter().filter(|(name, _)| name == "cut");
        assert!(
            cuts.map(|(_, scope)| scope).all(|scope| scope.as_deref() == cgroup),
            "never wider than asked"
        );
        (tally, outcome)
    }

    #[test]
    fn what_is_done_holds() {
        let (tally, outcome) = played("nothing", "nothing", Some("/davy-canary-1"));
        outcome.unwrap();
        assert_eq!((tally.held, tally.of, tally.failed.len()), (5, 5, 0));
        let (tally, outcome) = played("nothing", "nothing", None);
        outcome.unwrap();
        assert_eq!((tally.held, tally.of), (3, 3), "nobody is cut off without a cgroup to scope it by");
    }

    #[test]
    fn what_is_only_said_to_be_done_does_not() {
        for (forgotten, failure) in [
            ("freeze", "freeze: it runs on"),
            ("cut", "cut: it is connected all the same"),
            ("undo cut", "undo of the cut: its connection is refused by a program still"),
            ("kill", "kill: it runs on"),
        ] {
            let (tally, outcome) = played(forgotten, "nothing", Some("/davy-canary-1"));
            outcome.unwrap();
            assert_eq!(
                (tally.held, tally.of, tally.failed.as_slice()),
                (4, 5, [failure.to_owned()].as_slice())
            );
        }
        let (tally, _) = played("undo freeze", "nothing", None);
        assert!(tally.failed.contains(&"undo of the freeze: it stands still".to_owned()), "{tally:?}");
    }

    #[test]
    fn what_is_refused_does_not_and_is_not_undone() {
        let (tally, outcome) = played("nothing", "freeze", None);
        outcome.unwrap();
        assert_eq!((tally.held, tally.of), (1, 2));
        assert_eq!(tally.failed, ["freeze: a failsafe forbids it"]);
    }

    #[test]
    fn only_what_is_done_for_nothing_is_the_canary_s() {
        let action = Action::Freeze { root: KEY, tree: vec![KEY] };
        assert!(deed::canary(action.clone()).is_canary());
        assert!(!deed::record(None, Some(FindingId(1)), action, ActionState::Intended, "").is_canary());
    }
}
