//! Name servers that are asked in TLS or HTTPS and are none of the host's: what they answer gives no name to any rule, and what is
//! asked of them nobody sees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use davy_model::{
    Evidence, Finding, FindingId, FindingKind, FlowKey, OutboundTables, ProcessKey, Severity, Signal,
    Technique, Timestamp,
};
use davy_policy::{Outbound, OutboundTo};

use super::lookup::{Ask, allowing};

/// DNS over TLS (RFC 7858) and over QUIC (RFC 9250).
const PORT_DNS_TLS: u16 = 853;

/// DNS over HTTPS (RFC 8484).
const PORT_HTTPS: u16 = 443;

/// Application layer protocol: DNS.
const TECHNIQUE: &str = "T1071.004";

/// What a program asked is one finding, that grows, for so long, in seconds; what it asks later is another.
const OVER_SECS: f64 = 86_400.0;

/// A finding that grows is told anew no more often than this, in seconds.
const RENEW_SECS: f64 = 60.0;

/// The most findings that are told a minute; further ones wait for the next.
const MAX_A_MINUTE: u32 = 6;

/// The most programs of which something is remembered; beyond it the one that was silent longest is forgotten.
const MAX_PROGRAMS: usize = 256;

/// Name servers that one finding shows; further ones are counted.
const MAX_SERVERS: usize = 32;

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

/// Which program asked which of them: a finding for each program and day, told within a bound.
#[derive(Debug)]
pub struct EncryptedDns {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
    programs: BTreeMap<String, Program>,
    /// When the minute began in which so many were told.
    minute: Option<Timestamp>,
    told: u32,
}

/// What a program asked.
#[derive(Debug)]
struct Program {
    id: FindingId,
    first: Timestamp,
    last: Timestamp,
    /// When it was last told, and whether something came since.
    told: Option<Timestamp>,
    news: bool,
    process: Option<ProcessKey>,
    /// The names and addresses that it asked.
    servers: BTreeSet<String>,
    /// Each with its first connection.
    evidence: Vec<Evidence>,
    /// Connections to name servers beyond the bound.
    more: u64,
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
        Self { names, addresses, programs: BTreeMap::new(), minute: None, told: 0 }
    }

    /// Whether a connection may be one to a name server; cheap, and asked of every one.
    #[must_use]
    pub fn suspects(&self, to: SocketAddr, name: Option<&str>) -> bool {
        self.reason(to, name).is_some()
    }

    /// Takes in a connection. Nothing is told of the host's own name servers, nor of one that is `allowed`, which is asked about those that
    /// are new alone; `id` gives a number for a finding that has none.
    pub fn see(
        &mut self,
        began: &Began<'_>,
        resolvers: &[IpAddr],
        allowed: impl FnOnce() -> bool,
        id: impl FnOnce() -> FindingId,
    ) {
        let address = began.to.ip().to_canonical();
        let Some(how) = self.reason(began.to, began.name) else { return };
        if address.is_loopback() || resolvers.contains(&address) {
            return;
        }
        let over = |program: &Program| began.time.secs_since(program.first) >= OVER_SECS;
        if self.programs.get(began.program).is_some_and(over) {
            self.programs.remove(began.program);
        }
        // A name has many addresses, and is often known a moment after the address.
        let keys: Vec<String> =
            began.name.into_iter().map(str::to_owned).chain([address.to_string()]).collect();
        if let Some(program) = self.programs.get_mut(began.program) {
            program.last = program.last.max(began.time);
            if keys.iter().any(|key| program.servers.contains(key)) {
                if program.servers.len() < 2 * MAX_SERVERS {
                    program.servers.extend(keys);
                }
                return;
            }
            if program.evidence.len() >= MAX_SERVERS {
                program.more = program.more.saturating_add(1);
                return;
            }
        }
        if allowed() {
            return;
        }
        if !self.programs.contains_key(began.program) && self.programs.len() >= MAX_PROGRAMS {
            let silent = self.programs.iter().min_by_key(|(_, program)| program.last);
            let silent = silent.map(|(path, _)| path.clone());
            silent.map(|path| self.programs.remove(&path));
        }
        let program = self.programs.entry(began.program.to_owned()).or_insert_with(|| Program {
            id: id(),
            first: began.time,
            last: began.time,
            told: None,
            news: true,
            process: began.process,
            servers: BTreeSet::new(),
            evidence: Vec::new(),
            more: 0,
        });
        program.news = true;
        program.process = began.process.or(program.process);
        program.servers.extend(keys);
        program.evidence.push(evidence(began, how));
    }

    /// The findings that are new or have grown, and may be told now: those that were not told yet before others.
    pub fn due(&mut self, now: Timestamp) -> Vec<Finding> {
        if self.minute.is_none_or(|minute| now.secs_since(minute).abs() >= 60.0) {
            (self.minute, self.told) = (Some(now), 0);
        }
        let due = |program: &Program| {
            program.news && program.told.is_none_or(|told| now.secs_since(told).abs() >= RENEW_SECS)
        };
        let mut waiting: Vec<&mut Program> =
            self.programs.values_mut().filter(|program| due(program)).collect();
        waiting.sort_by_key(|program| (program.told, program.first));
        let left = MAX_A_MINUTE.saturating_sub(self.told);
        let findings: Vec<Finding> = waiting
            .into_iter()
            .take(left as usize)
            .map(|program| {
                (program.told, program.news) = (Some(now), false);
                program.finding(now)
            })
            .collect();
        self.told += u32::try_from(findings.len()).unwrap_or(left);
        findings
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

/// Whether an entry allows it that speaks of the name server, or of the port that is for them alone. One that lets everybody out says
/// nothing of either.
#[must_use]
pub fn expressly_allowed(policy: &Outbound, tables: &OutboundTables, ask: &Ask<'_>) -> bool {
    let rules = allowing(tables, ask);
    let everywhere =
        |to: &OutboundTo| matches!(to, OutboundTo::Any | OutboundTo::Inside | OutboundTo::Outside);
    policy.allow.iter().enumerate().any(|(number, allow)| {
        let of_port = ask.port == PORT_DNS_TLS && !allow.ports.is_empty();
        rules.has(number) && (of_port || !allow.to.iter().any(everywhere))
    })
}

impl Program {
    fn finding(&self, now: Timestamp) -> Finding {
        let others = self.evidence.len().saturating_sub(1);
        let others = match (others, self.more) {
            (0, 0) => String::new(),
            (1, 0) => ", and one other".to_owned(),
            (others, 0) => format!(", and {others} others"),
            (others, more) => format!(", and {others} others, and {more} times still others"),
        };
        let text = self.evidence.first().map_or("", |first| first.text.as_str());
        Finding {
            id: self.id,
            kind: FindingKind::Outbound,
            first: self.first,
            time: now,
            severity: Severity::Low,
            confidence: 0.9,
            subject: self.process,
            processes: self.process.into_iter().collect(),
            summary: format!("{text}{others}"),
            evidence: self.evidence.clone(),
            techniques: vec![Technique::new(TECHNIQUE)],
        }
    }
}

fn evidence(began: &Began<'_>, how: &str) -> Evidence {
    let whom = began.name.map_or_else(|| began.to.to_string(), |name| format!("{name} ({})", began.to));
    Evidence {
        time: began.time,
        signal: Signal::Outbound,
        weight: 0.0,
        text: format!("\"{}\" asks a name server that is none of this host's, {whom}: {how}", began.comm),
        numbers: BTreeMap::new(),
        process: began.process,
        flow: Some(began.flow),
        technique: Some(Technique::new(TECHNIQUE)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::outbound::{Host, compile};

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

    fn see(dns: &mut EncryptedDns, began: &Began<'_>, number: u64) {
        dns.see(began, &["192.0.2.53".parse().unwrap()], || false, || FindingId(number));
    }

    fn told(dns: &mut EncryptedDns, began: &Began<'_>) -> Option<String> {
        see(dns, began, 1);
        dns.due(began.time).pop().map(|finding| finding.summary)
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
    fn a_program_is_one_finding_a_day_that_grows() {
        let mut dns = EncryptedDns::default();
        let first = began("203.0.113.9:853", None);
        assert!(told(&mut dns, &first).is_some() && told(&mut dns, &first).is_none());
        see(&mut dns, &began("8.8.8.8:443", None), 2);
        for to in ["8.8.8.8:443", "8.8.4.4:443", "203.0.113.77:443"] {
            // Known by its address, then by its name.
            see(&mut dns, &began(to, Some("dns.google")), 2);
        }
        assert!(dns.due(NOW.plus_secs(59.0)).is_empty(), "not yet");
        let grown = dns.due(NOW.plus_secs(60.0)).pop().unwrap();
        assert_eq!((grown.id, grown.first, grown.evidence.len()), (FindingId(1), NOW, 2));
        assert!(grown.summary.ends_with(", and one other"), "{}", grown.summary);
        assert!(dns.due(NOW.plus_secs(120.0)).is_empty());
        let tomorrow = Began { time: NOW.plus_secs(86_400.0), ..first };
        see(&mut dns, &tomorrow, 3);
        assert_eq!(dns.due(tomorrow.time).pop().unwrap().id, FindingId(3), "another day");
        let other = Began { program: "/tmp/x", ..tomorrow };
        see(&mut dns, &other, 4);
        assert_eq!(dns.due(tomorrow.time).pop().unwrap().id, FindingId(4), "another program");
    }

    #[test]
    fn what_an_entry_allows_is_not_told() {
        let mut dns = EncryptedDns::default();
        dns.see(&began("203.0.113.9:853", None), &[], || true, || FindingId(1));
        assert!(dns.due(NOW).is_empty());
        assert!(told(&mut dns, &began("203.0.113.10:853", None)).is_some());
    }

    #[test]
    fn an_entry_for_everything_says_nothing_of_name_servers() {
        let allowed = |entry: &str, port: u16| {
            let text =
                format!("[outbound]\nmode = \"observe\"\n[[outbound.allow]]\nreason = \"r\"\n{entry}\n");
            let policy = davy_policy::Policy::parse("p.toml", &text).unwrap();
            let host = Host { user: &|_| None, resolvers: &[] };
            let ask = Ask {
                units: vec!["system.slice", "x.service"],
                container: None,
                uid: Some(33),
                protocol: davy_model::OutboundProtocol::Tcp,
                port,
                to: "203.0.113.9".parse().unwrap(),
                name: Some("dns.example.org"),
            };
            expressly_allowed(&policy.outbound, &compile(&policy, &host, NOW).tables, &ask)
        };
        for wide in ["to = [\"any\"]", "to = [\"outside\"]\nports = 443", "to = [\"192.0.2.0/24\"]"] {
            assert!(!allowed(wide, 443), "{wide}");
        }
        assert!(
            !allowed("to = [\"any\"]", 853)
                && !allowed("to = [\"203.0.113.9\"]\nservice = \"y.service\"", 853)
        );
        for meant in ["to = [\"203.0.113.0/24\"]", "to = [\"dns.example.org\"]\nservice = \"x.service\""] {
            assert!(allowed(meant, 853) && allowed(meant, 443), "{meant}");
        }
        assert!(allowed("to = [\"outside\"]\nports = 853", 853));
    }

    #[test]
    fn who_asks_thousands_of_them_fills_nothing() {
        let mut dns = EncryptedDns::default();
        let mut findings = 0;
        for number in 0..3000u32 {
            let to = SocketAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + number).into(), 853);
            let began = Began { to, ..began("203.0.113.9:853", None) };
            see(&mut dns, &began, 1);
            findings += dns.due(NOW.plus_secs(f64::from(number) / 10.0)).len();
        }
        assert!(findings <= 6, "{findings} in five minutes");
        let kept = &dns.programs["/usr/bin/curl"];
        assert_eq!((kept.evidence.len(), kept.more), (MAX_SERVERS, 3000 - MAX_SERVERS as u64));
        assert!(kept.servers.len() <= 2 * MAX_SERVERS);
        // And who does it under thousands of names.
        findings = 0;
        for number in 0..3000u64 {
            let program = format!("/tmp/{number}");
            let time = NOW.plus_secs(1000.0 + number as f64 / 50.0);
            let began = Began { time, program: &program, ..began("203.0.113.9:853", None) };
            see(&mut dns, &began, number);
            findings += dns.due(time).len();
        }
        assert_eq!(findings, MAX_A_MINUTE as usize);
        assert_eq!(dns.programs.len(), MAX_PROGRAMS);
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
