use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One port, or a range of ports with both its ends. In JSON it is a text such as `80` or `8000-8100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is no range of ports; its words follow on the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPortRange(&'static str);

impl fmt::Display for NotAPortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotAPortRange {}

impl PortRange {
    /// A range; `None` when its ends are the wrong way round, or it holds port zero, which nothing listens on.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || first > last { None } else { Some(Self { first, last }) }
    }

    /// The lowest port.
    #[must_use]
    pub const fn first(&self) -> u16 {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub const fn last(&self) -> u16 {
        self.last
    }

    /// Whether a port is in it.
    #[must_use]
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl FromStr for PortRange {
    type Err = NotAPortRange;

    fn from_str(text: &str) -> Result<Self, NotAPortRange> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |digits: &str| {
            let digits = digits.trim();
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
        };
        match (port(first), port(last)) {
            (Some(first), Some(last)) => Self::new(first, last).ok_or(NotAPortRange(
                "has its ends the wrong way round, or begins with port 0, which nothing listens on",
            )),
            _ => Err(NotAPortRange("is not a port or a range such as 8000-8100")),
        }
    }
}

impl TryFrom<String> for PortRange {
    type Error = NotAPortRange;

    fn try_from(text: String) -> Result<Self, NotAPortRange> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_ports_and_ranges() {
        for (text, shown) in
            [("80", "80"), ("8000-8100", "8000-8100"), ("8000 - 8100", "8000-8100"), ("22-22", "22")]
        {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), shown);
        }
        for text in ["", "0", "0-5", "9-8", "65536", "-1", "80-", "+80", "http"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
        let range: PortRange = "10-12".parse().unwrap();
        assert_eq!([9, 10, 12, 13].map(|port| range.contains(port)), [false, true, true, false]);
    }
}
