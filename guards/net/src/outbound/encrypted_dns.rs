//! Name servers that are asked in TLS or HTTPS and are none of the host's: what they answer gives no name to any rule, and what is
//! asked of them nobody sees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use davy_model::{
    Evidence, Finding, FindingId, FindingKind, FlowKey, ProcessKey, Severity, Signal, Technique, Timestamp,
};

/// DNS over TLS (RFC 7858) and over QUIC (RFC 9250).
const PORT_DNS_TLS: u16 = 853;

/// DNS over HTTPS (RFC 8484).
const PORT_HTTPS: u16 = 443;

/// The same program and destination are told no more often than this, in seconds.
const AGAIN_SECS: f64 = 86_400.0;

/// Programs and destinations of which it is remembered when they were told. When full, what was told first may be told again.
const MAX_TOLD: usize = 1024;

/// A connection that this host began.
#[derive(Clone, Copy, Debug)]
pub struct Began<'a> {
    /// When.
    pub time: Timestamp,
    /// Which flow.
    pub flow: FlowKey,
    /// Who.
    pub process: Option<ProcessKey>,
    /// Its program's path, for people.
    pub program: &'a str,
    /// Its short name.
    pub comm: &'a str,
    /// Where to.
    pub to: SocketAddr,
    /// What the other end is called, as far as is known.
    pub name: Option<&'a str>,
}

/// Who asked which of them, told once a day.
#[derive(Debug)]
pub struct EncryptedDns {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
    told: BTreeMap<(String, String), Timestamp>,
}

impl Default for EncryptedDns {
    fn default() -> Self {
        Self::of(include_str!("../../../../content/resolvers.txt"))
    }
}

impl EncryptedDns {
    /// With the public name servers of a list: a name or an address a line.
    fn of(list: &str) -> Self {
        let lines = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for line in lines {
            match line.parse() {
                Ok(address) => drop(addresses.insert(address)),
                Err(_) => drop(names.insert(line.to_ascii_lowercase())),
            }
        }
        Self { names, addresses, told: BTreeMap::new() }
    }

    /// Whether a connection may be one to a name server; cheap, and asked of every one.
    #[must_use]
    pub fn suspects(&self, to: SocketAddr, name: Option<&str>) -> bool {
        self.reason(to, name).is_some()
    }

    /// The finding about a connection to a name server that is none of these; `None` for others, and for what was told today.
    pub fn see(
        &mut self,
        began: &Began<'_>,
        resolvers: &[IpAddr],
        id: impl FnOnce() -> FindingId,
    ) -> Option<Finding> {
        let address = began.to.ip().to_canonical();
        let how = self.reason(began.to, began.name)?;
        if address.is_loopback() || resolvers.contains(&address) {
            return None;
        }
        let whom = began.name.map_or_else(|| began.to.to_string(), |name| format!("{name} ({})", began.to));
        // A name has many addresses, and is often known a moment after the address.
        let about = began.name.into_iter().map(str::to_owned).chain([address.to_string()]);
        let keys: Vec<_> = about.map(|about| (began.program.to_owned(), about)).collect();
        let today = |told: &Timestamp| began.time.secs_since(*told) < AGAIN_SECS;
        let told = keys.iter().filter_map(|key| self.told.get(key).copied()).find(today);
        self.told.extend(keys.into_iter().map(|key| (key, told.unwrap_or(began.time))));
        while self.told.len() > MAX_TOLD
            && let Some(first) = self.told.iter().min_by_key(|(_, told)| **told).map(|(key, _)| key.clone())
        {
            self.told.remove(&first);
        }
        if told.is_some() {
            return None;
        }
        let technique = Technique::new("T1071.004");
        let text =
            format!("\"{}\" asks a name server that is none of this host's, {whom}: {how}", began.comm);
        Some(Finding {
            id: id(),
            kind: FindingKind::Outbound,
            first: began.time,
            time: began.time,
            severity: Severity::Low,
            confidence: 0.9,
            subject: began.process,
            processes: began.process.into_iter().collect(),
            summary: text.clone(),
            evidence: vec![Evidence {
                time: began.time,
                signal: Signal::Outbound,
                weight: 0.0,
                text,
                numbers: BTreeMap::new(),
                process: began.process,
                flow: Some(began.flow),
                technique: Some(technique.clone()),
            }],
            techniques: vec![technique],
        })
    }

    fn reason(&self, to: SocketAddr, name: Option<&str>) -> Option<&'static str> {
        match to.port() {
            PORT_DNS_TLS => Some("port 853 is for DNS in TLS and QUIC"),
            PORT_HTTPS if name.is_some_and(|name| self.is_named(name)) => {
                Some("a public name server answers in HTTPS under this name")
            }
            PORT_HTTPS if self.addresses.contains(&to.ip().to_canonical()) => {
                Some("a public name server answers in HTTPS at this address")
            }
            _ => None,
        }
    }

    /// Whether a name, or a domain that it is below, is listed.
    fn is_named(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let mut rest = name.as_str();
        loop {
            if self.names.contains(rest) {
                return true;
            }
            match rest.split_once('.') {
                Some((_, above)) => rest = above,
                None => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn began<'a>(to: &str, name: Option<&'a str>) -> Began<'a> {
        Began {
            time: NOW,
            flow: FlowKey(1),
            process: None,
            program: "/usr/bin/curl",
            comm: "curl",
            to: to.parse().unwrap(),
            name,
        }
    }

    fn told(dns: &mut EncryptedDns, began: &Began<'_>) -> Option<String> {
        dns.see(began, &["192.0.2.53".parse().unwrap()], || FindingId(1)).map(|finding| finding.summary)
    }

    #[test]
    fn name_servers_of_nobodys_configuration_are_told_and_others_are_not() {
        for (to, name, expected) in [
            ("203.0.113.9:853", None, Some("203.0.113.9:853: port 853")),
            ("[2001:db8::1]:853", Some("dns.example"), Some("dns.example ([2001:db8::1]:853)")),
            ("8.8.8.8:443", None, Some("at this address")),
            ("[::ffff:8.8.8.8]:443", None, Some("at this address")),
            ("104.16.248.249:443", Some("Mozilla.cloudflare-dns.com"), Some("under this name")),
            // The host's own, on loopback, at another port, or something else.
            ("192.0.2.53:853", None, None),
            ("127.0.0.53:853", None, None),
            ("192.0.2.53:443", Some("dns.google"), None),
            ("8.8.8.8:53", None, None),
            ("203.0.113.9:443", Some("notdns.google"), None),
            ("203.0.113.9:443", Some("google"), None),
            ("203.0.113.9:443", None, None),
        ] {
            let found = told(&mut EncryptedDns::default(), &began(to, name));
            match expected {
                Some(expected) => {
                    assert!(found.as_ref().is_some_and(|f| f.contains(expected)), "{to}: {found:?}")
                }
                None => assert_eq!(found, None, "{to}"),
            }
        }
    }

    #[test]
    fn a_program_and_a_destination_are_told_once_a_day() {
        let mut dns = EncryptedDns::default();
        let first = began("203.0.113.9:853", None);
        assert!(told(&mut dns, &first).is_some() && told(&mut dns, &first).is_none());
        assert!(told(&mut dns, &Began { program: "/tmp/x", ..first }).is_some(), "another program");
        assert!(told(&mut dns, &began("203.0.113.10:853", None)).is_some(), "another destination");
        assert!(told(&mut dns, &Began { time: NOW.plus_secs(86_400.0), ..first }).is_some(), "another day");
        assert!(told(&mut dns, &began("8.8.8.8:443", None)).is_some());
        for to in ["8.8.8.8:443", "8.8.4.4:443", "203.0.113.77:443"] {
            assert_eq!(
                told(&mut dns, &began(to, Some("dns.google"))),
                None,
                "{to}: known by its address, then by its name"
            );
        }
        for number in 0..3000u32 {
            let to = SocketAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + number).into(), 853);
            told(&mut dns, &Began { to, ..first });
        }
        assert_eq!(dns.told.len(), MAX_TOLD);
    }

    #[test]
    fn the_list_holds_names_and_addresses_alone() {
        let dns = EncryptedDns::default();
        assert!(dns.names.len() > 15 && dns.addresses.len() > 20);
        for name in &dns.names {
            assert!(
                davy_model::reversed_name(name).is_some() && name.contains('.') && !name.contains(' '),
                "{name}"
            );
            assert!(name.bytes().any(|b| b.is_ascii_alphabetic()), "{name} is neither");
        }
    }
}
