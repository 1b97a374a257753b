//! The policy is read again.

use crate::canary::Poke;
use crate::clock;
use crate::protections;
use crate::shared::{Shared, lock};

/// Reads it, and has a protection that begins to enforce prove that it does.
///
/// # Errors
/// All faults as text with file, line and caret; the policy in force stays.
pub(crate) fn reload(shared: &Shared, canary: &Poke) -> Result<String, String> {
    let mut rulebook = lock(&shared.rulebook);
    let before = rulebook.policy();
    let sentence = rulebook.reload(clock::now())?;
    let begins = protections::enforcing(&rulebook.policy())
        .any(|section| !protections::enforcing(&before).any(|enforced| enforced == section));
    drop(rulebook);
    if begins {
        canary.now();
    }
    Ok(sentence)
}
