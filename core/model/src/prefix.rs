use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A network: all addresses that begin with the same bits (CIDR, RFC 4632 and RFC 4291), written without bits beyond its
/// length. In JSON it is a text such as `10.0.0.0/8`; a single address is written without a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(IpNet);

/// Why a text is no network; its words follow on the text itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAPrefix(String);

impl fmt::Display for NotAPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotAPrefix {}

/// An address in sixteen bytes, as the kernel's tables have them: IPv6 as it is, IPv4 as mapped (RFC 4291, 2.5.5.2).
#[must_use]
pub fn mapped_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl Prefix {
    /// The network of this length that an address is in. A length beyond the address's own is that of the whole address;
    /// IPv4-mapped addresses count as IPv4.
    #[must_use]
    pub fn of(address: IpAddr, length: u8) -> Self {
        let (address, length) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(plain)) if length >= 96 => (IpAddr::V4(plain), length - 96),
            (address, _) => (address, length),
        };
        Self(IpNet::new(address, length).unwrap_or_else(|_| IpNet::from(address)).trunc())
    }

    /// The network of one address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self(IpNet::from(address.to_canonical()))
    }

    /// Its first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.0.network()
    }

    /// How many bits all its addresses have in common.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether it is one address.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }

    /// Its last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.0.broadcast()
    }

    /// Whether an address is in it. IPv4-mapped addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Prefix {
    type Err = NotAPrefix;

    fn from_str(text: &str) -> Result<Self, NotAPrefix> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| NotAPrefix("is not an address or a network such as 10.0.0.0/8".to_owned()))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => most,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|length| *length <= most && digits.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| NotAPrefix(format!("has a length that is not from 0 to {most}")))?,
        };
        let prefix = Self::of(address, length);
        let whole =
            if address.is_ipv4() == prefix.address().is_ipv4() { address } else { address.to_canonical() };
        if prefix.address() != whole {
            return Err(NotAPrefix(format!("has bits beyond its length; the network is {prefix}")));
        }
        Ok(prefix)
    }
}

impl TryFrom<String> for Prefix {
    type Error = NotAPrefix;

    fn try_from(text: String) -> Result<Self, NotAPrefix> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() { self.address().fmt(f) } else { self.0.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn reads_and_writes_the_same() {
        for text in
            ["10.0.0.0/8", "0.0.0.0/0", "::/0", "192.0.2.7", "2001:db8::/32", "fe80::1", "2001:db8::/127"]
        {
            assert_eq!(prefix(text).to_string(), text);
            let json = serde_json::to_string(&prefix(text)).unwrap();
            assert_eq!(serde_json::from_str::<Prefix>(&json).unwrap(), prefix(text));
        }
        assert_eq!(prefix("::ffff:10.0.0.0/104"), prefix("10.0.0.0/8"));
        assert_eq!(prefix("192.0.2.7/32").to_string(), "192.0.2.7");
    }

    #[test]
    fn what_is_no_network_says_why() {
        let why = |text: &str| text.parse::<Prefix>().unwrap_err().to_string();
        assert!(why("10.0.0.1/8").contains("the network is 10.0.0.0/8"));
        assert!(why("10.0.0.0/33").contains("0 to 32"));
        assert!(why("::/129").contains("0 to 128"));
        assert!(why("10.0.0.0/+8").contains("0 to 32"));
        for text in ["", "/8", "10.0.0/8", "example.org", "10.0.0.0/"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn holds_its_own_and_ends_where_it_ends() {
        let office = prefix("203.0.113.64/26");
        for (address, inside) in [
            ("203.0.113.64", true),
            ("203.0.113.127", true),
            ("203.0.113.128", false),
            ("::ffff:203.0.113.65", true),
            ("::1", false),
        ] {
            assert_eq!(office.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert_eq!(office.last().to_string(), "203.0.113.127");
        assert_eq!(prefix("0.0.0.0/0").last().to_string(), "255.255.255.255");
        assert_eq!(prefix("2001:db8::/127").last().to_string(), "2001:db8::1");
        assert_eq!(prefix("::/0").last(), IpAddr::V6(std::net::Ipv6Addr::from_bits(u128::MAX)));
    }
}
