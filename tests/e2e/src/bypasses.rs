//! What the page of bypasses says came of what a test tries.

use std::path::Path;

/// Asserts that docs/reference/bypasses.md has this row in this section, and says of it in its last column, which is about
/// the tiers below `lsm`, that it came to this.
///
/// # Panics
/// When it says something else.
pub fn assert_published(section: &str, what: &str, came: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/bypasses.md");
    let page = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let said = page
        .lines()
        .skip_while(|line| line.strip_prefix("## ") != Some(section))
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .find_map(|row| row.strip_prefix(what)?.strip_prefix(" | "))
        .and_then(|rest| rest.rsplit(" | ").next());
    assert_eq!(said, Some(came), "the page of bypasses on {what:?} in {section:?}");
}
