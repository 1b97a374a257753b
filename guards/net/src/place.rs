//! Inside and outside, by address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use davy_model::Place;

/// Where an address is. Loopback and unspecified addresses are this host, and so is `local` itself, the address that this
/// host's end of the connection has: who talks to the same address talks to the same host.
#[must_use]
pub fn place_of(remote: IpAddr, local: Option<IpAddr>) -> Place {
    let remote = remote.to_canonical();
    let own = local.is_some_and(|local| local.to_canonical() == remote);
    let (host, inside) = match remote {
        IpAddr::V4(v4) => (v4.is_loopback() || v4.is_unspecified(), is_inside_v4(v4)),
        IpAddr::V6(v6) => (v6.is_loopback() || v6.is_unspecified(), is_inside_v6(v6)),
    };
    if own || host {
        Place::Host
    } else if inside {
        Place::Inside
    } else {
        Place::Outside
    }
}

/// Private (RFC 1918), shared (RFC 6598), link-local (RFC 3927), administratively scoped and link-local multicast (RFC 2365,
/// RFC 5771), broadcast.
fn is_inside_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private()
        || address.is_link_local()
        || address.is_broadcast()
        || (a == 100 && b & 0xc0 == 64)
        || a == 239
        || (address.is_multicast() && a == 224 && b == 0)
}

/// Unique local (RFC 4193), link-local (RFC 4291), and multicast of less than global scope (RFC 7346).
fn is_inside_v6(address: Ipv6Addr) -> bool {
    let scope = address.octets()[1] & 0x0f;
    address.is_unique_local() || address.is_unicast_link_local() || (address.is_multicast() && scope < 0x0e)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place(address: &str) -> Place {
        place_of(address.parse().unwrap(), None)
    }

    #[test]
    fn addresses_are_where_their_standards_put_them() {
        for (address, expected) in [
            ("127.0.0.53", Place::Host),
            ("::1", Place::Host),
            ("::ffff:127.0.0.1", Place::Host),
            ("0.0.0.0", Place::Host),
            ("10.0.3.1", Place::Inside),
            ("172.31.255.255", Place::Inside),
            ("172.32.0.1", Place::Outside),
            ("192.168.1.1", Place::Inside),
            ("100.64.0.1", Place::Inside),
            ("100.128.0.1", Place::Outside),
            ("169.254.169.254", Place::Inside),
            ("224.0.0.251", Place::Inside),
            ("224.2.2.2", Place::Outside),
            ("239.255.255.250", Place::Inside),
            ("fd00::1", Place::Inside),
            ("fe80::1", Place::Inside),
            ("ff02::fb", Place::Inside),
            ("ff0e::1", Place::Outside),
            ("::ffff:10.1.2.3", Place::Inside),
            ("203.0.113.9", Place::Outside),
            ("2001:db8::1", Place::Outside),
        ] {
            assert_eq!(place(address), expected, "{address}");
        }
    }

    #[test]
    fn a_public_address_of_this_host_is_this_host() {
        let own = "203.0.113.9".parse().unwrap();
        assert_eq!(place_of(own, Some(own)), Place::Host);
        assert_eq!(place_of(own, Some("203.0.113.10".parse().unwrap())), Place::Outside);
    }
}
