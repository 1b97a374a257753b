//! The engine's end: what happens on the host that a scan should look at.

use std::sync::Arc;
use std::time::Instant;

use davy_model::{Event, EventKind, FileAct, ScanOccasion};

use super::desk::ScanDesk;
use super::queue::Job;

/// Hands what runs and what was written to the thread that looks.
#[derive(Clone, Debug)]
pub(crate) struct ScanSights(pub(super) Arc<ScanDesk>);

impl ScanSights {
    /// Passes on what is to be looked at. Never waits for the thread that looks.
    pub(crate) fn see(&self, event: &Event) {
        let job = match &event.kind {
            EventKind::Exec(info) | EventKind::Found(info)
                if self.0.looks_at_exec() && !info.kernel_thread && info.image.file.ino != 0 =>
            {
                Job {
                    time: event.time,
                    process: Some(info.key),
                    path: info.image.path.clone(),
                    file: info.image.file,
                    occasion: ScanOccasion::Executed,
                }
            }
            EventKind::File(change)
                if self.0.looks_at_write() && change.act != FileAct::Deleted && change.file.ino != 0 =>
            {
                let web = davy_files::is_web(&change.path);
                Job {
                    time: event.time,
                    process: event.process,
                    path: change.path.clone(),
                    file: change.file,
                    occasion: if web { ScanOccasion::WebWritten } else { ScanOccasion::Written },
                }
            }
            _ => return,
        };
        self.0.push(job, Instant::now());
    }
}
