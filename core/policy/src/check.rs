//! Holds a TOML document against the catalogue and collects every fault on the way.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use davy_model::{Mode, PortRange, Prefix, Timestamp};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::{Datetime, Offset};

use crate::catalogue::{Key, Kind, Section};
use crate::diagnostic::{Code, Diagnostic};
use crate::wording::{alternatives, closest, example, shown, type_name, wanted};
use crate::{Digest, format_duration, format_size, parse_duration, parse_size};

/// Faults beyond this are counted, not told.
const MAX_FAULTS: usize = 100;

/// The most ports and ranges in one value.
const MAX_PORTS: usize = 64;

/// What to write instead of `enforce` where that is not in this version.
const OBSERVED: &str =
    "write `observe`: it is recognised, recorded and told; `davy policy show` names those that can enforce";

/// The longest text value, in characters.
const MAX_VALUE: usize = 4096;

/// A value that fits its key.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Mode(Mode),
    Flag(bool),
    Integer(i64),
    Number(f64),
    Duration(Option<Duration>),
    Size(u64),
    Text(String),
    Digest(Digest),
    Until(Timestamp),
    Ports(Vec<PortRange>),
    Network(Prefix),
    List(Vec<Value>),
}

/// A table that was read: its good values, each with its place in the text.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) span: Range<usize>,
    pub(crate) values: BTreeMap<&'static str, (Value, Range<usize>)>,
    /// Keys that were written, good or not.
    pub(crate) written: Vec<&'static str>,
    pub(crate) children: BTreeMap<&'static str, Vec<Node>>,
}

/// The text and the faults found in it so far.
pub(crate) struct Checker<'t> {
    name: &'t str,
    text: &'t str,
    /// Offset of each line's first byte.
    starts: Vec<usize>,
    faults: Vec<Diagnostic>,
    left_out: usize,
}

impl<'t> Checker<'t> {
    pub(crate) fn new(name: &'t str, text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name, text, starts, faults: Vec::new(), left_out: 0 }
    }

    /// The line of a byte, counted from one.
    pub(crate) fn line(&self, at: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|start| *start <= at)).unwrap_or(u32::MAX)
    }

    /// Takes down a fault.
    pub(crate) fn fault(
        &mut self,
        code: Code,
        span: &Range<usize>,
        message: impl Into<String>,
        expected: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.faults.len() == MAX_FAULTS {
            self.left_out += 1;
            return;
        }
        let span = self.within(span);
        let line = self.line(span.start);
        let first = self.starts.get(line as usize - 1).copied().unwrap_or(0);
        let column = self.text.get(first..span.start).map_or(0, |before| before.chars().count()) + 1;
        self.faults.push(Diagnostic {
            code,
            message: message.into(),
            file: self.name.to_owned(),
            line,
            column: u32::try_from(column).unwrap_or(u32::MAX),
            span,
            expected: expected.into(),
            help: help.into(),
        });
    }

    /// The span, moved onto character boundaries inside the text.
    fn within(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start.min(self.text.len()));
        let end = self.text.ceil_char_boundary(span.end.min(self.text.len()));
        start..end.max(start)
    }

    /// The faults in the order of the text, and how many more there were.
    pub(crate) fn finish(mut self) -> (Vec<Diagnostic>, usize) {
        self.faults.sort_by_key(|f| (f.span.start, f.code));
        (self.faults, self.left_out)
    }

    /// Holds a table against its section.
    pub(crate) fn table(
        &mut self,
        section: &'static Section,
        table: &DeTable<'_>,
        span: Range<usize>,
    ) -> Node {
        let mut node = Node { span, ..Node::default() };
        for (name, value) in table {
            let written = name.get_ref().as_ref();
            if let Some(child) = section.children().find(|c| c.name() == written) {
                node.written.push(child.name());
                let nodes = self.child(child, value, name.span());
                node.children.insert(child.name(), nodes);
            } else if let Some(key) = section.keys.iter().find(|k| k.name == written) {
                node.written.push(key.name);
                if let Kind::Refused { code, why, help } = key.kind {
                    self.fault(code, &name.span(), why, "not an identity", help);
                } else if let Some(value) = self.value(key, &key.kind, value) {
                    node.values.insert(key.name, (value, name.span()));
                }
            } else {
                self.unknown(section, written, &name.span());
            }
        }
        for key in section.keys.iter().filter(|k| k.required) {
            if !node.written.contains(&key.name) {
                self.fault(
                    Code::Missing,
                    &node.span.clone(),
                    format!("`{}` is missing", key.name),
                    format!("needs `{} = {}`", key.name, example(&key.kind)),
                    key.doc,
                );
            }
        }
        node
    }

    fn child(
        &mut self,
        section: &'static Section,
        value: &Spanned<DeValue<'_>>,
        name: Range<usize>,
    ) -> Vec<Node> {
        match (value.get_ref(), section.repeated) {
            (DeValue::Table(table), false) => vec![self.table(section, table, heading(value.span(), name))],
            (DeValue::Array(tables), true) => {
                let mut nodes = Vec::new();
                for one in tables {
                    if let DeValue::Table(table) = one.get_ref() {
                        nodes.push(self.table(section, table, heading(one.span(), name.clone())));
                    } else {
                        self.wrong_type(&one.span(), one.get_ref(), "a table");
                    }
                }
                nodes
            }
            (other, repeated) => {
                let brackets = if repeated { ("[[", "]]") } else { ("[", "]") };
                let wanted = format!("a section `{}{}{}`", brackets.0, section.path, brackets.1);
                let place = if matches!(other, DeValue::Table(_)) { name } else { value.span() };
                self.wrong_type(&place, other, &wanted);
                Vec::new()
            }
        }
    }

    fn unknown(&mut self, section: &'static Section, written: &str, span: &Range<usize>) {
        let known: Vec<&str> = section
            .keys
            .iter()
            .filter(|k| !matches!(k.kind, Kind::Refused { .. }))
            .map(|k| k.name)
            .chain(section.children().map(Section::name))
            .collect();
        let place =
            if section.path.is_empty() { "a policy".to_owned() } else { format!("`{}`", section.path) };
        let label = closest(written, &known)
            .map_or_else(|| "unknown".to_owned(), |near| format!("unknown; did you mean `{near}`?"));
        let message = format!("there is no `{}` in {place}", shown(written));
        self.fault(Code::UnknownKey, span, message, label, format!("{place} has: {}", known.join(", ")));
    }

    pub(crate) fn wrong_type(&mut self, span: &Range<usize>, found: &DeValue<'_>, wanted: &str) {
        let message = format!("expected {wanted}, found {}", type_name(found));
        self.fault(Code::WrongType, span, message, format!("expected {wanted}"), "");
    }

    /// Reads one value; a fault and `None` when it does not fit.
    fn value(&mut self, key: &Key, kind: &Kind, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        let span = &value.span();
        match (kind, value.get_ref()) {
            (Kind::Mode { enforce: true }, DeValue::String(word)) => self.mode(word, None, span),
            (Kind::Mode { enforce: false }, DeValue::String(word)) => self.mode(word, Some(OBSERVED), span),
            (Kind::Observed { instead }, DeValue::String(word)) => self.mode(word, Some(instead), span),
            (Kind::Flag, DeValue::Boolean(flag)) => Some(Value::Flag(*flag)),
            (Kind::Integer { min, max }, DeValue::Integer(digits)) => {
                let number = i64::from_str_radix(digits.as_str(), digits.radix()).ok();
                match number.filter(|n| (min..=max).contains(&n)) {
                    Some(number) => Some(Value::Integer(number)),
                    None => self.out_of_bounds(key, span, digits.to_string(), min, max),
                }
            }
            (Kind::Number { min, max }, DeValue::Float(_) | DeValue::Integer(_)) => {
                let text = match value.get_ref() {
                    DeValue::Float(f) => Cow::Borrowed(f.as_str()),
                    DeValue::Integer(i) if i.radix() == 10 => Cow::Borrowed(i.as_str()),
                    other => {
                        self.wrong_type(span, other, "a decimal number");
                        return None;
                    }
                };
                match text.parse::<f64>().ok().filter(|n| (min..=max).contains(&n)) {
                    Some(number) => Some(Value::Number(number)),
                    None => self.out_of_bounds(key, span, text.into_owned(), min, max),
                }
            }
            (Kind::Duration { off: true, .. }, DeValue::String(word)) if word == "off" => {
                Some(Value::Duration(None))
            }
            (Kind::Duration { min, max, .. }, DeValue::String(text)) => match parse_duration(text) {
                Ok(d) if (*min..=*max).contains(&d.as_secs()) => Some(Value::Duration(Some(d))),
                Ok(_) => {
                    let bound = |s: &u64| format_duration(Duration::from_secs(*s));
                    self.out_of_bounds(key, span, text.to_string(), bound(min), bound(max))
                }
                Err(why) => {
                    self.quantity(span, text, "duration", &why, "\"90s\", \"10m\", \"24h\" or \"30d\"")
                }
            },
            (Kind::Size { min, max }, DeValue::String(text)) => match parse_size(text) {
                Ok(bytes) if (*min..=*max).contains(&bytes) => Some(Value::Size(bytes)),
                Ok(_) => {
                    self.out_of_bounds(key, span, text.to_string(), format_size(*min), format_size(*max))
                }
                Err(why) => self.quantity(span, text, "size", &why, "\"2KiB\", \"64MiB\" or \"1GiB\""),
            },
            (Kind::Text, DeValue::String(text)) => self.text(key, text, span).map(Value::Text),
            (Kind::OneOf(words), DeValue::String(word)) => {
                if words.contains(&word.as_ref()) {
                    return Some(Value::Text(word.to_string()));
                }
                self.not_one_of(span, word, words);
                None
            }
            (Kind::Cgroup, DeValue::String(path)) => self.cgroup(key, path, span),
            (Kind::File, DeValue::String(path)) => self.file(key, path, span),
            (Kind::Folder, DeValue::String(path)) => self.folder(key, path, span),
            (Kind::Digest, DeValue::String(digits)) => match digits.parse() {
                Ok(digest) => Some(Value::Digest(digest)),
                Err(_) => {
                    let message = format!("`{}` is not a SHA-256 digest", shown(digits));
                    let help = "`sha256sum FILE` prints it";
                    self.fault(Code::Digest, span, message, "expected 64 hexadecimal digits", help);
                    None
                }
            },
            (Kind::Date, DeValue::Datetime(date)) => match until(date) {
                Some(time) => Some(Value::Until(time)),
                None => {
                    self.not_a_date(span, &date.to_string(), "such as 2027-01-31 or 2027-01-31T12:00:00Z")
                }
            },
            (Kind::Date, DeValue::String(text)) => {
                self.not_a_date(span, text, "TOML writes dates without quotes: 2027-01-31")
            }
            (Kind::Ports, DeValue::Integer(_) | DeValue::String(_)) => {
                self.ports(value).map(|range| Value::Ports(vec![range]))
            }
            (Kind::Ports, DeValue::Array(items)) if items.len() > MAX_PORTS => {
                self.out_of_bounds(key, span, format!("a list of {}", items.len()), 1, MAX_PORTS)
            }
            (Kind::Ports, DeValue::Array(items)) => {
                Some(Value::Ports(items.iter().filter_map(|item| self.ports(item)).collect()))
            }
            (Kind::Network, DeValue::String(text)) => match text.parse() {
                Ok(network) => Some(Value::Network(network)),
                Err(why) => {
                    let message = format!("`{}` {why}", shown(text));
                    self.fault(Code::Source, span, message, "expected such as \"203.0.113.0/24\"", "");
                    None
                }
            },
            (Kind::List(kind), DeValue::Array(items)) => {
                let mut seen: Vec<&DeValue<'_>> = Vec::new();
                let mut list = Vec::new();
                for item in items {
                    if let DeValue::String(text) = item.get_ref() {
                        if seen.iter().any(|s| s.as_str() == Some(text)) {
                            let message = format!("`{}` is given twice", shown(text));
                            self.fault(Code::Twice, &item.span(), message, "again here", "");
                            continue;
                        }
                        seen.push(item.get_ref());
                    }
                    list.extend(self.value(key, kind, item));
                }
                Some(Value::List(list))
            }
            (kind, other) => {
                self.wrong_type(span, other, &wanted(kind));
                None
            }
        }
    }

    fn ports(&mut self, value: &Spanned<DeValue<'_>>) -> Option<PortRange> {
        let text = match value.get_ref() {
            DeValue::Integer(digits) if digits.radix() == 10 => Cow::Borrowed(digits.as_str()),
            DeValue::String(text) => Cow::Borrowed(text.as_ref()),
            other => {
                self.wrong_type(&value.span(), other, &wanted(&Kind::Ports));
                return None;
            }
        };
        match text.parse() {
            Ok(range) => Some(range),
            Err(why) => {
                let message = format!("`{}` {why}", shown(&text));
                let expected = "expected such as 443, \"8000-8100\" or [80, 443]";
                self.fault(Code::Port, &value.span(), message, expected, "ports are 1 to 65535");
                None
            }
        }
    }

    /// `instead` is what to write where enforcing is not in this version.
    fn mode(&mut self, word: &str, instead: Option<&str>, span: &Range<usize>) -> Option<Value> {
        match (word, instead) {
            ("off", _) => Some(Value::Mode(Mode::Off)),
            ("observe", _) => Some(Value::Mode(Mode::Observe)),
            ("enforce", None) => Some(Value::Mode(Mode::Enforce)),
            ("enforce", Some(instead)) => {
                self.fault(
                    Code::CannotEnforce,
                    span,
                    "this protection cannot enforce in this version",
                    "expected `off` or `observe`",
                    instead,
                );
                None
            }
            (_, None) => {
                self.not_one_of(span, word, &["off", "observe", "enforce"]);
                None
            }
            (_, Some(_)) => {
                self.not_one_of(span, word, &["off", "observe"]);
                None
            }
        }
    }

    fn text(&mut self, key: &Key, text: &str, span: &Range<usize>) -> Option<String> {
        let why = if text.trim().is_empty() {
            "is empty"
        } else if text.chars().count() > MAX_VALUE {
            "is too long"
        } else if text.contains(char::is_control) {
            "has control characters"
        } else {
            return Some(text.to_owned());
        };
        let expected = format!("expected one line of 1 to {MAX_VALUE} characters");
        self.fault(Code::Text, span, format!("`{}` {why}", key.name), expected, key.doc);
        None
    }

    fn cgroup(&mut self, key: &Key, path: &str, span: &Range<usize>) -> Option<Value> {
        let path = self.text(key, path, span)?;
        if let Some(below) = path.strip_prefix("/sys/fs/cgroup/") {
            let below = below.strip_prefix("unified/").unwrap_or(below);
            let message = format!("`{}` includes the place where cgroups are mounted", shown(&path));
            let expected = "expected the path below the mount";
            self.fault(Code::Cgroup, span, message, expected, format!("write \"/{}\"", shown(below)));
            return None;
        }
        let parts = path.strip_prefix('/').map(|rest| rest.split('/'));
        let good = parts.is_some_and(|mut p| p.all(|part| !part.is_empty() && part != "." && part != ".."));
        if good || path == "/" {
            return Some(Value::Text(path));
        }
        let message = format!("`{}` is not a cgroup path", shown(&path));
        let expected = "expected a path such as \"/system.slice/nginx.service\"";
        self.fault(Code::Cgroup, span, message, expected, "`systemd-cgls` shows them; `/` is the whole host");
        None
    }

    fn file(&mut self, key: &Key, path: &str, span: &Range<usize>) -> Option<Value> {
        let path = self.text(key, path, span)?;
        if !path.starts_with('/') && path.split('/').all(|part| part != "..") {
            return Some(Value::Text(path));
        }
        let message = format!("`{}` leads out of the configuration folder", shown(&path));
        let help = "put the list beside the policy, so that both are kept and backed up together";
        self.fault(
            Code::OutsideFolder,
            span,
            message,
            "expected a file below the configuration folder",
            help,
        );
        None
    }

    fn folder(&mut self, key: &Key, path: &str, span: &Range<usize>) -> Option<Value> {
        let path = self.text(key, path, span)?;
        let parts = path.strip_prefix('/').map(|rest| rest.trim_end_matches('/').split('/'));
        if parts.is_some_and(|mut p| p.all(|part| !part.is_empty() && part != "." && part != "..")) {
            return Some(Value::Text(path.trim_end_matches('/').to_owned()));
        }
        let message = format!("`{}` is not a folder's absolute path", shown(&path));
        let help = "the whole host cannot be allowed here; `mode` says what is done with unknown code";
        let help = if key.name == "paths" {
            "name the folders; `davy scan /` looks through everything once"
        } else {
            help
        };
        let help = if path == "/" { help } else { "write the path in full, without `.` and `..`" };
        self.fault(Code::Folder, span, message, "expected a path such as \"/opt/vendor\"", help);
        None
    }

    fn not_one_of(&mut self, span: &Range<usize>, word: &str, words: &[&str]) {
        let message = format!("`{}` is not one of the values", shown(word));
        let help = closest(word, words).map_or_else(String::new, |near| format!("did you mean \"{near}\"?"));
        self.fault(Code::NotOneOf, span, message, format!("expected {}", alternatives(words)), help);
    }

    fn quantity(
        &mut self,
        span: &Range<usize>,
        text: &str,
        what: &str,
        why: &str,
        such_as: &str,
    ) -> Option<Value> {
        let message = format!("`{}` is not a {what}: {why}", shown(text));
        self.fault(Code::Quantity, span, message, format!("expected such as {such_as}"), "");
        None
    }

    fn not_a_date(&mut self, span: &Range<usize>, text: &str, help: &str) -> Option<Value> {
        let message = format!("`{}` is not a date", shown(text));
        self.fault(Code::Date, span, message, "expected a date, or a date and time with offset", help);
        None
    }

    fn out_of_bounds<B: std::fmt::Display>(
        &mut self,
        key: &Key,
        span: &Range<usize>,
        found: String,
        min: B,
        max: B,
    ) -> Option<Value> {
        let message = format!("`{}` cannot be {}", key.name, shown(&found));
        self.fault(Code::OutOfBounds, span, message, format!("expected {min} to {max}"), key.doc);
        None
    }
}

/// The place to point at for a whole table: its first line, or its name when it has none of its own.
fn heading(table: Range<usize>, name: Range<usize>) -> Range<usize> {
    if table.is_empty() { name } else { table }
}

/// The first moment an entry with this `until` no longer holds.
fn until(date: &Datetime) -> Option<Timestamp> {
    let day = date.date?;
    let civil = jiff::civil::Date::new(
        i16::try_from(day.year).ok()?,
        i8::try_from(day.month).ok()?,
        i8::try_from(day.day).ok()?,
    )
    .ok()?;
    let midnight = civil.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    let seconds = match (date.time, date.offset) {
        (None, None) => midnight + 86_400,
        (Some(time), Some(offset)) => {
            let minutes = match offset {
                Offset::Z => 0,
                Offset::Custom { minutes } => i64::from(minutes),
            };
            let second = i64::from(time.second.unwrap_or(0));
            midnight + i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + second - minutes * 60
        }
        _ => return None,
    };
    Some(Timestamp::from_secs(seconds))
}
