use davy_model::{Place, Timestamp};

use super::row::Row;

/// Which rows are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Last seen not before.
    pub since: Option<Timestamp>,
    /// Of this systemd service, with `.service` or without, or of the container whose id begins so.
    pub service: Option<String>,
    /// Of this program: its path, or the last part of it.
    pub process: Option<String>,
    /// With other ends outside only, or with others only.
    pub outside: Option<bool>,
    /// At most so many of those seen last.
    pub limit: usize,
}

impl Default for Filter {
    fn default() -> Self {
        Self { since: None, service: None, process: None, outside: None, limit: usize::MAX }
    }
}

impl Filter {
    pub(super) fn wants(&self, row: &Row) -> bool {
        let talker = &row.key.talker;
        let in_service = |wanted: &str| {
            let service = talker.service.as_deref();
            let unit = service.is_some_and(|s| s == wanted || s.strip_suffix(".service") == Some(wanted));
            let container = talker.container.as_deref();
            unit || (!wanted.is_empty()
                && container.is_some_and(|id| id.starts_with(wanted) || wanted.starts_with(id)))
        };
        let of_program =
            |wanted: &str| talker.program == wanted || talker.program.rsplit('/').next() == Some(wanted);
        // Where the other ends are is not known of what the kernel only counted; it may be outside.
        let outside = row.place.is_none_or(|place| place == Place::Outside);
        self.since.is_none_or(|since| row.last >= since)
            && self.service.as_deref().is_none_or(in_service)
            && self.process.as_deref().is_none_or(of_program)
            && self.outside.is_none_or(|wanted| wanted == outside)
    }
}
