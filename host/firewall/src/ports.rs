//! The table that says who may reach which port.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use davy_model::{AddressRange, Door, PortRange, Transport};

use crate::nft::{
    Attributes, Batch, Element, Interval, Key, Rule, SetKind, Socket, Verdict, message, octets,
};
use crate::nft::{rule_counters, set_elements};
use crate::{Error, PORTS_TABLE};

/// The most that is remembered of who was refused, for each family of addresses, and for how long. Of more at once the further
/// ones are refused and not remembered.
const MAX_REFUSED: u32 = 2048;
const REMEMBERED: Duration = Duration::from_secs(600);

/// After connections are tracked (-200), and before addresses are translated (-100): a port is judged as the outside sees it, and
/// one that is translated to a container as any other.
const PRIORITY: i32 = -150;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Sets by name.
const ARMED: &str = "armed";
const ADMINISTRATORS: [&str; 2] = ["administrators4", "administrators6"];
const REFUSED: [&str; 2] = ["refused4", "refused6"];
const DOORS: [(Transport, u8, &str); 2] =
    [(Transport::Tcp, TCP, "doors_tcp"), (Transport::Udp, UDP, "doors_udp")];

/// Chains by name.
const ENTRY: &str = "arrives";
const JUDGE: &str = "judge";

/// Who was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Refused {
    /// Over which protocol.
    pub transport: Transport,
    /// The port of this host.
    pub port: u16,
    /// Who wanted to reach it. Over UDP, and of a first packet alone, a sender can write any address.
    pub from: IpAddr,
}

/// How the table stands in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether its rules are all there.
    pub whole: bool,
    /// Whether it closes anything now.
    pub armed: bool,
    /// Packets that it refused since it was put there.
    pub refused: u64,
}

/// The table, spoken to by netlink.
#[derive(Debug)]
pub struct Ports {
    socket: Socket,
}

impl Ports {
    /// Speaks to the kernel about the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel has no packet filter.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open()? })
    }

    /// Closes every TCP and UDP port of this host but these doors, in one transaction that replaces what was there before.
    ///
    /// Always let in are what comes over loopback, connections that there are already, answers and errors that belong to one,
    /// everything from the administrators' addresses, answers of DHCP, and all that is neither TCP nor UDP. It closes nothing
    /// any more once `lease` is over, unless [`Ports::renew`] comes before; without a lease it holds until it is removed.
    ///
    /// # Errors
    /// When the kernel refuses any part; nothing has changed then. When doors for one protocol overlap, or the ranges of one
    /// door do.
    pub fn close_all_but(
        &self,
        doors: &[Door],
        administrators: &[IpAddr],
        lease: Option<Duration>,
    ) -> Result<(), Error> {
        check(doors)?;
        let mut batch = Batch::of(PORTS_TABLE);
        batch.drop_table().table();
        batch.set(ARMED, SetKind::of(Key::Protocol).timed());
        for (name, key) in ADMINISTRATORS.iter().zip([Key::V4, Key::V6]) {
            batch.set(name, SetKind::of(key));
        }
        for (name, key) in REFUSED.iter().zip([Key::ProtocolPortV4, Key::ProtocolPortV6]) {
            batch.set(name, SetKind::of(key).filled_by_packets(MAX_REFUSED, REMEMBERED));
        }
        for (.., name) in DOORS {
            batch.set(name, SetKind::of(Key::Port).of_intervals().to_verdicts());
        }
        let chains = sources(&mut batch, doors);
        for (transport, _, name) in DOORS {
            let open: Vec<Interval> = doors
                .iter()
                .filter(|door| door.transport == transport)
                .map(|door| {
                    let key = |port: u16| port.to_be_bytes().to_vec();
                    let verdict = match &door.from {
                        None => Verdict::Accept,
                        Some(ranges) => Verdict::Jump(chains.get(ranges).cloned().unwrap_or_default()),
                    };
                    Interval::new(key(door.ports.first()), key(door.ports.last())).to(verdict)
                })
                .collect();
            batch.add_intervals(name, &open);
        }
        batch.chain(JUDGE);
        for rule in judge() {
            batch.rule(JUDGE, rule);
        }
        batch.entry(ENTRY, PRIORITY);
        for rule in entry() {
            batch.rule(ENTRY, rule);
        }
        fill_administrators(&mut batch, administrators);
        batch.add(ARMED, &armed(lease));
        self.socket.commit(batch)
    }

    /// Has the table hold for another while; without a lease until it is removed.
    ///
    /// # Errors
    /// When the table is not there, or the kernel refuses.
    pub fn renew(&self, lease: Option<Duration>) -> Result<(), Error> {
        let mut batch = Batch::of(PORTS_TABLE);
        batch.empty(ARMED).add(ARMED, &armed(lease));
        self.socket.commit(batch)
    }

    /// Lets in everything from these addresses, and no more from those of before.
    ///
    /// # Errors
    /// As [`Ports::renew`].
    pub fn spare(&self, administrators: &[IpAddr]) -> Result<(), Error> {
        let mut batch = Batch::of(PORTS_TABLE);
        for set in ADMINISTRATORS {
            batch.empty(set);
        }
        fill_administrators(&mut batch, administrators);
        self.socket.commit(batch)
    }

    /// Opens everything: takes the table away, and says whether it was there. Where it is not, nothing is changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> Result<bool, Error> {
        if !self.socket.has(PORTS_TABLE)? {
            return Ok(false);
        }
        let mut batch = Batch::of(PORTS_TABLE);
        batch.drop_table();
        self.socket.commit(batch).map(|()| true)
    }

    /// A number that changes whenever anybody changes rules in this network namespace; cheap to ask for.
    ///
    /// # Errors
    /// When the kernel has no nftables, or does not answer.
    pub fn generation(&self) -> Result<u32, Error> {
        self.socket.generation()
    }

    /// How the table stands.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn standing(&self) -> Result<Standing, Error> {
        let (mut rules, mut refused) = (0, 0);
        let all = |a: &mut Attributes| {
            a.text(1, PORTS_TABLE);
        };
        for rule in self.socket.dump(message::GET_RULE, all)? {
            let of = crate::nft::find(&rule, 2).unwrap_or_default();
            if of == b"judge\0" || of == b"arrives\0" {
                rules += 1;
            }
            refused += rule_counters(&rule);
        }
        let whole = rules == judge().len() + entry().len();
        let armed = whole && !self.listed(ARMED)?.is_empty();
        Ok(Standing { whole, armed, refused })
    }

    /// Who was refused within the last ten minutes, each once.
    ///
    /// # Errors
    /// When the table is not there.
    pub fn refused(&self) -> Result<Vec<Refused>, Error> {
        let mut all = Vec::new();
        for set in REFUSED {
            all.extend(self.listed(set)?.into_iter().filter_map(|key| told(&key)));
        }
        Ok(all)
    }

    fn listed(&self, set: &str) -> Result<Vec<Vec<u8>>, Error> {
        let of = |a: &mut Attributes| {
            a.text(1, PORTS_TABLE).text(2, set);
        };
        let found = self.socket.dump(message::GET_ELEMENTS, of)?;
        Ok(found.iter().flat_map(|found| set_elements(found)).map(|element| element.key).collect())
    }
}

/// What looks at all that arrives.
fn entry() -> Vec<Rule> {
    vec![
        Rule::new("iiftype loopback accept").if_loopback().then(&Verdict::Accept),
        Rule::new("meta l4proto @armed fib daddr type != unicast jump judge")
            .if_protocol_in(ARMED)
            .if_for_this_host()
            .then(&Verdict::Jump(JUDGE.to_owned())),
    ]
}

/// What decides about TCP and UDP for this host.
fn judge() -> Vec<Rule> {
    let accept = &Verdict::Accept;
    let mut rules = vec![
        // A connection that was there before it was tracked looks new to connection tracking, and must not end for that.
        Rule::new("tcp flags & (syn|rst|ack) != syn accept").if_not_tcp_beginning().then(accept),
        Rule::new("ct state established,related accept").if_known_connection().then(accept),
        Rule::new("udp dport 68 accept").if_port(UDP, 68).then(accept),
        Rule::new("ip6 saddr fe80::/10 udp dport 546 accept").if_from_link().if_port(UDP, 546).then(accept),
    ];
    for (v4, set) in [(true, ADMINISTRATORS[0]), (false, ADMINISTRATORS[1])] {
        rules.push(Rule::new("ip saddr @administrators accept").if_from(v4, set).then(accept));
    }
    for (_, protocol, map) in DOORS {
        rules.push(Rule::new("th dport vmap @doors").by_port(protocol, map));
    }
    for (v4, set) in [(true, REFUSED[0]), (false, REFUSED[1])] {
        // A full set ends the rule that adds to it, so that refusing is a rule of its own.
        rules.push(Rule::new("add @refused { l4proto . dport . saddr }").note(v4, set));
    }
    rules.push(Rule::new("counter drop").count().then(&Verdict::Drop));
    rules
}

/// A chain and its sets for each list of addresses that some door is open for; gives the chains by what they let in.
fn sources<'d>(batch: &mut Batch, doors: &'d [Door]) -> BTreeMap<&'d Vec<AddressRange>, String> {
    let mut chains = BTreeMap::new();
    for ranges in doors.iter().filter_map(|door| door.from.as_ref()) {
        let number = chains.len();
        if chains.contains_key(ranges) {
            continue;
        }
        let chain = format!("door{number}");
        batch.chain(&chain);
        for (v4, key) in [(true, Key::V4), (false, Key::V6)] {
            let own: Vec<Interval> = ranges
                .iter()
                .filter(|range| range.first.is_ipv4() == v4)
                .map(|range| Interval::new(octets(range.first), octets(range.last)))
                .collect();
            if !own.is_empty() {
                let set = format!("from{number}_{}", if v4 { 4 } else { 6 });
                batch.set(&set, SetKind::of(key).of_intervals()).add_intervals(&set, &own);
                batch.rule(
                    &chain,
                    Rule::new("ip saddr @from accept").if_from(v4, &set).then(&Verdict::Accept),
                );
            }
        }
        chains.insert(ranges, chain);
    }
    chains
}

fn armed(lease: Option<Duration>) -> Vec<Element> {
    [TCP, UDP].map(|protocol| Element::new(vec![protocol]).for_a_time(lease)).to_vec()
}

fn fill_administrators(batch: &mut Batch, addresses: &[IpAddr]) {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    for (v4, set) in [(true, ADMINISTRATORS[0]), (false, ADMINISTRATORS[1])] {
        let own = addresses.iter().filter(|address| address.is_ipv4() == v4);
        let elements: Vec<Element> = own.map(|address| Element::address(*address)).collect();
        batch.add(set, &elements);
    }
}

/// Overlaps would be refused by the kernel, in words that lead nowhere.
fn check(doors: &[Door]) -> Result<(), Error> {
    for (transport, ..) in DOORS {
        let mut ports: Vec<PortRange> =
            doors.iter().filter(|door| door.transport == transport).map(|door| door.ports).collect();
        ports.sort_unstable();
        if let Some(pair) = ports.windows(2).find(|pair| pair[0].last() >= pair[1].first()) {
            return Err(Error::Invalid(format!("the doors {} and {} overlap", pair[0], pair[1])));
        }
    }
    for ranges in doors.iter().filter_map(|door| door.from.as_ref()) {
        let mut sorted = ranges.clone();
        sorted.sort_unstable();
        let odd =
            |range: &&AddressRange| range.first > range.last || range.first.is_ipv4() != range.last.is_ipv4();
        if let Some(range) = sorted.iter().find(odd) {
            return Err(Error::Invalid(format!(
                "{} to {} is no range of addresses",
                range.first, range.last
            )));
        }
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].last >= pair[1].first) {
            return Err(Error::Invalid(format!(
                "the addresses up to {} and from {} overlap",
                pair[0].last, pair[1].first
            )));
        }
    }
    Ok(())
}

fn told(key: &[u8]) -> Option<Refused> {
    let transport = match key.first()? {
        6 => Transport::Tcp,
        17 => Transport::Udp,
        _ => return None,
    };
    let port = u16::from_be_bytes([*key.get(4)?, *key.get(5)?]);
    let address = key.get(8..)?;
    let from = match address.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)),
        _ => return None,
    };
    Some(Refused { transport, port, from })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn door(ports: &str, from: &[(&str, &str)]) -> Door {
        let range = |(first, last): &(&str, &str)| AddressRange {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
        };
        Door {
            transport: Transport::Tcp,
            ports: ports.parse().unwrap(),
            from: Some(from.iter().map(range).collect()),
        }
    }

    #[test]
    fn what_overlaps_is_refused_in_words() {
        let one = [("10.0.0.0", "10.0.0.9")];
        assert!(check(&[door("80", &one), door("81", &one)]).is_ok());
        let said = |doors: &[Door]| check(doors).unwrap_err().to_string();
        assert!(said(&[door("80-90", &one), door("85", &one)]).contains("80-90 and 85 overlap"));
        assert!(
            said(&[door("80", &[("10.0.0.0", "10.0.0.9"), ("10.0.0.9", "10.0.0.10")])]).contains("overlap")
        );
        assert!(said(&[door("80", &[("10.0.0.9", "10.0.0.0")])]).contains("no range"));
        assert!(said(&[door("80", &[("10.0.0.9", "::1")])]).contains("no range"));
    }

    #[test]
    fn who_was_refused_is_read_from_the_key() {
        let refused = told(&[6, 0, 0, 0, 0, 22, 0, 0, 198, 51, 100, 7]).unwrap();
        assert_eq!((refused.port, refused.from), (22, "198.51.100.7".parse().unwrap()));
        assert_eq!(told(&[17]), None);
        assert_eq!(told(&[1, 0, 0, 0, 0, 22, 0, 0, 198, 51, 100, 7]), None);
    }
}
