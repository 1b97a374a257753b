#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use davy_policy::Policy;

use super::*;
use crate::shared::lock;

/// A kernel that remembers what it was told, and forgets what has a lease when that is over.
#[derive(Debug, Default)]
struct Fake {
    doors: Option<Vec<Door>>,
    spared: Vec<IpAddr>,
    lease: Option<Duration>,
    generation: u32,
    renewed: u32,
    refuses: bool,
    absent: bool,
}

#[derive(Clone, Default)]
struct Kernel(Arc<Mutex<Fake>>);

impl Kernel {
    fn holds(&self) -> Option<usize> {
        lock(&self.0).doors.as_ref().map(Vec::len)
    }

    /// As `nft flush ruleset` does it.
    fn flush(&self) {
        let mut kernel = lock(&self.0);
        kernel.doors = None;
        kernel.generation += 1;
    }
}

fn changed(kernel: &mut Fake) -> Result<(), Error> {
    kernel.generation += 1;
    match (kernel.absent, kernel.refuses) {
        (true, _) => Err(Error::Absent),
        (_, true) => {
            let source = std::io::Error::from_raw_os_error(5);
            Err(Error::Refused { act: "make the table davy".to_owned(), source, hint: "" })
        }
        _ => Ok(()),
    }
}

impl Hand for Kernel {
    fn close(&mut self, doors: &[Door], spared: &[IpAddr], lease: Option<Duration>) -> Result<(), Error> {
        let kernel = &mut lock(&self.0);
        changed(kernel)?;
        (kernel.doors, kernel.spared, kernel.lease) = (Some(doors.to_vec()), spared.to_vec(), lease);
        Ok(())
    }

    fn renew(&mut self, lease: Option<Duration>) -> Result<(), Error> {
        let kernel = &mut lock(&self.0);
        changed(kernel)?;
        kernel.lease = lease;
        kernel.renewed += 1;
        Ok(())
    }

    fn spare(&mut self, administrators: &[IpAddr]) -> Result<(), Error> {
        let kernel = &mut lock(&self.0);
        changed(kernel)?;
        kernel.spared = administrators.to_vec();
        Ok(())
    }

    fn remove(&mut self) -> Result<bool, Error> {
        let kernel = &mut lock(&self.0);
        changed(kernel)?;
        Ok(kernel.doors.take().is_some())
    }

    fn generation(&mut self) -> Result<u32, Error> {
        Ok(lock(&self.0).generation)
    }

    fn standing(&mut self) -> Result<Standing, Error> {
        let held = lock(&self.0).doors.is_some();
        Ok(Standing { whole: held, armed: held, refused: 0 })
    }

    fn refused(&mut self) -> Result<Vec<Refused>, Error> {
        Ok(Vec::new())
    }
}

/// A moment so many seconds after the beginning.
fn at(secs: u32) -> Moment {
    let wall = Timestamp::from_secs(1_790_000_000 + i64::from(secs));
    Moment { wall, steady: Duration::from_secs(u64::from(secs) + 100) }
}

/// What happens when a trial that began so is not confirmed.
fn rolled_back(action: u64) -> Option<Happened> {
    Some(Happened::RolledBack { action })
}

/// A plan that opens so many ports.
fn plan(ports: u16) -> Plan {
    let entry =
        |n: u16| format!("[[inbound.allow]]\nport = {}\nfrom = [\"anyone\"]\nreason = \"r\"\n", n * 2 + 1);
    let policy = Policy::parse("p", &(0..ports).map(entry).collect::<String>()).unwrap();
    Plan::make(&policy.inbound, &policy.origin, |_| Err(String::new())).unwrap()
}

fn force(kernel: &Kernel, folder: &Path, outlives: bool) -> Force {
    Force::open(Box::new(kernel.clone()), folder.join("ports.json"), outlives, true)
}

#[test]
fn a_trial_that_nobody_confirms_gives_way_to_what_was_confirmed_before() {
    let (kernel, folder) = (Kernel::default(), tempfile::tempdir().unwrap());
    let mut force = force(&kernel, folder.path(), true);
    force.apply(1, plan(1), 60, at(0)).unwrap();
    assert_eq!((kernel.holds(), lock(&kernel.0).lease), (Some(1), Some(Duration::from_secs(60))));
    assert_eq!(force.tick(true, &[], at(59)), None);
    assert_eq!(force.tick(true, &[], at(60)), rolled_back(1));
    assert_eq!(kernel.holds(), None, "before it, all was open");

    force.apply(2, plan(2), 60, at(100)).unwrap();
    force.confirm(at(110)).unwrap();
    assert_eq!(lock(&kernel.0).lease, None, "for good");
    assert!(force.confirm(at(111)).is_err(), "nothing waits");
    force.apply(3, plan(3), 60, at(200)).unwrap();
    assert_eq!(kernel.holds(), Some(3));
    assert_eq!(force.tick(true, &[], at(260)), rolled_back(3));
    assert_eq!((kernel.holds(), lock(&kernel.0).lease), (Some(2), None));
    assert!(force.release().unwrap() && !force.release().unwrap());
    assert_eq!(kernel.holds(), None);
    assert_eq!(force.tick(true, &[], at(300)), None);
    assert_eq!(kernel.holds(), None, "opened is opened");
}

#[test]
fn an_agent_that_died_on_trial_left_nothing_closed_and_one_that_had_confirmed_goes_on() {
    let (kernel, folder) = (Kernel::default(), tempfile::tempdir().unwrap());
    let mut first = force(&kernel, folder.path(), true);
    first.apply(1, plan(1), 60, at(0)).unwrap();
    drop(first);
    let mut second = force(&kernel, folder.path(), true);
    assert_eq!(
        (second.tick(true, &[], at(5)), kernel.holds()),
        (None, None),
        "undone before its time is over"
    );
    second.apply(2, plan(2), 60, at(10)).unwrap();
    second.confirm(at(20)).unwrap();
    drop(second);
    let mut third = force(&kernel, folder.path(), true);
    assert!(third.is_confirmed());
    third.tick(true, &[], at(30));
    assert_eq!(kernel.holds(), Some(2));
    // The policy enforces no more.
    third.tick(false, &[], at(31));
    assert_eq!(kernel.holds(), None);
    third.tick(true, &[], at(32));
    assert_eq!(kernel.holds(), Some(2), "what was confirmed holds again");
    third.apply(3, plan(3), 60, at(40)).unwrap();
    assert_eq!(third.tick(false, &[], at(41)), rolled_back(3), "disarmed on trial");
    drop(third);
    // Changed while no agent ran.
    kernel.flush();
    lock(&kernel.0).doors = Some(Vec::new());
    let mut fourth = force(&kernel, folder.path(), true);
    fourth.tick(false, &[], at(50));
    assert_eq!(kernel.holds(), None, "what is pinned goes when the policy enforces no more");
}

#[test]
fn what_is_not_to_outlive_the_agent_lives_on_a_lease() {
    let (kernel, folder) = (Kernel::default(), tempfile::tempdir().unwrap());
    let mut mortal = force(&kernel, folder.path(), false);
    mortal.apply(1, plan(1), 60, at(0)).unwrap();
    mortal.confirm(at(1)).unwrap();
    assert_eq!(lock(&kernel.0).lease, Some(Duration::from_secs(60)));
    for second in 2..32 {
        mortal.tick(true, &[], at(second));
    }
    assert_eq!(lock(&kernel.0).renewed, 3, "at its confirmation, and every fifteen seconds");
    mortal.end(false, true, at(40));
    assert_eq!(kernel.holds(), None, "Ctrl-C leaves nothing behind");

    let mut outliving = force(&kernel, folder.path(), true);
    outliving.tick(true, &[], at(50));
    outliving.apply(4, plan(4), 60, at(51)).unwrap();
    outliving.end(false, true, at(52));
    assert_eq!(
        (kernel.holds(), lock(&kernel.0).lease),
        (Some(1), None),
        "the trial goes, what was confirmed stays"
    );
    outliving.end(true, true, at(53));
    assert_eq!(kernel.holds(), None, "an order to stop takes it away");
}

#[test]
fn a_reload_of_somebody_elses_firewall_is_made_good() {
    let (kernel, folder) = (Kernel::default(), tempfile::tempdir().unwrap());
    let mut force = force(&kernel, folder.path(), true);
    force.apply(1, plan(1), 60, at(0)).unwrap();
    force.confirm(at(1)).unwrap();
    kernel.flush();
    force.tick(true, &[], at(2));
    assert_eq!(kernel.holds(), Some(1));
    assert!(force.faults()[0].contains("once"), "{:?}", force.faults());
    // Even when its generation could not be told from Davy's own.
    lock(&kernel.0).doors = None;
    force.tick(true, &[], at(3));
    assert_eq!(kernel.holds(), None);
    force.tick(true, &[], at(40));
    assert_eq!(kernel.holds(), Some(1));
    assert!(force.faults()[0].contains("2 times"));
}

#[test]
fn a_kernel_that_refuses_is_told_and_nothing_counts_as_closed() {
    let (kernel, folder) = (Kernel::default(), tempfile::tempdir().unwrap());
    lock(&kernel.0).refuses = true;
    let mut force = force(&kernel, folder.path(), true);
    let why = force.apply(1, plan(1), 60, at(0)).unwrap_err();
    assert!(why.contains("nftables refused"), "{why}");
    assert!(!force.is_held() && !force.is_on_trial() && force.confirm(at(1)).is_err());
    force.tick(true, &[], at(2));
    assert!(force.faults()[0].contains("nftables refused"), "{:?}", force.faults());
    lock(&kernel.0).refuses = false;
    force.tick(true, &[], at(3));
    assert!(force.faults().is_empty());
}

#[test]
fn a_trial_that_cannot_be_written_down_is_not_confirmed() {
    let (kernel, folder) = (Kernel::default(), tempfile::tempdir().unwrap());
    let place = folder.path().join("state");
    std::fs::create_dir(&place).unwrap();
    let mut force = force(&kernel, &place, true);
    force.apply(1, plan(1), 60, at(0)).unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    assert!(force.confirm(at(1)).unwrap_err().contains("undoes itself"));
    assert_eq!(force.tick(true, &[], at(60)), rolled_back(1));
    assert_eq!(kernel.holds(), None);
}

#[test]
fn administrators_who_come_and_services_that_move_are_followed() {
    let (kernel, folder) = (Kernel::default(), tempfile::tempdir().unwrap());
    let text = "[[inbound.allow]]\nservice = \"web.service\"\nfrom = [\"anyone\"]\nreason = \"r\"\n\
        [[inbound.allow]]\nport = 1\nfrom = [\"anyone\"]\nreason = \"r\"\nuntil = 2026-09-22\n";
    let policy = Policy::parse("p", text).unwrap();
    let mut plan = Plan::make(&policy.inbound, &policy.origin, |_| Err(String::new())).unwrap();
    let listens = |port| Listener {
        transport: davy_model::Transport::Tcp,
        port,
        service: Some("web.service".to_owned()),
    };
    plan.hear(&[listens(8080)]);
    let mut force = force(&kernel, folder.path(), true);
    force.apply(1, plan, 60, at(0)).unwrap();
    force.confirm(at(1)).unwrap();
    let ports =
        || lock(&kernel.0).doors.as_ref().unwrap().iter().map(|door| door.ports.first()).collect::<Vec<_>>();
    assert_eq!(ports(), [1, 8080]);
    let office: IpAddr = "203.0.113.9".parse().unwrap();
    force.tick(true, &[office], at(2));
    assert_eq!(lock(&kernel.0).spared, [office]);
    force.hear(&[listens(9090)]);
    force.tick(true, &[office], at(3));
    assert_eq!(ports(), [1, 9090]);
    force.hear(&[]);
    force.tick(true, &[office], at(4));
    assert_eq!(ports(), [1, 9090], "it may only be restarting");
    let day = 86_400 * 3;
    force.tick(true, &[office], at(day));
    assert_eq!(
        (ports(), lock(&kernel.0).spared.clone()),
        (vec![9090], vec![office]),
        "what is open for a time closes"
    );
}

#[test]
fn whatever_was_kept_the_kernel_is_asked() {
    let (kernel, folder) = (Kernel::default(), tempfile::tempdir().unwrap());
    // The state was removed, and what it told of was not.
    lock(&kernel.0).doors = Some(Vec::new());
    let mut first = force(&kernel, folder.path(), true);
    first.tick(true, &[], at(0));
    assert_eq!(kernel.holds(), None, "nobody knows why it is closed");
    assert!(first.is_idle());
    // Somebody else's hand, of whom nothing was kept.
    lock(&kernel.0).doors = Some(Vec::new());
    assert!(first.release().unwrap());
    assert_eq!((kernel.holds(), first.release().unwrap()), (None, false));

    let elsewhere = tempfile::tempdir().unwrap();
    lock(&kernel.0).doors = Some(Vec::new());
    let file = elsewhere.path().join("ports.json");
    let mut second = Force::open(Box::new(kernel.clone()), file, true, false);
    second.tick(true, &[], at(1));
    assert_eq!(kernel.holds(), Some(0), "of another folder's agent, whose table it is");
}

#[test]
fn a_kernel_without_nftables_is_no_fault_while_nothing_is_to_be_closed() {
    let (kernel, folder) = (Kernel::default(), tempfile::tempdir().unwrap());
    lock(&kernel.0).absent = true;
    let mut force = force(&kernel, folder.path(), true);
    force.tick(false, &[], at(0));
    assert!(force.faults().is_empty() && force.is_idle(), "{:?}", force.faults());
    assert!(!force.release().unwrap());
    let why = force.apply(1, plan(1), 60, at(1)).unwrap_err();
    assert!(why.contains("CONFIG_NF_TABLES"), "{why}");
}

#[test]
fn a_clock_that_is_set_changes_no_trial_and_no_lease() {
    let (kernel, folder) = (Kernel::default(), tempfile::tempdir().unwrap());
    let mut force = force(&kernel, folder.path(), false);
    let day = 86_400.0;
    let set = |secs, by| Moment { wall: at(secs).wall.plus_secs(by), ..at(secs) };
    force.apply(1, plan(1), 60, at(0)).unwrap();
    assert_eq!(force.tick(true, &[], set(59, day)), None, "a day later by people's clock");
    assert_eq!(force.trial_until(set(59, day)), Some(set(60, day).wall));
    assert_eq!(force.tick(true, &[], set(60, -day)), rolled_back(1), "and a day earlier");
    force.apply(2, plan(2), 60, at(100)).unwrap();
    force.confirm(at(101)).unwrap();
    for second in 102..132 {
        force.tick(true, &[], set(second, -day));
    }
    assert_eq!(lock(&kernel.0).renewed, 3, "the lease is renewed however the clock is set");
}

#[test]
fn what_is_undone_gives_way_to_what_stood_before_it() {
    let (kernel, folder) = (Kernel::default(), tempfile::tempdir().unwrap());
    let mut force = force(&kernel, folder.path(), true);
    force.apply(1, plan(1), 60, at(0)).unwrap();
    force.abandon(at(1)).unwrap();
    assert_eq!(kernel.holds(), None, "nothing stood before the first");
    force.apply(2, plan(2), 60, at(10)).unwrap();
    force.confirm(at(11)).unwrap();
    assert_eq!(force.confirmed_action(), Some(2));
    force.apply(3, plan(3), 60, at(20)).unwrap();
    lock(&kernel.0).refuses = true;
    assert!(force.abandon(at(21)).is_err() && force.is_on_trial(), "it goes on, and ends by itself");
    lock(&kernel.0).refuses = false;
    force.abandon(at(22)).unwrap();
    assert_eq!((kernel.holds(), lock(&kernel.0).lease, force.confirmed_action()), (Some(2), None, Some(2)));
    // What was confirmed goes, and the trial that is on goes on until its time.
    force.apply(4, plan(4), 60, at(30)).unwrap();
    force.forget().unwrap();
    assert_eq!((kernel.holds(), force.confirmed_action()), (Some(4), None));
    assert_eq!(force.tick(true, &[], at(90)), rolled_back(4));
    assert_eq!(kernel.holds(), None);
}
