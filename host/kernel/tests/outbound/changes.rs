//! One policy after the other, and one agent after the other.

use davy_kernel::{SensorConfig, cgroup2_mount};
use davy_model::{OutboundMode, OutboundModes, OutboundTables, RuleSet, reversed_name};

use crate::live::own::OwnBpfFileSystem;
use crate::live::{self, Live};
use crate::{NEEDED, REFUSED, Unit, by_name, gate, one, peer, web};

#[test]
fn what_cannot_be_applied_changes_nothing_but_is_disarmed_all_the_same() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let unit = Unit::make("part");
    let gate = gate(&live);
    let many = (0..5000).map(|number| (reversed_name(&format!("n{number}.example")).unwrap(), one(0)));
    let too_many = OutboundTables { names: many.collect(), any_unit: RuleSet::ALL, ..web(&unit.name) };
    let mut inside = peer::start(Some(unit.path()));
    let (allowed, other) = ("connect 198.51.100.1:8080", "connect 203.0.113.7:8080");
    let fails = |mode| {
        let full = gate.apply(&too_many, &unit.modes(mode)).unwrap_err();
        assert!(full.to_string().contains("the table of names"), "{full}");
    };
    fails(OutboundMode::Enforce);
    assert_eq!(inside.ask(other), "ok", "there was no policy before");
    gate.apply(&web(&unit.name), &unit.modes(OutboundMode::Enforce)).unwrap();
    fails(OutboundMode::Enforce);
    assert_eq!((inside.ask(allowed).as_str(), inside.ask(other).as_str()), ("ok", REFUSED));
    // Disarmed, or fallen back, with a policy that cannot be applied.
    fails(OutboundMode::Observe);
    assert_eq!(inside.ask(other), "ok");
    // And armed again, as before.
    fails(OutboundMode::Enforce);
    assert_eq!((inside.ask(allowed).as_str(), inside.ask(other).as_str()), ("ok", REFUSED));
    // Nothing is refused by old rules where nothing was refused.
    let elsewhere = Unit::make("part-elsewhere");
    let places = vec![(elsewhere.place(), OutboundMode::Enforce)];
    gate.apply(&too_many, &OutboundModes { everywhere: OutboundMode::Off, places }).unwrap_err();
    assert_eq!(peer::start(Some(elsewhere.path())).ask(other), "ok");
    assert_eq!(inside.ask(other), "ok");
}

#[test]
fn what_was_heard_and_asked_goes_on_under_the_next_policy() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let unit = Unit::make("goes-on");
    let gate = gate(&live);
    let apply = || gate.apply(&by_name(&unit.name), &unit.modes(OutboundMode::Enforce)).unwrap();
    apply();
    let mut inside = peer::start(Some(unit.path()));
    assert_eq!(inside.ask(&format!("move {}", cgroup2_mount().unwrap().display())), "ok");
    assert_eq!(inside.ask("hear 203.0.113.8"), "ok");
    assert_eq!(inside.ask(&format!("move {}", unit.path().display())), "ok");
    assert_eq!(inside.ask("question 198.51.100.53 deb.example.org"), "ok");
    apply();
    assert_eq!(inside.ask("answer"), "ok", "to whoever was heard before");
    assert_eq!(inside.ask("reply 203.0.113.7"), "ok");
    assert_eq!(inside.ask("connect 203.0.113.7:8080"), "ok", "by a name that was asked for before");
}

#[test]
fn what_enforces_outlives_its_agent_and_is_adopted() {
    if !live::have(&NEEDED) {
        return;
    }
    let bpffs = OwnBpfFileSystem::mount();
    let unit = Unit::make("kept");
    let pin = bpffs.0.path().join("davy");
    let config = SensorConfig { pin: Some(pin.clone()), ..SensorConfig::new(live::BOOT) };
    let mut inside = peer::start(Some(unit.path()));
    let act = "connect 203.0.113.7:8080";
    assert_eq!(inside.ask("serve-names 198.51.100.53 203.0.113.8"), "ok");

    let live = Live::configured(&NEEDED, config.clone()).unwrap();
    gate(&live).apply(&by_name(&unit.name), &unit.modes(OutboundMode::Enforce)).unwrap();
    assert_eq!(inside.ask(act), REFUSED);
    drop(live);
    assert_eq!(inside.ask(act), REFUSED, "refused although the agent is gone");
    // And names are learned although it is.
    assert_eq!(inside.ask("resolve 198.51.100.53 a.example.org"), "ok");
    assert_eq!(inside.ask("connect 203.0.113.8:8080"), "ok");

    let live = Live::configured(&NEEDED, config).unwrap();
    let gate = gate(&live);
    gate.apply(&by_name(&unit.name), &unit.modes(OutboundMode::Enforce)).unwrap();
    assert_eq!(inside.ask(act), REFUSED, "refused under the next agent");
    assert_eq!(
        inside.ask("connect 203.0.113.8:8080"),
        "ok",
        "the next agent knows the names of the one before"
    );
    // What only observes is not kept.
    gate.set_modes(&unit.modes(OutboundMode::Observe)).unwrap();
    assert_eq!(inside.ask(act), "ok");
    assert!(!pin.join("outbound").exists());
    gate.set_modes(&unit.modes(OutboundMode::Enforce)).unwrap();
    assert_eq!(inside.ask(act), REFUSED);
    gate.release().unwrap();
    assert_eq!(inside.ask(act), "ok", "open once released");
    assert!(!pin.exists());
}
