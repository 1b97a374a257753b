//! What the policy says of ports, with the files that it names.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use davy_net::inbound::Plan;
use davy_policy::Policy;

use crate::shared::lock;

/// The longest file of networks that is read.
const LONGEST: u64 = 16 << 20;

/// Looks up everything that the section `[inbound]` names, in files below the configuration folder.
///
/// # Errors
/// Every file that cannot be used, and every group that holds nothing, a sentence each with its place in the policy.
pub fn inbound_plan(policy: &Policy, config: &Path) -> Result<Plan, Vec<String>> {
    Plan::make(&policy.inbound, &policy.origin, |file| read(&config.join(file)))
}

/// What the policy in force says, looked up once and anew when the policy or one of its files has changed.
pub(super) struct Lists {
    config: PathBuf,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    policy: Arc<Policy>,
    stamps: Vec<Option<Stamp>>,
    plan: Result<Arc<Plan>, Vec<String>>,
}

/// What changes whenever a file's content does: device, inode, length, and when content and inode last changed.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// A file that changed less than so many seconds ago may change again without its times showing it.
const SETTLED: i64 = 2;

impl Lists {
    pub(super) fn new(config: PathBuf) -> Self {
        Self { config, kept: Mutex::default() }
    }

    /// What the policy opens, without the ports of services.
    ///
    /// # Errors
    /// As [`inbound_plan`].
    pub(super) fn plan(&self, policy: &Arc<Policy>) -> Result<Arc<Plan>, Vec<String>> {
        let stamps: Vec<Option<Stamp>> = policy
            .inbound
            .groups
            .iter()
            .flat_map(|group| &group.files)
            .map(|file| stamp(&self.config.join(file)))
            .collect();
        let mut kept = lock(&self.kept);
        let same = |kept: &&Kept| Arc::ptr_eq(&kept.policy, policy) && kept.stamps == stamps;
        if let Some(kept) = kept.as_ref().filter(same) {
            return kept.plan.clone();
        }
        let plan = inbound_plan(policy, &self.config).map(Arc::new);
        let recent = crate::clock::now().secs_since(davy_model::Timestamp(0)) as i64 - SETTLED;
        let settled = stamps.iter().flatten().all(|(.., changed)| changed.0 < recent);
        *kept = settled.then(|| Kept { policy: Arc::clone(policy), stamps, plan: plan.clone() });
        plan
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let about = std::fs::metadata(file).ok()?;
    let written = (about.mtime(), about.mtime_nsec());
    Some((about.dev(), about.ino(), about.size(), written, (about.ctime(), about.ctime_nsec())))
}

fn read(file: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let opened = std::fs::File::open(file).map_err(cannot)?;
    let mut text = String::new();
    let length = opened.take(LONGEST + 1).read_to_string(&mut text).map_err(cannot)?;
    if length as u64 > LONGEST {
        return Err(format!("is longer than {LONGEST} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_read_below_the_configuration_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("de.txt"), "198.51.100.0/24\n").unwrap();
        std::fs::write(folder.path().join("bytes"), [0xff, 0xfe]).unwrap();
        let plan = |files: &str| {
            let text = format!(
                "[[inbound.group]]\nname = \"g\"\nfiles = [{files}]\n[[inbound.allow]]\nport = 1\nfrom = [\"g\"]\nreason = \"r\"\n"
            );
            inbound_plan(&Policy::parse("p", &text).unwrap(), folder.path())
        };
        assert_eq!(plan("\"de.txt\"").unwrap().entries[0].from.as_ref().map(Vec::len), Some(1));
        let faults = plan("\"gone\", \"bytes\"").unwrap_err();
        assert!(
            faults.len() == 2 && faults.iter().all(|fault| fault.contains("cannot be read")),
            "{faults:?}"
        );
    }

    #[test]
    fn a_file_is_read_again_when_it_has_changed_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("de.txt");
        std::fs::write(&file, "198.51.100.0/24\n").unwrap();
        let text = "[[inbound.group]]\nname = \"g\"\nfiles = [\"de.txt\"]\n[[inbound.allow]]\nport = 1\nfrom = [\"g\"]\nreason = \"r\"\n";
        let policy = Arc::new(Policy::parse("p", text).unwrap());
        let lists = Lists::new(folder.path().to_owned());
        let plan = || lists.plan(&policy).unwrap();
        assert!(!Arc::ptr_eq(&plan(), &plan()), "what has only just changed may change again unseen");
        std::thread::sleep(std::time::Duration::from_secs(4));
        let first = plan();
        assert!(Arc::ptr_eq(&first, &plan()), "it is read once");
        let another = Arc::new(Policy::clone(&policy));
        assert!(!Arc::ptr_eq(&first, &lists.plan(&another).unwrap()), "another policy");
        assert!(Arc::ptr_eq(&lists.plan(&another).unwrap(), &lists.plan(&another).unwrap()));
        std::fs::write(&file, "198.51.100.0/24\n203.0.113.0/24\n").unwrap();
        assert_eq!(lists.plan(&another).unwrap().entries[0].from.as_ref().map(Vec::len), Some(2));
        std::fs::remove_file(&file).unwrap();
        assert!(lists.plan(&another).unwrap_err()[0].contains("cannot be read"));
    }
}
