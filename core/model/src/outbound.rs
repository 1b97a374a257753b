use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The most rules that decide about connections at once.
pub const OUTBOUND_RULES: usize = 512;

/// The longest name of a unit that a rule can have, in bytes.
pub const UNIT_NAME_MAX: usize = 127;

/// The template that a systemd unit is an instance of: `foo@.service` for `foo@bar.service` (systemd.unit(5)).
#[must_use]
pub fn template_of(unit: &str) -> Option<String> {
    let (name, instance) = unit.strip_suffix(".service")?.split_once('@')?;
    (!instance.is_empty() && !name.is_empty()).then(|| format!("{name}@.service"))
}

/// The longest path of a cgroup that has a mode of its own, in bytes.
pub const CGROUP_PATH_MAX: usize = 255;

/// What a connection is made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutboundProtocol {
    /// TCP (RFC 9293), and MPTCP (RFC 8684).
    Tcp,
    /// UDP (RFC 768).
    Udp,
    /// Everything else that a socket of the internet families can be: raw ones, ICMP, SCTP. Such a socket is judged when it is
    /// made, before it has a destination.
    Raw,
}

impl OutboundProtocol {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Raw];

    /// Its name in a policy and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Raw => "raw",
        }
    }

    /// The protocol of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}

impl fmt::Display for OutboundProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some of the rules, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleSet(pub [u64; OUTBOUND_RULES / 64]);

impl RuleSet {
    /// Every rule that there can be.
    pub const ALL: Self = Self([u64::MAX; OUTBOUND_RULES / 64]);

    /// With one more. A rule beyond [`OUTBOUND_RULES`] is none.
    pub fn insert(&mut self, rule: usize) {
        if let Some(word) = self.0.get_mut(rule / 64) {
            *word |= 1 << (rule % 64);
        }
    }

    /// Whether a rule is among them.
    #[must_use]
    pub fn has(&self, rule: usize) -> bool {
        self.0.get(rule / 64).is_some_and(|word| word & (1 << (rule % 64)) != 0)
    }

    /// Those in either.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// Those in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// The first of them.
    #[must_use]
    pub fn first(&self) -> Option<usize> {
        (0..OUTBOUND_RULES).find(|rule| self.has(*rule))
    }
}

impl FromIterator<usize> for RuleSet {
    fn from_iter<I: IntoIterator<Item = usize>>(rules: I) -> Self {
        rules.into_iter().fold(Self::default(), |mut set, rule| {
            set.insert(rule);
            set
        })
    }
}

/// The rules as the kernel looks them up. A rule allows a connection when each of its conditions holds: every lookup gives the
/// rules whose condition holds, and what is in all of them allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboundTables {
    /// Rules for everyone below a unit of this name.
    pub units: Vec<(String, RuleSet)>,
    /// Rules that ask for no unit.
    pub any_unit: RuleSet,
    /// Rules for everyone in the container whose id begins with these twelve characters.
    pub containers: Vec<([u8; 12], RuleSet)>,
    /// Rules that ask for no container.
    pub any_container: RuleSet,
    /// Rules for a real user id, those that ask for no user included.
    pub users: Vec<(u32, RuleSet)>,
    /// Rules for users that are not listed.
    pub any_user: RuleSet,
    /// Rules for a port, those that ask for no port included.
    pub ports: Vec<((OutboundProtocol, u16), RuleSet)>,
    /// Rules for ports that are not listed, by protocol in the order of [`OutboundProtocol::ALL`].
    pub any_port: [RuleSet; 3],
    /// Rules for the longest of these prefixes that an address begins with; those for shorter ones are included. Addresses are
    /// IPv6, IPv4 as mapped, with the length of the prefix in bits.
    pub destinations: Vec<([u8; 16], u8, RuleSet)>,
    /// Rules for the longest of these that a name begins with, as [`reversed_name`] writes it; those for shorter ones are included.
    pub names: Vec<(Vec<u8>, RuleSet)>,
    /// Name servers, to which everyone may talk on port 53 and whose answers are believed.
    pub resolvers: Vec<IpAddr>,
    /// User ids of whose connections none is refused.
    pub spared: Vec<u32>,
}

/// What is done about a connection that no rule allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutboundMode {
    /// Nothing; it is not looked at.
    #[default]
    Off,
    /// It is told.
    Observe,
    /// It is refused, and told.
    Enforce,
}

/// Where which mode holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboundModes {
    /// Wherever none of the places is.
    pub everywhere: OutboundMode,
    /// In these cgroup v2 subtrees; of several the innermost decides.
    pub places: Vec<(String, OutboundMode)>,
}

impl OutboundModes {
    /// What holds in a cgroup v2 path: of the places around it the innermost decides, and of the same place the last.
    #[must_use]
    pub fn at(&self, cgroup: &str) -> OutboundMode {
        let around = |place: &str| {
            let place = place.trim_end_matches('/');
            cgroup.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut innermost: Option<&(String, OutboundMode)> = None;
        for place in self.places.iter().filter(|(place, _)| around(place)) {
            if innermost.is_none_or(|innermost| place.0.len() >= innermost.0.len()) {
                innermost = Some(place);
            }
        }
        innermost.map_or(self.everywhere, |(_, mode)| *mode)
    }

    /// Everywhere the lower of what both say.
    #[must_use]
    pub fn lower(&self, other: &Self) -> Self {
        let places = self.places.iter().chain(&other.places).map(|(place, _)| place);
        let lower = |place: &String| (place.clone(), self.at(place).min(other.at(place)));
        Self { everywhere: self.everywhere.min(other.everywhere), places: places.map(lower).collect() }
    }

    /// The highest that holds anywhere.
    #[must_use]
    pub fn highest(&self) -> OutboundMode {
        self.places.iter().map(|(_, mode)| *mode).fold(self.everywhere, OutboundMode::max)
    }
}

/// Connections to one destination that no rule allowed, counted together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundAttempt {
    /// Whether they were refused; else they were let go, because the policy only observes there.
    pub refused: bool,
    /// TCP, UDP, or a socket for neither.
    pub protocol: OutboundProtocol,
    /// Where to; unspecified for a socket that is neither TCP nor UDP.
    pub address: IpAddr,
    /// Port; zero for a socket that is neither TCP nor UDP.
    pub port: u16,
    /// Names that the host's name servers gave for the address, lower case; bounded.
    pub names: Vec<String>,
    /// The systemd unit that it came from; empty when it came from none.
    pub unit: String,
    /// The cgroup v2 path; empty where unknown.
    pub cgroup: String,
    /// Container id, shortened to twelve characters.
    pub container: Option<String>,
    /// Real user id.
    pub uid: u32,
    /// The short name of the process that tried last.
    pub comm: String,
    /// How often since it was last told.
    pub count: u64,
    /// Which line of the policy decides that it is not allowed, in words.
    pub why: String,
}

/// A name as it is looked up: as it stands in a DNS message (RFC 1035, 3.1), without the root, lower case, and from its last byte
/// to its first. A domain is a beginning of all names below it then, and never of another. `None` for what is no name.
#[must_use]
pub fn reversed_name(name: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(name.len() + 1);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        wire.push(length);
        wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    wire.reverse();
    (wire.len() <= 254).then_some(wire)
}

/// The name that [`reversed_name`] made this of; what is no text in it is replaced. Empty for what it cannot have made.
#[must_use]
pub fn name_of_reversed(reversed: &[u8]) -> String {
    let mut wire: Vec<u8> = reversed.to_vec();
    wire.reverse();
    let mut labels = Vec::new();
    let mut rest = wire.as_slice();
    while let Some((length, after)) = rest.split_first() {
        let Some((label, next)) = after.split_at_checked(usize::from(*length)) else { return String::new() };
        labels.push(String::from_utf8_lossy(label).into_owned());
        rest = next;
    }
    labels.join(".")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_domain_begins_all_names_below_it_and_no_other() {
        let domain = reversed_name("Debian.org.").unwrap();
        assert_eq!(domain, b"gro\x03naibed\x06");
        for below in ["deb.debian.org", "a.b.debian.org", "debian.org"] {
            assert!(reversed_name(below).unwrap().starts_with(&domain), "{below}");
        }
        for other in ["notdebian.org", "debian.org.example", "org", "xdebian.org"] {
            assert!(!reversed_name(other).unwrap().starts_with(&domain), "{other}");
        }
    }

    #[test]
    fn names_read_back_and_what_is_none_is_told() {
        for name in ["deb.debian.org", "x", "a-b.c_d.example"] {
            assert_eq!(name_of_reversed(&reversed_name(name).unwrap()), name);
        }
        for none in ["", ".", "a..b", &"a".repeat(64), &"a.".repeat(200)] {
            assert_eq!(reversed_name(none), None, "{none}");
        }
        assert_eq!(name_of_reversed(&[9, 9, 9]), "");
    }

    #[test]
    fn the_lower_of_two_holds_in_every_place_of_either() {
        use OutboundMode::{Enforce, Observe, Off};
        let modes = |everywhere, places: &[(&str, OutboundMode)]| OutboundModes {
            everywhere,
            places: places.iter().map(|(place, mode)| ((*place).to_owned(), *mode)).collect(),
        };
        let before = modes(Observe, &[("/system.slice", Enforce), ("/system.slice/db.service", Off)]);
        let wanted = modes(Enforce, &[("/system.slice/web.service", Observe)]);
        let lower = before.lower(&wanted);
        for (cgroup, mode) in [
            ("/user.slice", Observe),
            ("/system.slice", Enforce),
            ("/system.slice/web.service/worker", Observe),
            ("/system.slice/web.service-2", Enforce),
            ("/system.slice/db.service", Off),
        ] {
            assert_eq!(lower.at(cgroup), mode, "{cgroup}");
            assert_eq!(lower.at(cgroup), before.at(cgroup).min(wanted.at(cgroup)), "{cgroup}");
        }
        assert_eq!((before.highest(), modes(Off, &[]).highest()), (Enforce, Off));
        let root = modes(Observe, &[("/", Enforce), ("/a", Observe), ("/a", Enforce)]);
        assert_eq!((root.at("/b"), root.at("/a/c")), (Enforce, Enforce), "the root is around everything");
    }

    #[test]
    fn sets_hold_every_rule_and_none_beyond() {
        let set: RuleSet = [0, 63, 64, 511, 512].into_iter().collect();
        assert_eq!((0..600).filter(|rule| set.has(*rule)).collect::<Vec<_>>(), [0, 63, 64, 511]);
        assert_eq!(set.and(&[64, 1].into_iter().collect()).first(), Some(64));
        assert_eq!(RuleSet::default().first(), None);
        assert!(RuleSet::ALL.and(&set) == set && set.or(&RuleSet::ALL) == RuleSet::ALL);
    }
}
