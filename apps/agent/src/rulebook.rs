//! The policy in force. A policy with a fault is refused whole, and the one that was in force stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use davy_model::Timestamp;
use davy_policy::Policy;
use davy_trust::host::write_whole;
use davy_wire::PolicySummary;

use crate::Paths;

/// The policy in force, and what became of the newest file.
#[derive(Debug)]
pub(crate) struct Rulebook {
    file: PathBuf,
    last_good: PathBuf,
    policy: Arc<Policy>,
    from: Option<PathBuf>,
    loaded: Timestamp,
    refused: String,
}

impl Rulebook {
    /// Reads the policy at start. Without a file the built-in default holds; with a faulty one, the last good one
    /// that any agent here was started with, and the faults are kept for `davy status`.
    pub(crate) fn open(paths: &Paths, now: Timestamp) -> Self {
        let mut book = Self {
            file: paths.policy(),
            last_good: paths.state.join("policy.last-good.toml"),
            policy: Arc::new(Policy::default()),
            from: None,
            loaded: now,
            refused: String::new(),
        };
        if book.reload(now).is_err()
            && let Ok(text) = std::fs::read_to_string(&book.last_good)
            && let Ok(policy) = Policy::parse(&book.last_good.to_string_lossy(), &text)
        {
            book.policy = Arc::new(policy);
            book.from = Some(book.last_good.clone());
        }
        book
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// All faults as text with file, line and caret; the policy in force stays.
    pub(crate) fn reload(&mut self, now: Timestamp) -> Result<String, String> {
        let outcome = self.read(now);
        self.refused = outcome.as_ref().err().cloned().unwrap_or_default();
        outcome
    }

    fn read(&mut self, now: Timestamp) -> Result<String, String> {
        let name = self.file.display().to_string();
        let text = match std::fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                self.policy = Arc::new(Policy::default());
                self.from = None;
                self.loaded = now;
                return Ok(format!("there is no {name}; the built-in default holds"));
            }
            Err(e) => return Err(format!("cannot read {name}: {e}")),
        };
        let policy = Policy::parse(&name, &text).map_err(|faults| faults.to_string())?;
        self.policy = Arc::new(policy);
        self.from = Some(self.file.clone());
        self.loaded = now;
        // Kept for the day the file is broken when the agent starts; without it that day has the default policy. It is
        // written whole, because half of one, or nothing, may be a policy too.
        if let Err(e) = write_whole(text.as_bytes(), &self.last_good) {
            tracing::warn!("cannot keep the last good policy in {}: {e}", self.last_good.display());
        }
        Ok(format!(
            "the policy in {name} holds now; its pool lists, sensors and store bounds, and whether the kernel judges code, \
             from the next start"
        ))
    }

    /// The policy in force.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    /// The folder that the names of files in the policy are meant from.
    pub(crate) fn config(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }

    /// For `davy status`.
    pub(crate) fn summary(&self) -> PolicySummary {
        let cgroups = &self.policy.scope.cgroups;
        PolicySummary {
            path: self.from.as_ref().map(|p| p.display().to_string()),
            loaded: self.loaded,
            scope: if cgroups.is_empty() { "host".to_owned() } else { cgroups.join(", ") },
            refused: self.refused.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use davy_model::Mode;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1);

    fn paths() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(dir.path()));
        std::fs::create_dir_all(&paths.config).unwrap();
        std::fs::create_dir_all(&paths.state).unwrap();
        (dir, paths)
    }

    #[test]
    fn without_a_file_the_default_holds() {
        let (_dir, paths) = paths();
        let book = Rulebook::open(&paths, NOW);
        assert_eq!(*book.policy(), Policy::default());
        assert_eq!(book.summary().path, None);
    }

    #[test]
    fn a_faulty_file_leaves_the_running_policy() {
        let (_dir, paths) = paths();
        std::fs::write(paths.policy(), "[mining]\nmode = \"enforce\"\n").unwrap();
        let mut book = Rulebook::open(&paths, NOW);
        assert_eq!(book.policy().mining.mode, Mode::Enforce);
        let answer = book.reload(NOW).unwrap();
        assert!(answer.contains("whether the kernel judges code, from the next start"), "{answer}");
        std::fs::write(paths.policy(), "[mining]\nmode = \"fierce\"\n").unwrap();
        let faults = book.reload(NOW).unwrap_err();
        assert!(faults.contains("fierce") || faults.contains("mode"), "{faults}");
        assert_eq!(book.policy().mining.mode, Mode::Enforce);
        assert_eq!(book.summary().refused, faults);
    }

    #[test]
    fn the_last_good_policy_is_there_whole_at_every_moment() {
        let (_dir, paths) = paths();
        let (before, after) = ("[mining]\nmode = \"enforce\"\n", "[mining]\nmode = \"observe\"\n");
        std::fs::write(paths.policy(), before).unwrap();
        let mut book = Rulebook::open(&paths, NOW);
        // Another name for the bytes that lie there now: they must not be written over.
        let kept = paths.state.join("kept");
        std::fs::hard_link(&book.last_good, &kept).unwrap();
        std::fs::write(paths.policy(), after).unwrap();
        book.reload(NOW).unwrap();
        let read = |file: &Path| std::fs::read_to_string(file).unwrap();
        assert_eq!((read(&kept).as_str(), read(&book.last_good).as_str()), (before, after));
    }

    #[test]
    fn a_faulty_file_at_start_leaves_the_last_good_policy() {
        let (_dir, paths) = paths();
        std::fs::write(paths.policy(), "[mining]\nmode = \"enforce\"\n").unwrap();
        drop(Rulebook::open(&paths, NOW));
        std::fs::write(paths.policy(), "mode =").unwrap();
        let book = Rulebook::open(&paths, NOW);
        assert_eq!(book.policy().mining.mode, Mode::Enforce);
        assert!(!book.summary().refused.is_empty());
    }
}
