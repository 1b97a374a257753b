//! From what ran to a list that an administrator can read, cut and sign for.

use std::fmt::Write;

use davy_model::{Oddity, Pending};

/// A proposed allow-list.
#[derive(Clone, Debug, Default)]
pub struct Proposal {
    plain: Vec<Pending>,
    odd: Vec<Pending>,
}

impl Proposal {
    /// From what waits: what is odd apart from what is not.
    pub fn new<'p>(pending: impl IntoIterator<Item = &'p Pending>) -> Self {
        let (mut odd, mut plain): (Vec<Pending>, Vec<Pending>) =
            pending.into_iter().cloned().partition(|p| !p.odd.is_empty());
        for list in [&mut odd, &mut plain] {
            list.sort_by(|a, b| a.path.cmp(&b.path).then(a.id.cmp(&b.id)));
        }
        Self { plain, odd }
    }

    /// What would be allowed.
    #[must_use]
    pub fn plain(&self) -> &[Pending] {
        &self.plain
    }

    /// What should be looked at first.
    #[must_use]
    pub fn odd(&self) -> &[Pending] {
        &self.odd
    }

    /// As entries for the policy. What is odd stands there as comments: allowing it takes a hand.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for pending in &self.plain {
            let _ = writeln!(text, "[[trust.allow]]\nsha256 = \"{}\"", pending.sha256);
            let _ = writeln!(text, "reason = {}\n", toml::Value::from(reason(pending)));
        }
        if !self.odd.is_empty() {
            text.push_str("# Odd: look at these before you allow them.\n");
        }
        for pending in &self.odd {
            let why: Vec<&str> = pending.odd.iter().map(|odd| Oddity::words(*odd)).collect();
            let _ = writeln!(text, "# {}", why.join("; "));
            let _ = writeln!(text, "# [[trust.allow]]\n# sha256 = \"{}\"", pending.sha256);
            let _ = writeln!(text, "# reason = {}\n", toml::Value::from(reason(pending)));
        }
        text
    }
}

/// One line, whatever a path holds.
fn reason(pending: &Pending) -> String {
    let path: String = pending.path.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let users =
        if pending.users.is_empty() { String::new() } else { format!(" as {}", pending.users.join(", ")) };
    format!("learned: {path} ran{users} {} times", pending.would + pending.refused)
}

#[cfg(test)]
mod tests {
    use davy_model::{CodeKind, Sha256, Timestamp};
    use davy_policy::Policy;

    use super::*;
    use crate::{Pendings, Sighting};

    fn pendings() -> Pendings {
        let mut pendings = Pendings::default();
        for (n, path, odd) in [
            (1, "/opt/app/run", Vec::new()),
            (2, "/tmp/x\n[mining]\nmode = \"off\"\n\"", vec![Oddity::WorldWritable]),
            (3, "/opt/app/a\" b", Vec::new()),
        ] {
            pendings.see(Sighting {
                time: Timestamp::from_secs(1_800_000_000),
                digest: Sha256([n; 32]),
                path: path.to_owned(),
                kind: CodeKind::Exec,
                user: Some("app".to_owned()),
                by: None,
                refused: false,
                odd,
                because: String::new(),
            });
        }
        pendings
    }

    #[test]
    fn the_proposal_is_a_policy_and_what_is_odd_is_left_to_a_hand() {
        let proposal = Proposal::new(pendings().all());
        let text = proposal.to_toml();
        let policy = Policy::parse("proposal", &text).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        assert_eq!(policy.trust.allow.len(), 2);
        assert_eq!(policy.mining, Policy::default().mining, "a path cannot write policy");
        assert!(text.contains("# lies where anyone may write"), "{text}");
    }
}
