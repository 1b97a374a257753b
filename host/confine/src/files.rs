use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus,
};

/// Closes all file systems and, where the kernel can, the network, by a Landlock rule set without a rule. The error is a
/// sentence for people.
pub(crate) fn close() -> Result<(), String> {
    let closed = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V5)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.restrict_self());
    match closed {
        Ok(status) if status.ruleset == RulesetStatus::NotEnforced => {
            Err("file systems are not closed by Landlock: the kernel has none (CONFIG_SECURITY_LANDLOCK, lsm=landlock)"
                .to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("file systems are not closed by Landlock: {error}")),
    }
}
