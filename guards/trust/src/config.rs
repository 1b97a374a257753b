//! What the policy wants, in the form that decisions need.

use std::collections::HashMap;

use davy_model::{Mode, Sha256, Source, Timestamp, Voucher};
use davy_policy::{BlockedBy, Policy, TrustSource, TrustedBy};
use minisign::PublicKey;
use thiserror::Error;

/// A key that cannot be used.
#[derive(Debug, Error)]
#[error(
    "{place}: the key `{name}` is not a minisign public key ({why}); it is the second line of the file that `davy trust keygen` or `minisign -G` writes"
)]
pub struct ConfigFault {
    place: String,
    name: String,
    why: String,
}

/// What the policy wants.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What is done with code that nobody vouches for.
    pub mode: Mode,
    /// Whether the kernel observes too.
    pub kernel: bool,
    /// Whether scripts are judged.
    pub scripts: bool,
    /// Whether kernel modules are judged.
    pub modules: bool,
    sources: Vec<TrustSource>,
    /// How long what a trusted program writes is trusted for that alone, in seconds.
    pub writers_for: u64,
    allow: Vec<(Sha256, Voucher)>,
    directories: Vec<(String, Voucher)>,
    blocked: HashMap<Sha256, (String, Option<Timestamp>)>,
    blocked_signers: HashMap<String, String>,
    keys: Vec<(String, PublicKey)>,
}

impl Config {
    /// From a policy.
    ///
    /// # Errors
    /// A key that is none.
    pub fn new(policy: &Policy) -> Result<Self, ConfigFault> {
        let trust = &policy.trust;
        let mut config = Self {
            mode: trust.mode,
            kernel: trust.kernel,
            scripts: trust.scripts,
            modules: trust.modules,
            sources: trust.sources.clone(),
            writers_for: trust.writers_for.as_secs(),
            ..Self::default()
        };
        for (index, entry) in trust.allow.iter().enumerate() {
            let line = policy.origin.of(&format!("trust.allow[{index}]"));
            let reason = entry.reason.clone();
            match &entry.by {
                TrustedBy::Content(digest) => {
                    let source = Source::AllowList { reason, line };
                    config.allow.push((*digest, Voucher { source, until: entry.until }));
                }
                TrustedBy::Directory(path) => {
                    let source = Source::Directory { path: path.clone(), reason, line };
                    config.directories.push((format!("{path}/"), Voucher { source, until: entry.until }));
                }
            }
        }
        for (index, entry) in trust.block.iter().enumerate() {
            let line = policy.origin.of(&format!("trust.block[{index}]"));
            let why = format!("it is on the block-list: {} ({line})", entry.reason);
            match &entry.by {
                BlockedBy::Content(digest) => {
                    config.blocked.insert(*digest, (why, entry.until));
                }
                BlockedBy::Signer(name) => {
                    config.blocked_signers.insert(name.clone(), why);
                }
            }
        }
        for (index, key) in trust.keys.iter().enumerate() {
            let parsed = PublicKey::from_base64(key.minisign.trim()).map_err(|error| ConfigFault {
                place: policy.origin.of(&format!("trust.key[{index}]")),
                name: key.name.clone(),
                why: error.to_string(),
            })?;
            config.keys.push((key.name.clone(), parsed));
        }
        Ok(config)
    }

    /// Whether this source may vouch.
    #[must_use]
    pub fn asks(&self, source: TrustSource) -> bool {
        self.sources.contains(&source)
    }

    /// The administrator's list by content.
    pub fn allow_list(&self) -> impl Iterator<Item = (Sha256, Voucher)> + '_ {
        self.allow.iter().cloned()
    }

    /// Contents that must not run at this moment.
    pub fn block_list(&self, now: Timestamp) -> impl Iterator<Item = Sha256> + '_ {
        self.blocked.iter().filter(move |(_, (_, until))| holds(*until, now)).map(|(digest, _)| *digest)
    }

    /// Folders that are allowed as a whole at this moment, without a slash at the end.
    pub fn directories(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        self.directories.iter().filter(move |(_, v)| v.holds(now)).map(|(path, _)| path.trim_end_matches('/'))
    }

    /// The keys by name.
    #[must_use]
    pub fn keys(&self) -> &[(String, PublicKey)] {
        &self.keys
    }

    /// Why this content must not run, if it must not.
    #[must_use]
    pub fn blocked(&self, digest: &Sha256, now: Timestamp) -> Option<String> {
        self.blocked.get(digest).filter(|(_, until)| holds(*until, now)).map(|(why, _)| why.clone())
    }

    /// Why nothing that this key signed may run, if nothing may.
    pub(crate) fn signer_blocked(&self, signer: &str) -> Option<String> {
        self.blocked_signers.get(signer).cloned()
    }

    /// The folder that vouches for this path. A path that does not say plainly where it lies is in none.
    pub(crate) fn directory_of(&self, path: &str, now: Timestamp) -> Option<Voucher> {
        if path.split('/').any(|part| part == ".." || part == ".") {
            return None;
        }
        let mut folders = self.directories.iter();
        folders.find(|(folder, v)| path.starts_with(folder) && v.holds(now)).map(|(_, v)| v.clone())
    }
}

fn holds(until: Option<Timestamp>, now: Timestamp) -> bool {
    until.is_none_or(|until| now < until)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_that_is_none_is_named_with_its_line() {
        let policy =
            Policy::parse("p.toml", "\n[[trust.key]]\nname = \"ops\"\nminisign = \"RWQ\"\n").unwrap();
        let fault = Config::new(&policy).unwrap_err().to_string();
        assert!(fault.starts_with("p.toml:2: the key `ops`"), "{fault}");
    }

    #[test]
    fn entries_end_with_their_time() {
        let digest = Sha256([3; 32]);
        let text = format!("[[trust.block]]\nsha256 = \"{digest}\"\nreason = \"x\"\nuntil = 2027-01-14\n");
        let config = Config::new(&Policy::parse("p.toml", &text).unwrap()).unwrap();
        let last = Timestamp::from_secs(1_799_971_199);
        assert!(config.blocked(&digest, last).is_some());
        assert!(config.blocked(&digest, last.plus_secs(1.0)).is_none());
        assert_eq!(config.block_list(last).count() + config.block_list(last.plus_secs(1.0)).count(), 1);
    }
}
