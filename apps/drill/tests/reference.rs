//! The reference names every drill, and no other.
#![allow(clippy::unwrap_used, missing_docs)]

#[test]
fn the_reference_names_every_drill() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/drill.md");
    let reference = std::fs::read_to_string(path).unwrap();
    let rows = reference.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let named: Vec<&str> = rows.map(|(name, _)| name).collect();
    let drills: Vec<&str> = davy_drill::list().iter().map(|d| d.name).collect();
    assert_eq!(named, drills);
}
