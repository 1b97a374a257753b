//! How an event lies in a row: time and process in columns, the kind as a number, and the rest as JSON text,
//! which SQLite's own JSON functions and any other tool can read.

use davy_model::{Event, EventKind, ProcessKey, Timestamp};

use crate::Error;

/// An event taken apart for its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) time: i64,
    pub(crate) process: Option<ProcessKey>,
    /// The JSON name of the kind.
    pub(crate) kind: String,
    /// What is told of it.
    pub(crate) json: String,
}

const HEAD: &str = "{\"event\":\"";
const MIDDLE: &str = "\",\"data\":";

impl Row {
    pub(crate) fn of(event: &Event) -> Result<Self, Error> {
        let bad = |source| Error::Record { what: "event", source };
        let text = serde_json::to_string(&event.kind).map_err(bad)?;
        // The kind is an adjacently tagged enum, so its text is always HEAD kind MIDDLE data "}".
        let parts = text
            .strip_prefix(HEAD)
            .and_then(|rest| rest.strip_suffix('}'))
            .and_then(|rest| rest.split_once(MIDDLE));
        let (kind, json) = parts.ok_or_else(|| bad(serde::ser::Error::custom("an event without data")))?;
        Ok(Self { time: event.time.0, process: event.process, kind: kind.into(), json: json.into() })
    }

    pub(crate) fn event(&self) -> Result<Event, Error> {
        let text = format!("{HEAD}{}{MIDDLE}{}}}", self.kind, self.json);
        let kind: EventKind =
            serde_json::from_str(&text).map_err(|source| Error::Record { what: "event", source })?;
        Ok(Event { time: Timestamp(self.time), process: self.process, kind })
    }
}
