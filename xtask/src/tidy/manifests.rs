//! Every manifest inherits the workspace's lints and facts, and a package is named after its folder.

use toml::Value;

use super::{Fault, Report};
use crate::house::{House, Layer, Room};

/// What a package takes from the workspace instead of saying it again.
const INHERITED: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];

pub(super) fn check(house: &House, report: &mut Report) {
    for room in &house.rooms {
        let place = format!("{}/Cargo.toml", room.path);
        let inherits = |table: Option<&Value>| {
            table.and_then(|t| t.get("workspace")).and_then(Value::as_bool) == Some(true)
        };
        if !inherits(room.manifest.get("lints")) {
            report.faults.push(Fault::new(
                &place,
                "does not inherit the lints: add `[lints]` with `workspace = true`",
            ));
        }
        let package = room.manifest.get("package");
        for key in INHERITED {
            if !inherits(package.and_then(|p| p.get(key))) {
                report.faults.push(Fault::new(
                    &place,
                    format!("does not inherit `{key}`: write `{key}.workspace = true`"),
                ));
            }
        }
        let name = name_for(room);
        if room.package() != name {
            report.faults.push(Fault::new(&place, format!("is named {}, not {name}", room.package())));
        }
    }
}

/// `davy-` and the folder; tests say so, because their folders are named for what they test.
fn name_for(room: &Room) -> String {
    let folder = room.path.rsplit('/').next().unwrap_or("");
    match room.layer {
        Some(Layer::Tests) => format!("davy-test-{folder}"),
        _ => format!("davy-{folder}"),
    }
}
