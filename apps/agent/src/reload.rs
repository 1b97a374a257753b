//! The policy is read again.

use crate::canary::Poke;
use crate::clock;
use crate::lists;
use crate::outbound::OutboundDesk;
use crate::protections;
use crate::shared::{Shared, lock};

/// Reads it, and has a protection that begins to enforce prove that it does. What is wrong with the lists that it names is
/// said, although they hold from the next start on.
///
/// # Errors
/// All faults as text with file, line and caret; the policy in force stays.
pub(crate) fn reload(shared: &Shared, canary: &Poke, outbound: &OutboundDesk) -> Result<String, String> {
    let mut rulebook = lock(&shared.rulebook);
    let before = rulebook.policy();
    let sentence = rulebook.reload(clock::now())?;
    let (policy, config) = (rulebook.policy(), rulebook.config().to_owned());
    let begins = protections::enforcing(&policy)
        .any(|section| !protections::enforcing(&before).any(|enforced| enforced == section));
    drop(rulebook);
    outbound.rouse();
    if begins {
        canary.now();
    }
    let (_, faults) = lists::load(&policy, &config);
    Ok(match lists::words(&faults) {
        Some(wrong) => format!("{sentence}; but {wrong}"),
        None => sentence,
    })
}
