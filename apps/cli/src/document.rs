//! JSON for programs: the wire's words with times in RFC 3339, safe to print on a terminal.
//!
//! The shapes are documented in `docs/reference/json.md`.

use std::io;

use davy_model::{ActionRecord, Event, Finding, Incident, ScanSource, Timestamp};
use davy_wire::{AgentStatus, ConnectionEntry, PortsView, Quarantined, TopView};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::clock::rfc3339;
use crate::escape::is_treacherous;

/// A value on one line.
pub(crate) fn line(value: &Value) -> String {
    printed(value, Guarded(CompactFormatter))
}

/// A value over several lines.
pub(crate) fn pretty(value: &Value) -> String {
    printed(value, Guarded(PrettyFormatter::new()))
}

fn printed<F: Formatter>(value: &Value, formatter: F) -> String {
    let mut out = vec![];
    // Writing a value to memory cannot fail: its keys are strings and memory takes every byte.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut out, formatter));
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

/// A formatter that writes treacherous characters as `\uXXXX`, which JSON leaves raw beyond U+001F.
struct Guarded<F>(F);

impl<F: Formatter> Formatter for Guarded<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_treacherous(*c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
    fn begin_array<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_array(w)
    }
    fn end_array<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array(w)
    }
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(w, first)
    }
    fn end_array_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array_value(w)
    }
    fn begin_object<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object(w)
    }
    fn end_object<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object(w)
    }
    fn begin_object_key<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(w, first)
    }
    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object_value(w)
    }
    fn end_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object_value(w)
    }
}

/// Any value as it is on the wire.
pub(crate) fn raw<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// The agent's state.
pub(crate) fn status(status: &AgentStatus) -> Value {
    let mut value = raw(status);
    dated(&mut value, &["started", "disarmed_until"]);
    dated(&mut value["policy"], &["loaded"]);
    for isolated in items(&mut value["isolated"]) {
        dated(isolated, &["until"]);
    }
    for proof in ["last_canary", "last_drill"] {
        if !value[proof].is_null() {
            dated(&mut value[proof], &["time"]);
        }
    }
    value
}

/// A view of the busiest trees.
pub(crate) fn top(view: &TopView) -> Value {
    let mut value = raw(view);
    dated(&mut value, &["time"]);
    short(&mut value, &["event_rate"]);
    for tree in items(&mut value["trees"]) {
        short(tree, &["cpu", "bits"]);
    }
    value
}

/// An event.
pub(crate) fn event(event: &Event) -> Value {
    let mut value = raw(event);
    dated(&mut value, &["time"]);
    if let Some(data) = value.get_mut("data") {
        dated(data, &["began"]);
    }
    value
}

/// A finding.
pub(crate) fn finding(finding: &Finding) -> Value {
    let mut value = raw(finding);
    date_finding(&mut value);
    value
}

/// An action.
pub(crate) fn action(action: &ActionRecord) -> Value {
    let mut value = raw(action);
    dated(&mut value, &["time", "changed"]);
    value
}

/// A row of the map of who talks to whom.
pub(crate) fn connection(entry: &ConnectionEntry) -> Value {
    let mut value = raw(entry);
    dated(&mut value, &["first", "last"]);
    value
}

/// Who looks for open ports.
pub(crate) fn scan_source(source: &ScanSource) -> Value {
    let mut value = raw(source);
    dated(&mut value, &["first", "last"]);
    short(&mut value, &["bits", "needed"]);
    value
}

/// A file in quarantine.
pub(crate) fn quarantined(file: &Quarantined) -> Value {
    let mut value = raw(file);
    dated(&mut value, &["taken", "accessed", "modified"]);
    value
}

/// Who listens where, and who may reach it.
pub(crate) fn ports(view: &PortsView) -> Value {
    let mut value = raw(view);
    dated(&mut value, &["since", "confirm_until"]);
    for port in items(&mut value["ports"]) {
        dated(port, &["last"]);
        items(&mut port["latest"]).iter_mut().for_each(|source| dated(source, &["last"]));
    }
    value
}

/// Somebody who is banned.
pub(crate) fn ban(ban: &davy_wire::BanEntry) -> Value {
    let mut value = raw(ban);
    dated(&mut value, &["since", "until"]);
    value
}

/// An incident.
pub(crate) fn incident(incident: &Incident) -> Value {
    let mut value = raw(incident);
    dated(&mut value, &["first", "last", "detected", "stopped"]);
    items(&mut value["timeline"]).iter_mut().for_each(|e| dated(e, &["time"]));
    items(&mut value["actions"]).iter_mut().for_each(|a| dated(a, &["time", "changed"]));
    items(&mut value["findings"]).iter_mut().for_each(date_finding);
    value
}

fn date_finding(value: &mut Value) {
    dated(value, &["first", "time"]);
    for evidence in items(&mut value["evidence"]) {
        dated(evidence, &["time"]);
        short(evidence, &["weight"]);
    }
}

fn items(value: &mut Value) -> &mut [Value] {
    value.as_array_mut().map(Vec::as_mut_slice).unwrap_or_default()
}

/// Turns microseconds into RFC 3339.
fn dated(value: &mut Value, fields: &[&str]) {
    for field in fields {
        if let Some(micros) = value.get(*field).and_then(Value::as_i64) {
            value[*field] = Value::String(rfc3339(Timestamp(micros)));
        }
    }
}

/// Writes a single-precision number with its own digits and not with those of the double it became.
fn short(value: &mut Value, fields: &[&str]) {
    for field in fields {
        if let Some(x) = value.get(*field).and_then(Value::as_f64) {
            value[*field] = Value::from((x as f32).to_string().parse().unwrap_or(x));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn short_keeps_the_digits_that_were_measured() {
        let mut value = json!({ "weight": 3.1f32 });
        short(&mut value, &["weight"]);
        assert_eq!(line(&value), "{\"weight\":3.1}\n");
    }

    proptest! {
        #[test]
        fn stays_the_same_value_and_safe_to_print(text in any::<String>()) {
            let value = json!({ "text": text, "list": [1, { "b": text }] });
            for printed in [line(&value), pretty(&value)] {
                prop_assert!(!printed.chars().any(|c| is_treacherous(c) && c != '\n'));
                prop_assert_eq!(&serde_json::from_str::<Value>(&printed).expect("JSON"), &value);
            }
        }
    }
}
