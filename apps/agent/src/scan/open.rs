//! Finds and opens what is to be looked at: the very file that ran or was written, whatever its name leads to by now.

use std::fs::File;

use davy_model::ScanOccasion;
use rustix::fs::{AtFlags, CWD, OFlags, Stat, statat};

use super::queue::Job;
use crate::opening::{is, itself};

/// What the file of a job is like, without opening it: most that runs was looked at before. `None` when it is gone, or something
/// else took its place.
pub(super) fn shape(job: &Job) -> Option<Stat> {
    let running = runner(job).and_then(|link| statat(CWD, link, AtFlags::empty()).ok());
    let named = || {
        job.path.starts_with('/').then(|| statat(CWD, &job.path, AtFlags::SYMLINK_NOFOLLOW).ok()).flatten()
    };
    running.filter(|stat| is(stat, job.file)).or_else(|| named().filter(|stat| is(stat, job.file)))
}

/// The file of a job and what it is like; `None` when it is gone, or something else took its place.
pub(super) fn open(job: &Job) -> Option<(File, Stat)> {
    let running = runner(job).and_then(|link| itself(&link, OFlags::empty(), job.file));
    let named = || job.path.starts_with('/').then(|| itself(&job.path, OFlags::NOFOLLOW, job.file)).flatten();
    running.or_else(named)
}

/// The kernel's own link to a running program, which leads to files without a name too.
fn runner(job: &Job) -> Option<String> {
    let key = job.process.filter(|_| job.occasion == ScanOccasion::Executed)?;
    Some(format!("/proc/{}/exe", key.pid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    use davy_model::{FileId, ProcessKey, Timestamp};

    use super::*;

    fn job(path: &Path, occasion: ScanOccasion, pid: Option<u32>) -> Job {
        let meta = std::fs::metadata(path).unwrap();
        Job {
            time: Timestamp(0),
            process: pid.map(|pid| ProcessKey { pid, start_ticks: 1, boot: 1 }),
            path: path.display().to_string(),
            file: FileId { dev: meta.dev(), ino: meta.ino() },
            occasion,
        }
    }

    #[test]
    fn only_the_very_file_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let written = job(&file, ScanOccasion::Written, None);
        assert_eq!((open(&written).unwrap().1.st_size, shape(&written).unwrap().st_size), (3, 3));
        let other = folder.path().join("other");
        std::fs::write(&other, "other").unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert!(open(&written).is_none() && shape(&written).is_none(), "another file took its place");
        let now = job(&file, ScanOccasion::Written, None);
        std::fs::rename(&file, &other).unwrap();
        symlink(&other, &file).unwrap();
        assert!(open(&now).is_none() && shape(&now).is_none(), "links are not followed");
        assert!(open(&job(folder.path(), ScanOccasion::Written, None)).is_none(), "a folder is no file");
    }

    #[test]
    fn a_running_program_is_opened_whatever_became_of_its_name() {
        let own = std::env::current_exe().unwrap();
        let running = Job {
            path: "/nowhere (deleted)".to_owned(),
            ..job(&own, ScanOccasion::Executed, Some(std::process::id()))
        };
        assert!(open(&running).is_some() && shape(&running).is_some());
        assert!(open(&Job { occasion: ScanOccasion::Written, ..running }).is_none());
    }
}
