//! A scan in plain words.

use std::fmt::Write;

use super::report::{PortScan, Scanner};
use super::weight::DECOY;

/// Addresses that are named of several.
const NAMED: usize = 4;

/// Ports that are named.
const PORTS: usize = 8;

/// One reason, for `davy explain`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// In plain words.
    pub text: String,
    /// What it weighs, in bits.
    pub bits: f32,
    /// Its numbers by name.
    pub numbers: Vec<(&'static str, f64)>,
}

impl PortScan {
    /// A few words for an incident.
    #[must_use]
    pub fn title(&self) -> String {
        let what = match self.scanner {
            Scanner::Address(_) => "port scan",
            Scanner::OneOf { .. } => "port scan behind decoys",
            Scanner::Network { .. } => "port scan from a network",
            Scanner::Many { .. } => "port scan from many addresses",
        };
        let state = match (self.running, self.cut_short) {
            (true, _) => "running",
            (false, true) => "not watched to its end",
            (false, false) => "over",
        };
        format!("{what}, {state}")
    }

    /// Who, for people.
    #[must_use]
    pub fn who(&self) -> String {
        let some = |all: &[std::net::IpAddr], of: usize| {
            let mut text = all.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            if of > NAMED {
                let _ = write!(text, " and {} more", of - NAMED);
            }
            text
        };
        match &self.scanner {
            Scanner::Address(address) => address.to_string(),
            Scanner::OneOf { addresses, real: Some(real) } => {
                format!("{real}, behind {} decoys,", addresses.len() - 1)
            }
            Scanner::OneOf { addresses, real: None } => {
                format!("one of {} addresses ({})", addresses.len(), some(addresses, addresses.len()))
            }
            Scanner::Network { network, sources } => format!("{network} ({sources} addresses together)"),
            Scanner::Many { sources, some: named } => {
                format!("{sources} addresses ({})", some(named, *sources as usize))
            }
        }
    }

    /// The scan in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let verb = if matches!(self.scanner, Scanner::Many { .. }) { "look" } else { "looks" };
        let mut text = format!(
            "{} {verb} for open ports: {}{} in {} by {}",
            self.who(),
            // Of a very fast scan not every port is told.
            if self.probes / 2 > self.ports { "at least " } else { "" },
            counted(self.ports, "port", "ports"),
            span(self.last.secs_since(self.first)),
            self.kinds.words()
        );
        if let Some(tool) = self.tool {
            let _ = write!(text, ", with packets like {tool}'s");
        }
        if !self.open.is_empty() {
            let _ = write!(text, "; found open: {}", ports(&self.open));
        }
        if !self.decoys.is_empty() {
            let _ = write!(text, "; touched the decoy {}", ports(&self.decoys));
        }
        let _ = write!(
            text,
            "; known after {}; {}",
            counted(self.visits_needed, "probe", "probes"),
            self.return_path()
        );
        text
    }

    /// What is known of whether the sender is who it says.
    #[must_use]
    pub fn return_path(&self) -> &'static str {
        match (&self.scanner, self.proven) {
            (Scanner::Many { .. } | Scanner::Network { .. }, _) => "addresses can be forged",
            (Scanner::OneOf { .. }, false) => "the others are decoys, and whose they are has no part in it",
            (_, true) => "the address is its own: it answered what this host sent there",
            (_, false) => "nothing proves that the address is its own",
        }
    }

    /// Why it is a scan, the strongest first.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let decoys = DECOY * self.decoys.len() as f32;
        let forbidden = 10.0 * self.forbidden as f32;
        if !self.decoys.is_empty() {
            reasons.push(Reason {
                text: format!("touched {}, which the policy says nobody should", ports(&self.decoys)),
                bits: decoys,
                numbers: vec![("decoys", self.decoys.len() as f64)],
            });
        }
        if self.forbidden > 0 {
            reasons.push(Reason {
                text: format!(
                    "sent {} that no honest sender makes",
                    counted(self.forbidden, "packet", "packets")
                ),
                bits: forbidden,
                numbers: vec![("forbidden", f64::from(self.forbidden))],
            });
        }
        if self.failed > 0 {
            reasons.push(Reason {
                text: format!(
                    "{} of {} refused or did not answer, where {:.0} of 100 visits to this host succeed",
                    self.failed,
                    counted(self.ports, "port", "ports"),
                    self.base_rate * 100.0
                ),
                bits: (self.bits - decoys - forbidden).max(0.0),
                numbers: vec![
                    ("ports", f64::from(self.ports)),
                    ("failed", f64::from(self.failed)),
                    ("base_rate", self.base_rate),
                ],
            });
        }
        let mut told = |text: String, numbers| reasons.push(Reason { text, bits: 0.0, numbers });
        told(
            format!(
                "{} by {} in {}, known after {}",
                counted(self.probes, "probe", "probes"),
                self.kinds.words(),
                span(self.last.secs_since(self.first)),
                self.visits_needed
            ),
            vec![
                ("probes", f64::from(self.probes)),
                ("until_known", f64::from(self.visits_needed)),
                ("seconds", self.last.secs_since(self.first)),
            ],
        );
        if let Some(tool) = self.tool {
            told(format!("its packets look like {tool}'s, which anybody can imitate"), Vec::new());
        }
        if let Some(alike) = self.alike {
            told(format!("{:.0} % of the packets look alike", alike * 100.0), vec![("alike", alike)]);
        }
        told(self.return_path().to_owned(), vec![("proven", f64::from(u8::from(self.proven)))]);
        reasons.sort_by(|a, b| b.bits.total_cmp(&a.bits));
        reasons
    }
}

fn counted(n: u32, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn ports(ports: &[u16]) -> String {
    let some: Vec<String> = ports.iter().take(PORTS).map(ToString::to_string).collect();
    let more = ports.len().saturating_sub(PORTS);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} {}{rest}", if ports.len() == 1 { "port" } else { "ports" }, some.join(", "))
}

/// A length of time in its largest unit.
fn span(seconds: f64) -> String {
    match seconds.max(0.0) {
        s if s < 0.95 => format!("{:.0} ms", (s * 1000.0).max(1.0)),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}
