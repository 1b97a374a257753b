use crate::nft::{Rule, Verdict};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What becomes of what a banned address sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BanKind {
    /// To which TCP and UDP ports nothing is let in, at most [`crate::MAX_BANNED_PORTS`]; none for everything that it sends.
    pub ports: Vec<u16>,
    /// Whether the sender is told, by a reset or an ICMP message, instead of waiting for nothing.
    pub reject: bool,
}

impl BanKind {
    /// The chain that everything goes through that comes from an address that is banned so; none where it is dropped at once.
    pub(super) fn chain(&self) -> Option<String> {
        if self.ports.is_empty() && !self.reject {
            return None;
        }
        let mut name = if self.reject { "reject" } else { "drop" }.to_owned();
        self.ports.iter().for_each(|port| name.push_str(&format!("_{port}")));
        Some(name)
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.chain().map_or(Verdict::Drop, Verdict::Jump)
    }

    pub(super) fn of(verdict: Option<&Verdict>) -> Self {
        let Some(Verdict::Jump(chain)) = verdict else { return Self::default() };
        let mut parts = chain.split('_');
        let reject = parts.next() == Some("reject");
        Self { ports: parts.filter_map(|port| port.parse().ok()).collect(), reject }
    }

    pub(super) fn rules(&self) -> Vec<Rule> {
        let end = |rule: Rule, tcp| if self.reject { rule.refuse(tcp) } else { rule.then(&Verdict::Drop) };
        if self.ports.is_empty() {
            return vec![
                end(Rule::new("meta l4proto tcp reject with tcp reset").if_protocol(TCP), true),
                end(Rule::new("reject with icmpx type admin-prohibited"), false),
            ];
        }
        let of = |port: &u16| {
            [TCP, UDP].map(|protocol| end(Rule::new("th dport").if_port(protocol, *port), protocol == TCP))
        };
        self.ports.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_BANNED_PORTS;

    #[test]
    fn what_becomes_of_packets_is_read_from_the_name_of_a_chain() {
        for (ports, reject) in [(vec![], false), (vec![], true), (vec![22], false), (vec![22, 65_535], true)]
        {
            let kind = BanKind { ports, reject };
            assert_eq!(BanKind::of(Some(&kind.verdict())), kind);
        }
        let longest = BanKind { ports: vec![65_535; MAX_BANNED_PORTS], reject: true };
        assert!(longest.chain().is_some_and(|name| name.len() < 127), "the kernel takes 127 bytes");
    }
}
