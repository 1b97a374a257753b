//! Dependencies point one way: apps -> guards -> host -> core, and edges -> core. Host rooms do not know each
//! other, guards neither, and nothing that ships knows the tests.

use std::collections::BTreeMap;

use super::{Fault, Report};
use crate::house::{House, Layer, Room};

pub(super) fn check(house: &House, report: &mut Report) {
    let by_package: BTreeMap<&str, &Room> = house.rooms.iter().map(|room| (room.package(), room)).collect();
    for room in &house.rooms {
        let Some(layer) = room.layer else {
            report.faults.push(Fault::new(
                &room.path,
                "lies in no layer: rooms are in core, host, guards, apps, edges, tests, or are xtask",
            ));
            continue;
        };
        for dependency in room.dependencies() {
            let Some(other) = by_package.get(dependency.package.as_str()) else { continue };
            let Some(target) = other.layer else { continue };
            if may_depend(layer, target) || (dependency.only_tests && target == Layer::Tests) {
                continue;
            }
            report.faults.push(Fault::new(
                format!("{}/Cargo.toml", room.path),
                format!("depends on {}: {}", other.path, reason(layer, target)),
            ));
        }
    }
}

fn may_depend(from: Layer, to: Layer) -> bool {
    match from {
        Layer::Core | Layer::Edges => to == Layer::Core,
        Layer::Host => to == Layer::Core,
        Layer::Guards => matches!(to, Layer::Core | Layer::Host),
        Layer::Apps => matches!(to, Layer::Core | Layer::Host | Layer::Guards | Layer::Apps),
        Layer::Tests => to != Layer::Xtask,
        Layer::Xtask => false,
    }
}

fn reason(from: Layer, to: Layer) -> &'static str {
    match (from, to) {
        (Layer::Host, Layer::Host) => "host rooms do not know each other; the agent joins them",
        (Layer::Guards, Layer::Guards) => "guards do not know each other; they meet on the agent's bus",
        (_, Layer::Tests) => "what ships does not depend on tests; as a dev-dependency it may",
        _ => "dependencies point one way: apps -> guards -> host -> core, edges -> core",
    }
}
