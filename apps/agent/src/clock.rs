use std::time::{SystemTime, UNIX_EPOCH};

use davy_model::Timestamp;

/// The wall clock now. A clock before 1970 counts as the epoch.
pub(crate) fn now() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros());
    Timestamp(i64::try_from(micros).unwrap_or(i64::MAX))
}
