//! What the policy says of who may connect to what.

use std::fmt;
use std::net::IpAddr;

use davy_model::{
    Mode, OUTBOUND_RULES, OutboundProtocol, PortRange, Prefix, Timestamp, UNIT_NAME_MAX, reversed_name,
};

use crate::check::{Checker, Node, Value};
use crate::diagnostic::Code;
use crate::read::{Fields, unit_name};
use crate::wording::{closest, shown};

/// Words that a destination can be; no group may be called so.
const WORDS: [&str; 3] = ["any", "inside", "outside"];

/// The most groups, and the most destinations of one entry.
const MAX_LIST: usize = 512;

/// What is inside when the policy does not say: private (RFC 1918, RFC 4193), shared (RFC 6598), link-local (RFC 3927, RFC 4291), and
/// multicast and broadcast that stay there (RFC 2365, RFC 5771, RFC 7346).
const INSIDE: [&str; 15] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "224.0.0.0/16",
    "239.0.0.0/8",
    "255.255.255.255",
    "fc00::/7",
    "fe80::/10",
    "ff01::/16",
    "ff02::/16",
    "ff04::/16",
    "ff05::/16",
    "ff08::/16",
];

/// Who may connect to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// What is done with a connection that no entry allows. Off when the policy does not speak of it.
    pub mode: Mode,
    /// The networks that are `inside`; everything else is `outside`.
    pub inside: Vec<Prefix>,
    /// Name servers whose answers are believed, besides those of the host's own configuration.
    pub resolvers: Vec<Prefix>,
    /// Destinations under a name.
    pub groups: Vec<OutboundGroup>,
    /// Connections that are allowed.
    pub allow: Vec<OutboundAllow>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            mode: Mode::Off,
            inside: INSIDE.iter().filter_map(|network| network.parse().ok()).collect(),
            resolvers: Vec::new(),
            groups: Vec::new(),
            allow: Vec::new(),
        }
    }
}

/// Destinations under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundGroup {
    /// Its name; it has no dot, so that it is told from a host's.
    pub name: String,
    /// What it stands for; no group is among it.
    pub to: Vec<OutboundTo>,
}

/// Connections that are allowed. Everything that is given must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundAllow {
    /// The systemd unit, or slice, that it comes from; `None` for any.
    pub service: Option<String>,
    /// The first twelve digits of the id of the container that it comes from; `None` for any.
    pub container: Option<String>,
    /// The user, by name or number; `None` for any.
    pub user: Option<String>,
    /// Where to; never empty.
    pub to: Vec<OutboundTo>,
    /// Which ports; empty for all.
    pub ports: Vec<PortRange>,
    /// By what; `None` for TCP and UDP.
    pub protocol: Option<OutboundProtocol>,
    /// Why, for whoever reads the policy later.
    pub reason: String,
    /// The first moment the entry no longer holds; `None` means for ever.
    pub until: Option<Timestamp>,
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboundTo {
    /// Everything.
    Any,
    /// The networks that are inside.
    Inside,
    /// Everything that is not.
    Outside,
    /// The addresses of a network.
    Network(Prefix),
    /// A host's name.
    Name(String),
    /// All names below this domain.
    Below(String),
    /// What the group of this name stands for.
    Group(String),
}

impl fmt::Display for OutboundTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Inside => f.write_str("inside"),
            Self::Outside => f.write_str("outside"),
            Self::Network(network) => network.fmt(f),
            Self::Name(name) | Self::Group(name) => f.write_str(name),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

/// A destination of this text, if it is one; a word that is none of the others is taken for a group's name.
fn destination(text: &str) -> Option<OutboundTo> {
    let name = |name: &str| {
        let written = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        let numbers = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        (written && !numbers && name.contains('.') && reversed_name(name).is_some())
            .then(|| name.trim_end_matches('.').to_ascii_lowercase())
    };
    Some(match text {
        "any" => OutboundTo::Any,
        "inside" => OutboundTo::Inside,
        "outside" => OutboundTo::Outside,
        _ if text.parse::<Prefix>().is_ok() => OutboundTo::Network(text.parse().ok()?),
        _ => match text.strip_prefix("*.") {
            Some(domain) => OutboundTo::Below(name(domain)?),
            None if text.contains(['.', '/', ':', '*']) => OutboundTo::Name(name(text)?),
            None => OutboundTo::Group(text.to_owned()),
        },
    })
}

impl Outbound {
    /// What an entry's destinations come to, groups taken apart.
    pub fn destinations<'a>(&'a self, allow: &'a OutboundAllow) -> impl Iterator<Item = &'a OutboundTo> {
        allow.to.iter().flat_map(|to| match to {
            OutboundTo::Group(name) => {
                let group = self.groups.iter().find(|group| group.name == *name);
                group.map_or(&[][..], |group| group.to.as_slice())
            }
            other => std::slice::from_ref(other),
        })
    }

    /// The single addresses of name servers that the policy gives.
    pub fn resolver_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.resolvers.iter().map(Prefix::address)
    }
}

/// The section `[outbound]` and its lists.
pub(crate) fn outbound(checker: &mut Checker<'_>, root: &mut Node) -> Outbound {
    let groups = Fields::all(root.child("outbound"), "group");
    let allow = Fields::all(root.child("outbound"), "allow");
    let section = Fields::only(root, "outbound");
    for (what, entries, most) in
        [("outbound.group", &groups, MAX_LIST), ("outbound.allow", &allow, OUTBOUND_RULES)]
    {
        if let Some(first) = entries.get(most) {
            let message = format!("there are {} entries of `{what}`", entries.len());
            let help = "several destinations can stand in one entry";
            checker.fault(
                Code::OutOfBounds,
                &first.node.span,
                message,
                format!("expected at most {most}"),
                help,
            );
        }
    }
    let defaults = Outbound::default();
    let resolvers = section.networks("resolvers").unwrap_or_default();
    if let (Some(network), Some((_, span))) =
        (resolvers.iter().find(|network| !network.is_host()), section.node.values.get("resolvers"))
    {
        let message = format!("`{network}` is a network");
        let help = "whoever is a name server of this host decides which addresses a name has";
        checker.fault(Code::Destination, &span.clone(), message, "expected single addresses", help);
    }
    let groups = read_groups(checker, &groups);
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    let allow = allow.iter().filter_map(|fields| read_allow(checker, fields, &names)).collect();
    Outbound {
        mode: section.mode("mode", defaults.mode),
        inside: section.networks("inside").unwrap_or(defaults.inside),
        resolvers,
        groups,
        allow,
    }
}

fn read_groups(checker: &mut Checker<'_>, entries: &[Fields]) -> Vec<OutboundGroup> {
    let mut groups: Vec<OutboundGroup> = Vec::new();
    for fields in entries {
        let Some(name) = fields.text("name") else { continue };
        let span = fields.node.span.clone();
        if groups.iter().any(|group| group.name == name) {
            let message = format!("the group `{}` is given twice", shown(&name));
            checker.fault(Code::Twice, &span, message, "again here", "a group has one entry");
        } else if WORDS.contains(&name.as_str()) || !matches!(destination(&name), Some(OutboundTo::Group(_)))
        {
            let message = format!("a group cannot be called `{}`", shown(&name));
            let help = "a name with a dot is a host's, and `any`, `inside` and `outside` have a meaning";
            checker.fault(Code::Destination, &span, message, "expected a name such as \"mirrors\"", help);
        }
        groups.push(OutboundGroup { name, to: read_to(checker, fields, &[]) });
    }
    groups
}

fn read_allow(checker: &mut Checker<'_>, fields: &Fields, groups: &[&str]) -> Option<OutboundAllow> {
    let to = read_to(checker, fields, groups);
    read_unit(checker, fields);
    let container = read_container(checker, fields);
    let protocol = fields.text("protocol").and_then(|name| OutboundProtocol::from_name(&name));
    if protocol == Some(OutboundProtocol::Raw) && (fields.has("ports") || to != [OutboundTo::Any]) {
        let message = "a raw socket has no destination when it is judged";
        let help = "sockets that are neither TCP nor UDP are judged once, when they are made";
        let expected = "needs `to = [\"any\"]`, and no `ports`";
        checker.fault(Code::Undecidable, &fields.node.span, message, expected, help);
    }
    let ports = match fields.get("ports") {
        Some(Value::Ports(ports)) => ports.clone(),
        _ => Vec::new(),
    };
    Some(OutboundAllow {
        service: fields.text("service"),
        container,
        user: fields.text("user"),
        to,
        ports,
        protocol,
        reason: fields.text("reason")?,
        until: fields.until("until"),
    })
}

fn read_unit(checker: &mut Checker<'_>, fields: &Fields) {
    unit_name(checker, fields, "service");
    if let Some((Value::Text(unit), span)) = fields.node.values.get("service")
        && unit.len() > UNIT_NAME_MAX
    {
        let message = format!("`{}` is too long", shown(unit));
        let expected = format!("expected at most {UNIT_NAME_MAX} characters");
        let help =
            "the kernel's programs look at no longer names; a slice above the unit can be named instead";
        checker.fault(Code::Identity, &span.clone(), message, expected, help);
    }
}

fn read_container(checker: &mut Checker<'_>, fields: &Fields) -> Option<String> {
    let Some((Value::Text(id), span)) = fields.node.values.get("container") else { return None };
    let good = (12..=64).contains(&id.len()) && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !good {
        let message = format!("`{}` is not a container's id", shown(id));
        let help = "`docker ps` and `crictl ps` show it; a container's name says nothing to the kernel";
        let expected = "expected 12 to 64 hexadecimal digits";
        checker.fault(Code::Identity, &span.clone(), message, expected, help);
        return None;
    }
    Some(id[..12].to_owned())
}

fn read_to(checker: &mut Checker<'_>, fields: &Fields, groups: &[&str]) -> Vec<OutboundTo> {
    let Some((Value::List(_), span)) = fields.node.values.get("to") else { return Vec::new() };
    let span = span.clone();
    let words = fields.texts("to");
    if words.is_empty() || words.len() > MAX_LIST {
        let message = format!("`to` names {} destinations", words.len());
        let help = "what leads nowhere is left out; of many addresses name the network";
        checker.fault(Code::OutOfBounds, &span, message, format!("expected 1 to {MAX_LIST}"), help);
    }
    let mut to = Vec::new();
    for word in words {
        match destination(&word) {
            Some(OutboundTo::Group(name)) if !groups.contains(&name.as_str()) => {
                let known: Vec<&str> = groups.iter().copied().chain(WORDS).collect();
                let near = closest(&name, &known).map(|near| format!("did you mean \"{near}\"?"));
                let help = near.unwrap_or_else(|| format!("known are: {}", known.join(", ")));
                let message = format!("there is no group `{}`", shown(&name));
                let expected = "expected a network, a name such as \"*.debian.org\", or a group";
                checker.fault(Code::Destination, &span, message, expected, help);
            }
            Some(found) => to.push(found),
            None => {
                let why = word.parse::<Prefix>().err().filter(|_| word.contains(['/', ':']));
                let message = match why {
                    Some(why) => format!("`{}` {why}", shown(&word)),
                    None => format!("`{}` is not a destination", shown(&word)),
                };
                let expected = "expected such as \"10.0.3.0/24\", \"deb.debian.org\" or \"*.debian.org\"";
                let help = "a star stands for everything in front of a domain, and nowhere else";
                checker.fault(Code::Destination, &span, message, expected, help);
            }
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_what() {
        for (text, expected) in [
            ("any", Some("any")),
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("*.Debian.org", Some("*.debian.org")),
            ("deb.debian.org.", Some("deb.debian.org")),
            ("mirrors", Some("mirrors")),
            ("10.0.0.1/8", None),
            ("10.0.0", None),
            ("*", None),
            ("*.", None),
            ("*.org", None),
            ("a.*.org", None),
            ("deb..org", None),
            ("deb debian.org", None),
            ("https://debian.org", None),
        ] {
            let found = destination(text).map(|to| to.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_default_inside_is_all_read() {
        assert_eq!(Outbound::default().inside.len(), INSIDE.len());
    }
}
