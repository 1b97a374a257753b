//! What is Davy's own on this host, to be protected from everyone outside its cgroup, and what becomes of attempts on it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use davy_kernel::{Refused, RefusedAct, SelfGuard};
use davy_model::{Evidence, FileId, Finding, FindingId, FindingKind, Severity, Signal, Technique};

use crate::Paths;

/// The agent's processes, cgroup and files, as they are now. The configuration and the program are left out: an
/// administrator edits the one, and the package manager replaces the other.
pub(crate) fn guard(paths: &Paths, cgroup2: &Path) -> SelfGuard {
    let state = &paths.state;
    let folders = [state.clone(), state.join("store"), state.join("quarantine")];
    let files = [state.join("store/main.db"), paths.run.clone()];
    let identities = |places: &[PathBuf]| places.iter().filter_map(|path| identity(path)).collect();
    SelfGuard {
        processes: vec![std::process::id()],
        cgroup: own_cgroup(cgroup2),
        files: identities(&files),
        folders: identities(&folders),
    }
}

fn identity(path: &Path) -> Option<FileId> {
    let meta = std::fs::metadata(path).ok()?;
    Some(FileId { dev: meta.dev(), ino: meta.ino() })
}

pub(crate) fn own_cgroup(cgroup2: &Path) -> PathBuf {
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = membership.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or("/");
    cgroup2.join(path.trim_start_matches('/'))
}

/// The finding that an attempt on Davy is.
pub(crate) fn finding(id: FindingId, refused: &Refused, who: &str) -> Finding {
    let (text, technique) = match refused.act {
        RefusedAct::Signal(signal) => (format!("signal {signal} to the agent"), "T1562.001"),
        RefusedAct::Trace => ("tracing the agent, or opening its memory".to_owned(), "T1055.008"),
        RefusedAct::FileChange => ("changing one of Davy's files".to_owned(), "T1562.001"),
        RefusedAct::BpfAccess => {
            ("taking hold of one of Davy's programs in the kernel".to_owned(), "T1562.001")
        }
    };
    let technique = Technique::new(technique);
    Finding {
        id,
        kind: FindingKind::Tampering,
        first: refused.time,
        time: refused.time,
        severity: Severity::High,
        confidence: 1.0,
        subject: Some(refused.process),
        processes: vec![refused.process],
        summary: format!("{who} ({}) reached for Davy and was refused: {text}", refused.process.pid),
        evidence: vec![Evidence {
            time: refused.time,
            signal: Signal::Campaign,
            weight: 0.0,
            text: format!("the kernel refused {text}"),
            numbers: std::collections::BTreeMap::new(),
            process: Some(refused.process),
            flow: None,
            technique: Some(technique.clone()),
        }],
        techniques: vec![technique],
    }
}
