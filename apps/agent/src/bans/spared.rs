//! Who is never banned: whoever does not get through any more then would be this host itself, or its administrator.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use davy_model::Prefix;

/// Networks that are nobody's on the other side.
const NOBODYS: [(&str, &str); 7] = [
    ("127.0.0.0/8", "loopback"),
    ("::1", "loopback"),
    ("0.0.0.0/8", "the sender of whoever has no address yet"),
    ("::", "the sender of whoever has no address yet"),
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
    ("255.255.255.255", "broadcast"),
];

/// Says why nobody in this network is to be banned, if so.
pub(super) fn why(who: Prefix) -> Option<String> {
    let mut own: Vec<(IpAddr, &str)> = Vec::new();
    let mut add = |addresses: Vec<IpAddr>, is: &'static str| {
        own.extend(addresses.into_iter().map(|address| (address.to_canonical(), is)));
    };
    add(davy_respond::administrators(), "where an administrator is logged in from now");
    add(davy_proc::addresses(), "this host's own");
    add(gateways(), "the gateway, by which this host reaches others");
    add(crate::outbound::resolvers(), "a name server that this host asks");
    among(who, &own)
}

fn among(who: Prefix, own: &[(IpAddr, &str)]) -> Option<String> {
    let overlaps = |other: &Prefix| who.contains(other.address()) || other.contains(who.address());
    let nobodys = NOBODYS.iter().find(|(network, _)| network.parse().is_ok_and(|n: Prefix| overlaps(&n)));
    if let Some((network, is)) = nobodys {
        return Some(format!("{network} is {is}"));
    }
    own.iter().find(|(address, _)| who.contains(*address)).map(|(address, is)| format!("{address} is {is}"))
}

/// The routers by which this host reaches what is in no network of its own (proc_net(5)).
fn gateways() -> Vec<IpAddr> {
    let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let mut all: Vec<IpAddr> = routers4(&read("route")).map(IpAddr::V4).collect();
    all.extend(routers6(&read("ipv6_route")).map(IpAddr::V6));
    all.sort_unstable();
    all.dedup();
    all
}

fn routers4(table: &str) -> impl Iterator<Item = Ipv4Addr> {
    let router = |line: &str| {
        let bits = u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok()?;
        // As it lies in memory, which is in the network's order.
        Some(Ipv4Addr::from(bits.to_ne_bytes()))
    };
    table.lines().skip(1).filter_map(router).filter(|address| !address.is_unspecified())
}

fn routers6(table: &str) -> impl Iterator<Item = Ipv6Addr> {
    let router = |line: &str| {
        let digits = line.split_whitespace().nth(4)?;
        Some(Ipv6Addr::from_bits(u128::from_str_radix(digits, 16).ok()?))
    };
    table.lines().filter_map(router).filter(|address| !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn whoever_is_spared_is_named_and_so_is_why() {
        let own = [("203.0.113.9".parse().unwrap(), "where an administrator is logged in from now")];
        let among = |who: &str| among(who.parse().unwrap(), &own);
        for fine in ["203.0.113.8", "203.0.113.0/29", "2001:db8::/32", "10.0.0.0/8", "128.0.0.0/2"] {
            assert_eq!(among(fine), None, "{fine}");
        }
        for (who, part) in [
            ("203.0.113.9", "203.0.113.9 is where an administrator"),
            ("203.0.113.0/24", "203.0.113.9 is where an administrator"),
            ("127.0.0.1", "127.0.0.0/8 is loopback"),
            ("::1", "::1 is loopback"),
            ("0.0.0.0/0", "loopback"),
            ("::/0", "loopback"),
            ("224.0.0.251", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "255.255.255.255 is broadcast"),
        ] {
            assert!(among(who).is_some_and(|why| why.contains(part)), "{who}: {:?}", among(who));
        }
    }

    #[test]
    fn routers_are_read_and_nothing_makes_it_panic() {
        let bits = u32::from_ne_bytes([192, 0, 2, 1]);
        let table = format!(
            "Iface\tDestination\tGateway \tFlags\neth0\t00000000\t{bits:08X}\t0003\t0\neth0\t000200C0\t00000000\t0001\t0\nodd\n"
        );
        assert_eq!(routers4(&table).collect::<Vec<_>>(), ["192.0.2.1".parse::<Ipv4Addr>().unwrap()]);
        let table = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003 eth0\n\
                     fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0\nodd\n";
        assert_eq!(routers6(table).collect::<Vec<_>>(), ["fe80::1".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(routers4("").count() + routers6("a b c d zz").count(), 0);
    }
}
