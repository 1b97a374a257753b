//! What the policy says of who may reach which port.

use std::fmt;

use davy_model::{Mode, PortRange, Prefix, Timestamp, Transport};

use crate::check::{Checker, Node, Value};
use crate::diagnostic::Code;
use crate::read::{Fields, unit_name};
use crate::wording::{closest, shown};

/// The most entries of `[[inbound.allow]]`, and the most groups.
pub const MAX_INBOUND: usize = 1000;

/// The word for every address.
const ANYONE: &str = "anyone";

/// Who may reach which port of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// What is done with a connection that no entry allows. Off when the policy does not speak of it.
    pub mode: Mode,
    /// Networks under a name.
    pub groups: Vec<InboundGroup>,
    /// Ports that are open, and for whom.
    pub allow: Vec<InboundAllow>,
}

impl Default for Inbound {
    fn default() -> Self {
        Self { mode: Mode::Off, groups: Vec::new(), allow: Vec::new() }
    }
}

/// Networks under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundGroup {
    /// Its name.
    pub name: String,
    /// Networks written in the policy.
    pub networks: Vec<Prefix>,
    /// Files with one network a line, relative to the configuration folder.
    pub files: Vec<String>,
}

/// A port that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundAllow {
    /// The ports; empty for all that the service listens on.
    pub ports: Vec<PortRange>,
    /// The systemd unit that must listen there; `None` for whoever does.
    pub service: Option<String>,
    /// Over which protocol.
    pub protocol: InboundProtocol,
    /// For whom; never empty.
    pub from: Vec<InboundFrom>,
    /// Why, for whoever reads the policy later.
    pub reason: String,
    /// The first moment the entry no longer holds; `None` means for ever.
    pub until: Option<Timestamp>,
}

/// Over which protocol a port is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Both.
    Both,
}

impl InboundProtocol {
    /// Its name in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Both => "both",
        }
    }

    /// Whether this transport is meant.
    #[must_use]
    pub const fn holds(self, transport: Transport) -> bool {
        matches!(
            (self, transport),
            (Self::Both, _) | (Self::Tcp, Transport::Tcp) | (Self::Udp, Transport::Udp)
        )
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Both].into_iter().find(|protocol| protocol.name() == name)
    }
}

/// For whom a port is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InboundFrom {
    /// Everybody.
    Anyone,
    /// The addresses of a network.
    Network(Prefix),
    /// The networks of the group with this name.
    Group(String),
}

impl fmt::Display for InboundFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str(ANYONE),
            Self::Network(network) => network.fmt(f),
            Self::Group(name) => f.write_str(name),
        }
    }
}

/// The section `[inbound]` and its lists.
pub(crate) fn inbound(checker: &mut Checker<'_>, root: &mut Node) -> Inbound {
    let groups = Fields::all(root.child("inbound"), "group");
    let allow = Fields::all(root.child("inbound"), "allow");
    let section = Fields::only(root, "inbound");
    for (what, entries) in [("inbound.group", &groups), ("inbound.allow", &allow)] {
        if let Some(first) = entries.get(MAX_INBOUND) {
            let message = format!("there are {} entries of `{what}`", entries.len());
            let expected = format!("expected at most {MAX_INBOUND}");
            let help = "many networks belong in a file that a group names";
            checker.fault(Code::OutOfBounds, &first.node.span, message, expected, help);
        }
    }
    let groups: Vec<_> = read_groups(checker, &groups);
    let names: Vec<String> = groups.iter().map(|group| group.name.clone()).collect();
    let allow = allow.iter().filter_map(|fields| read_allow(checker, fields, &names)).collect();
    Inbound { mode: section.mode("mode", Mode::Off), groups, allow }
}

fn read_groups(checker: &mut Checker<'_>, entries: &[Fields]) -> Vec<InboundGroup> {
    let mut groups: Vec<InboundGroup> = Vec::new();
    for fields in entries {
        let Some(name) = fields.text("name") else { continue };
        let span = fields.node.span.clone();
        if groups.iter().any(|group| group.name == name) {
            let message = format!("the group `{}` is given twice", shown(&name));
            checker.fault(Code::Twice, &span, message, "again here", "a group has one entry");
        } else if name == ANYONE || name.parse::<Prefix>().is_ok() {
            let message = format!("a group cannot be called `{}`", shown(&name));
            checker.fault(Code::Source, &span, message, "expected a name such as \"office\"", "");
        } else if !fields.has("networks") && !fields.has("files") {
            let message = format!("the group `{}` is empty", shown(&name));
            checker.fault(Code::Missing, &span, message, "needs `networks` or `files`", "");
        }
        let networks = match fields.get("networks") {
            Some(Value::List(list)) => {
                list.iter().filter_map(|v| if let Value::Network(n) = v { Some(*n) } else { None }).collect()
            }
            _ => Vec::new(),
        };
        groups.push(InboundGroup { name, networks, files: fields.texts("files") });
    }
    groups
}

fn read_allow(checker: &mut Checker<'_>, fields: &Fields, groups: &[String]) -> Option<InboundAllow> {
    if !fields.has("port") && !fields.has("service") {
        let help = "a port opens whoever listens there; a service opens what it listens on";
        let message = "an entry must say which ports it opens";
        checker.fault(Code::Missing, &fields.node.span, message, "needs `port` or `service`", help);
    }
    unit_name(checker, fields, "service");
    let from = read_from(checker, fields, groups);
    let ports = match fields.get("port") {
        Some(Value::Ports(ports)) => ports.clone(),
        _ => Vec::new(),
    };
    let usual = if fields.has("port") { InboundProtocol::Tcp } else { InboundProtocol::Both };
    Some(InboundAllow {
        ports,
        service: fields.text("service"),
        protocol: fields.text("protocol").and_then(|name| InboundProtocol::from_name(&name)).unwrap_or(usual),
        from,
        reason: fields.text("reason")?,
        until: fields.until("until"),
    })
}

fn read_from(checker: &mut Checker<'_>, fields: &Fields, groups: &[String]) -> Vec<InboundFrom> {
    let Some((Value::List(_), span)) = fields.node.values.get("from") else { return Vec::new() };
    let span = span.clone();
    let words = fields.texts("from");
    if words.is_empty() {
        let help = "an entry that is for nobody is left out";
        checker.fault(
            Code::Missing,
            &span,
            "`from` names nobody",
            "needs a network, a group or \"anyone\"",
            help,
        );
    }
    let mut from = Vec::new();
    for word in words {
        if word == ANYONE {
            from.push(InboundFrom::Anyone);
        } else if groups.contains(&word) {
            from.push(InboundFrom::Group(word));
        } else {
            match word.parse() {
                Ok(network) => from.push(InboundFrom::Network(network)),
                Err(why) => {
                    let looks_like_one =
                        word.contains(['/', ':']) || word.starts_with(|c: char| c.is_ascii_digit());
                    let known: Vec<&str> = groups.iter().map(String::as_str).chain([ANYONE]).collect();
                    let (message, help) = if looks_like_one {
                        (format!("`{}` {why}", shown(&word)), String::new())
                    } else {
                        let near = closest(&word, &known).map(|near| format!("did you mean \"{near}\"?"));
                        let help = near
                            .unwrap_or_else(|| "a group is the `name` of an `[[inbound.group]]`".to_owned());
                        (format!("there is no group `{}`", shown(&word)), help)
                    };
                    checker.fault(
                        Code::Source,
                        &span,
                        message,
                        "expected a network, a group or \"anyone\"",
                        help,
                    );
                }
            }
        }
    }
    from
}
