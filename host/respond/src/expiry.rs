//! Actions that end by themselves, also when the agent was restarted in between: the journal alone decides.

use davy_model::{Action, ActionRecord, ActionState, Timestamp};

/// When a timed action that is in force ends; `None` for all others.
#[must_use]
pub fn ends(record: &ActionRecord) -> Option<Timestamp> {
    match record.action {
        Action::Cut { seconds, .. } | Action::Isolate { seconds, .. } | Action::Ban { seconds, .. }
            if seconds > 0 && record.state == ActionState::Done =>
        {
            Some(record.changed.plus_secs(f64::from(seconds)))
        }
        _ => None,
    }
}

/// The timed actions whose time has run out.
#[must_use]
pub fn due(records: &[ActionRecord], now: Timestamp) -> Vec<&ActionRecord> {
    records.iter().filter(|record| ends(record).is_some_and(|end| end <= now)).collect()
}

/// How many seconds a timed action still has; `None` when it has no end or is over. A clock that jumped back
/// never makes it longer than it was ordered.
#[must_use]
pub fn remaining(record: &ActionRecord, now: Timestamp) -> Option<u32> {
    let (Action::Cut { seconds, .. } | Action::Isolate { seconds, .. } | Action::Ban { seconds, .. }) =
        record.action
    else {
        return None;
    };
    let left = ends(record)?.secs_since(now).ceil();
    (left > 0.0).then(|| (left.min(f64::from(u32::MAX)) as u32).min(seconds))
}
