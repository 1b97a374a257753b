//! The lists of pools: Davy's own, and those the policy names.

use std::path::Path;

use davy_detect::{ListKind, Lists};
use davy_policy::Policy;

/// Loads all lists. A file that cannot be read, or a line that makes no sense, is reported and the rest is used: a list
/// is a help, and half a list helps more than none.
pub(crate) fn load(policy: &Policy, config: &Path) -> Lists {
    let mut lists = Lists::builtin();
    let pools = &policy.mining.pools;
    for (kind, files) in [
        (ListKind::Domains, &pools.domains),
        (ListKind::Hosts, &pools.hosts),
        (ListKind::Networks, &pools.cidrs),
    ] {
        for file in files {
            let path = config.join(file);
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    if let Err(faults) = lists.add(kind, &path.display().to_string(), &text) {
                        for fault in faults {
                            tracing::error!("{}:{}: {}", path.display(), fault.line, fault.reason);
                        }
                    }
                }
                Err(e) => tracing::error!("the list {} cannot be read: {e}", path.display()),
            }
        }
    }
    lists
}
