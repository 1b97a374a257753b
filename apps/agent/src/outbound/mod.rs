//! Who may connect to what: the policy's entries are told to the kernel, which decides, and what no entry allows is taken from it
//! and told.

mod desk;
mod modes;
mod tell;
mod thread;

use std::net::{IpAddr, Ipv4Addr};

pub(crate) use desk::OutboundDesk;
pub(crate) use tell::OutboundTeller;
pub(crate) use thread::OutboundThread;

/// The protection's name in the policy.
pub(crate) const PROTECTION: &str = "outbound";

/// Where a host's name servers are written down: its own choice, and those that systemd-resolved asks.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The most bytes that are read of each.
const MAX_RESOLV_CONF: u64 = 64 * 1024;

/// The host's name servers (resolv.conf(5)).
pub(crate) fn resolvers() -> Vec<IpAddr> {
    let read = |path: &str| {
        use std::io::Read;
        let mut text = Vec::new();
        // What is not there names nobody.
        let _ = std::fs::File::open(path).and_then(|f| f.take(MAX_RESOLV_CONF).read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    };
    let [own, asked] = RESOLVERS.map(read);
    all_resolvers(&own, &asked)
}

/// Those of both files. Where the host's own names none, the one on this host is asked (resolv.conf(5)).
fn all_resolvers(own: &str, asked: &str) -> Vec<IpAddr> {
    let mut all = name_servers(own);
    if all.is_empty() {
        all.push(Ipv4Addr::LOCALHOST.into());
    }
    all.extend(name_servers(asked));
    all.sort();
    all.dedup();
    all
}

fn name_servers(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let (Some("nameserver"), Some(address)) = (words.next(), words.next()) else { return None };
        // The kernel's programs see no interface.
        address.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_and_nothing_else() {
        let text = "# nameserver 192.0.2.9\nsearch nameserver\nnameserver 192.0.2.1\nnameserver\tfe80::1%eth0 # ours\n\
                    nameserver\nnameserver nonsense\n nameserver 2001:db8::1";
        let found: Vec<String> = name_servers(text).iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["192.0.2.1", "fe80::1", "2001:db8::1"]);
    }

    #[test]
    fn loopback_is_a_name_server_where_it_is_one() {
        let all =
            |own, asked| -> Vec<String> { all_resolvers(own, asked).iter().map(IpAddr::to_string).collect() };
        assert_eq!(all("nameserver 127.0.0.53", "nameserver 192.0.2.1"), ["127.0.0.53", "192.0.2.1"]);
        assert_eq!(all("search example.org", ""), ["127.0.0.1"]);
        assert_eq!(all("nameserver 192.0.2.1", "nameserver 192.0.2.1"), ["192.0.2.1"]);
    }
}
