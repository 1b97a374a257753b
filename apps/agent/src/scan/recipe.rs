//! What the agent's scans look for: Davy's own rules, and those that the policy names.

use std::path::Path;

use davy_policy::Scan;
use davy_sweep::{Recipe, hashes_in, rules_in};

/// The recipe, and what of it cannot be read, a sentence each.
pub(super) fn recipe(policy: &Scan, config: &Path) -> (Recipe, Vec<String>) {
    let mut sources = vec![davy_scan::built_in()];
    let mut faults = Vec::new();
    for name in &policy.rules {
        match rules_in(&config.join(name)) {
            Ok(more) => sources.extend(more),
            Err(error) => faults.push(format!("the rules in {name} cannot be read: {error}")),
        }
    }
    let mut recipe = Recipe::new(sources);
    for name in &policy.hashes {
        match hashes_in(&config.join(name)) {
            Ok(list) => recipe.hashes.push(list),
            Err(error) => faults.push(format!("the digests in {name} cannot be read: {error}")),
        }
    }
    (recipe, faults)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_and_the_rest_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("own.yar"), "rule own { condition: false }").unwrap();
        let policy = Scan {
            rules: vec!["own.yar".to_owned(), "none.yar".to_owned()],
            hashes: vec!["none.txt".to_owned()],
            ..Scan::default()
        };
        let (found, faults) = recipe(&policy, folder.path());
        assert_eq!((found.rules.len(), found.hashes.len(), faults.len()), (2, 0, 2), "{faults:?}");
        assert_ne!(found.digest(), recipe(&Scan::default(), folder.path()).0.digest());
    }
}
