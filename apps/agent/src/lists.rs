//! The lists of pools: Davy's own, and those the policy names.

use std::path::Path;

use davy_detect::{ListKind, Lists};
use davy_policy::Policy;

use crate::protections::Notes;

/// How many faults are told at once; of more, how many they are.
const TOLD: usize = 4;

/// Loads all lists. A file that cannot be read, or a line that makes no sense, is told, a sentence for each file, and the rest
/// is used: a list is a help, and half a list helps more than none.
pub(crate) fn load(policy: &Policy, config: &Path) -> (Lists, Vec<String>) {
    let mut lists = Lists::builtin();
    let mut told = Vec::new();
    let pools = &policy.mining.pools;
    for (kind, files) in [
        (ListKind::Domains, &pools.domains),
        (ListKind::Hosts, &pools.hosts),
        (ListKind::Networks, &pools.cidrs),
    ] {
        for file in files {
            let path = config.join(file).display().to_string();
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    if let Err(faults) = lists.add(kind, &path, &text)
                        && let Some(first) = faults.first()
                    {
                        let many = if faults.len() > 1 { "lines make" } else { "line makes" };
                        told.push(format!(
                            "in the list of pools {path} {} {many} no sense: {}: {}",
                            faults.len(),
                            first.line,
                            first.reason
                        ));
                    }
                }
                Err(error) => told.push(format!("the list of pools {path} cannot be read: {error}")),
            }
        }
    }
    (lists, told)
}

/// What is wrong with the lists, for `davy status`, where mining is recognised by them.
pub(crate) fn notes(faults: &[String]) -> Notes {
    faults.iter().for_each(|fault| tracing::error!("{fault}"));
    words(faults).into_iter().map(|words| ("mining", words)).collect()
}

/// The same in one sentence; nothing when nothing is wrong.
pub(crate) fn words(faults: &[String]) -> Option<String> {
    let more = match faults.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!("; and {more} more lists"),
    };
    let told = faults.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
    (!faults.is_empty()).then(|| told + &more)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_wrong_with_a_list_is_told_and_the_rest_is_used() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine.txt"), "pool.example\nnot a name\n???\n").unwrap();
        std::fs::write(folder.path().join("good.txt"), "10.0.0.0/8\n").unwrap();
        let text = "[mining.pools]\ndomains = [\"mine.txt\", \"gone.txt\"]\ncidrs = [\"good.txt\"]\n";
        let policy = Policy::parse("p.toml", text).unwrap();
        let (lists, faults) = load(&policy, folder.path());
        assert!(lists.name("pool.example").is_some());
        assert!(lists.address("10.1.2.3".parse().unwrap()).is_some());
        let [lines, gone] = faults.as_slice() else { panic!("{faults:?}") };
        assert!(lines.contains("mine.txt 2 lines make no sense: 2: "), "{lines}");
        assert!(gone.contains("gone.txt cannot be read: "), "{gone}");
        let shown = notes(&faults);
        assert!(shown.len() == 1 && shown[0].0 == "mining" && shown[0].1.contains("gone.txt"), "{shown:?}");
        assert_eq!(words(&[]), None);
        let many: Vec<String> = (0..9).map(|n| format!("fault {n}")).collect();
        assert!(words(&many).unwrap().ends_with("fault 3; and 5 more lists"));
    }
}
