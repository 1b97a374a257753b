//! Datagrams: who is only given a destination, and who may answer.

use davy_kernel::cgroup2_mount;
use davy_model::{OutboundMode, OutboundProtocol, OutboundTables};

use crate::live::Live;
use crate::{NEEDED, REFUSED, Unit, gate, mapped, one, peer, web};

/// As getaddrinfo(3) does, to learn which of its own addresses would be used (RFC 6724).
#[test]
fn who_is_given_a_destination_and_never_sends_is_not_told() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let unit = Unit::make("unsent");
    let gate = gate(&live);
    let tables = OutboundTables { ports: vec![((OutboundProtocol::Udp, 8080), one(0))], ..web(&unit.name) };
    gate.apply(&tables, &unit.modes(OutboundMode::Observe)).unwrap();
    let mut inside = peer::start(Some(unit.path()));
    let (allowed, other) = ("point 198.51.100.1:8080", "point 203.0.113.7:8080");
    assert_eq!(inside.ask(other), "ok");
    assert_eq!(gate.attempts(), []);
    assert_eq!((inside.ask("send").as_str(), inside.ask("send").as_str()), ("ok", "ok"));
    let told: Vec<(u64, bool)> = gate.attempts().iter().map(|a| (a.count, a.refused)).collect();
    assert_eq!(told, [(1, false)], "once, however much it sends");

    gate.set_modes(&unit.modes(OutboundMode::Enforce)).unwrap();
    assert_eq!(inside.ask(other), "ok");
    assert_eq!(gate.attempts(), [], "it was let go so far");
    assert_eq!((inside.ask("send").as_str(), inside.ask("send").as_str()), (REFUSED, REFUSED));
    let told: Vec<_> = gate.attempts().iter().map(|a| (a.count, a.refused, a.cgroup.clone())).collect();
    assert_eq!(told, [(1, true, unit.place())]);
    assert_eq!(inside.ask("send-elsewhere 198.51.100.1:8080"), "ok", "there it may");
    // It keeps its destination when it gets none of those that it may have: nobody routes there.
    assert_eq!(
        (inside.ask("point 198.51.100.77:8080").as_str(), inside.ask("send").as_str()),
        ("101", REFUSED)
    );
    assert_eq!(
        (inside.ask("unpoint").as_str(), inside.ask("send-elsewhere 198.51.100.1:8080").as_str()),
        ("ok", "ok")
    );
    assert_eq!((inside.ask(allowed).as_str(), inside.ask("send").as_str()), ("ok", "ok"));
    assert_eq!((inside.ask(other).as_str(), inside.ask("send").as_str()), ("ok", REFUSED));
    // The next policy knows of the socket, also while it knows nobody of its cgroup.
    gate.apply(&tables, &unit.modes(OutboundMode::Enforce)).unwrap();
    assert_eq!(inside.ask("send"), REFUSED);
    // And one that allows it, or refuses nothing, is obeyed once it knows who that is.
    let wider = OutboundTables { destinations: vec![mapped("203.0.113.0", 24, one(0))], ..tables };
    gate.apply(&wider, &unit.modes(OutboundMode::Enforce)).unwrap();
    assert_eq!(inside.ask("connect 203.0.113.7:8080"), REFUSED, "by TCP");
    assert_eq!(inside.ask("send"), "ok");
}

/// Nobody of the cgroup has asked since, so that it is not known yet what holds there.
#[test]
fn who_was_refused_is_let_go_when_nothing_is_refused_any_more() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let unit = Unit::make("disarmed");
    let gate = gate(&live);
    gate.apply(&web(&unit.name), &unit.modes(OutboundMode::Enforce)).unwrap();
    let mut inside = peer::start(Some(unit.path()));
    assert_eq!(inside.ask("point 203.0.113.7:8080"), "ok");
    assert_eq!(inside.ask("send"), REFUSED);
    assert_eq!(gate.attempts().len(), 1);
    gate.set_modes(&unit.modes(OutboundMode::Observe)).unwrap();
    assert_eq!((inside.ask("send").as_str(), inside.ask("send").as_str()), ("ok", "ok"));
    let told: Vec<(u64, bool)> = gate.attempts().iter().map(|a| (a.count, a.refused)).collect();
    assert_eq!(told, [(1, false)], "told, and no longer refused");
    gate.set_modes(&unit.modes(OutboundMode::Enforce)).unwrap();
    assert_eq!(inside.ask("send"), REFUSED, "and again, as before");
    gate.set_modes(&unit.modes(OutboundMode::Off)).unwrap();
    drop(gate.attempts());
    assert_eq!(inside.ask("send"), "ok");
    assert!(gate.attempts().is_empty());
}

#[test]
fn whoever_was_heard_may_be_answered_and_nobody_else() {
    let Some(live) = Live::start(&NEEDED) else { return };
    let unit = Unit::make("heard");
    let gate = gate(&live);
    gate.apply(&web(&unit.name), &unit.modes(OutboundMode::Enforce)).unwrap();
    let mut inside = peer::start(Some(unit.path()));
    assert_eq!(inside.ask(&format!("move {}", cgroup2_mount().unwrap().display())), "ok");
    assert_eq!(inside.ask("hear 203.0.113.8"), "ok");
    assert_eq!(inside.ask(&format!("move {}", unit.path().display())), "ok");
    assert_eq!(inside.ask("answer"), "ok");
    assert_eq!(inside.ask("answer-another"), REFUSED);
}
