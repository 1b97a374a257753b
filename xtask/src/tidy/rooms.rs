//! No room is empty, none is forgotten, and each says at its door what it is for.

use super::{Fault, Report};
use crate::house::{House, Room};

/// Lines of code below which a room is a promise and not a room.
const LEAST: usize = 3;

/// Folders whose every subfolder with Rust in it is a room.
const LAYERS: [&str; 6] = ["core", "host", "guards", "apps", "edges", "tests"];

pub(super) fn check(house: &House, report: &mut Report) {
    let map = house.file("ARCHITECTURE.md");
    for room in &house.rooms {
        let sources = format!("{}/src", room.path);
        let lines: usize = house
            .files
            .iter()
            .filter(|f| {
                (f.lies_in(&sources) || f.lies_in(&format!("{}/tests", room.path))) && f.ending() == "rs"
            })
            .map(|f| code_lines(&f.text))
            .sum();
        if lines < LEAST {
            report.faults.push(Fault::new(&room.path, format!("is empty: {lines} lines of code")));
        }
        for door in ["lib.rs", "main.rs"] {
            let Some(file) = house.file(&format!("{sources}/{door}")) else { continue };
            if !file.text.trim_start().starts_with("//!") {
                report.faults.push(Fault::new(
                    format!("{}:1", file.path),
                    "does not say what the room is for: begin with `//!`",
                ));
            }
        }
        if map.is_some_and(|map| !names(&map.text, room)) {
            report.faults.push(Fault::new("ARCHITECTURE.md", format!("does not name {}", room.path)));
        }
    }
    for file in house.files.iter().filter(|f| f.path.ends_with("/Cargo.toml")) {
        let folder = file.path.trim_end_matches("/Cargo.toml");
        let layer = folder.split('/').next().unwrap_or("");
        if LAYERS.contains(&layer) && house.room_of(file).is_none() {
            report
                .faults
                .push(Fault::new(folder, "is a package that the workspace does not name as a member"));
        }
    }
}

/// Whether the map has the room by its path, or in a list of its own layer's folder. The rooms of tests stand in the
/// map as one.
fn names(map: &str, room: &Room) -> bool {
    let Some((layer, folder)) = room.path.split_once('/') else { return map.contains(&room.path) };
    let mut in_layer = false;
    let listed = map.lines().any(|line| {
        if !line.starts_with(' ') {
            in_layer = line.starts_with(&format!("{layer}/"));
        }
        in_layer && (layer == "tests" || line.trim_start().starts_with(&format!("{folder}/")))
    });
    listed || map.contains(&room.path)
}

fn code_lines(text: &str) -> usize {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}
