use super::Attributes;

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No more rules of this table's chain; other chains still decide.
    Accept,
    /// Gone.
    Drop,
    /// The rules of a chain, and then the next one here.
    Jump(String),
}

impl Verdict {
    pub(crate) fn write(&self, data: &mut Attributes) {
        data.nested(2, |verdict| {
            match self {
                Self::Accept => verdict.number(1, 1),
                Self::Drop => verdict.number(1, 0),
                Self::Jump(chain) => verdict.bytes(1, &(-3i32).to_be_bytes()).text(2, chain),
            };
        });
    }
}

const VERDICT: u32 = 0;
/// The first of the four registers of 16 bytes.
const REGISTER: u32 = 1;
/// The first of the registers of 4 bytes; it begins where the other does.
const WORDS: u32 = 8;

const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

/// `NFT_REJECT_TCP_RST`, `NFT_REJECT_ICMPX_UNREACH` and `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`.
const RESET: u32 = 1;
const UNREACHABLE: u32 = 2;
const PROHIBITED: u8 = 3;

/// `NF_CT_STATE_BIT` of established and related.
const KNOWN_CONNECTION: u32 = 0b110;

/// A rule: conditions, and what is done when all of them hold.
#[derive(Debug)]
pub(crate) struct Rule {
    expressions: Vec<(&'static str, Attributes)>,
    pub(super) words: &'static str,
    pub(super) needs: &'static str,
}

impl Rule {
    /// A rule without a condition. `words` are for whoever reads why it was refused.
    pub(crate) const fn new(words: &'static str) -> Self {
        Self { expressions: Vec::new(), words, needs: "" }
    }

    fn with(mut self, name: &'static str, fill: impl FnOnce(&mut Attributes)) -> Self {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        self.expressions.push((name, attributes));
        self
    }

    fn load_meta(self, key: u32, register: u32) -> Self {
        self.with("meta", |a| {
            a.number(1, register).number(2, key);
        })
    }

    fn load_payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        self.with("payload", |a| {
            a.number(1, register).number(2, base).number(3, offset).number(4, length);
        })
    }

    fn compare(self, how: u32, value: &[u8]) -> Self {
        self.with("cmp", |a| {
            a.number(1, REGISTER).number(2, how).nested(3, |data| {
                data.bytes(1, value);
            });
        })
    }

    fn mask(self, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).unwrap_or(0);
        self.with("bitwise", |a| {
            a.number(1, REGISTER).number(2, REGISTER).number(3, length);
            a.nested(4, |data| {
                data.bytes(1, mask);
            });
            a.nested(5, |data| {
                data.bytes(1, &vec![0; mask.len()]);
            });
        })
    }

    /// If it came over an interface that leads back to this host.
    pub(crate) fn if_loopback(self) -> Self {
        const IIFTYPE: u32 = 8;
        const ARPHRD_LOOPBACK: u16 = 772;
        self.load_meta(IIFTYPE, REGISTER).compare(EQUAL, &ARPHRD_LOOPBACK.to_ne_bytes())
    }

    /// If it is of this transport protocol.
    pub(crate) fn if_protocol(self, number: u8) -> Self {
        const L4PROTO: u32 = 16;
        self.load_meta(L4PROTO, REGISTER).compare(EQUAL, &[number])
    }

    /// If its transport protocol is in a set.
    pub(crate) fn if_protocol_in(self, set: &str) -> Self {
        const L4PROTO: u32 = 16;
        self.load_meta(L4PROTO, REGISTER).look_up(set, None)
    }

    /// If it is IPv4, or else IPv6.
    pub(crate) fn if_family(self, v4: bool) -> Self {
        const NFPROTO: u32 = 15;
        self.load_meta(NFPROTO, REGISTER).compare(EQUAL, &[if v4 { 2 } else { 10 }])
    }

    /// If it is for this host, by one of its addresses, by broadcast or by multicast.
    pub(crate) fn if_for_this_host(mut self) -> Self {
        const ADDRESS_TYPE: u32 = 3;
        const OF_DESTINATION: u32 = 2;
        const RTN_UNICAST: u32 = 1;
        self.needs = "; it needs CONFIG_NFT_FIB_INET";
        self.with("fib", |a| {
            a.number(1, REGISTER).number(2, ADDRESS_TYPE).number(3, OF_DESTINATION);
        })
        .compare(UNEQUAL, &RTN_UNICAST.to_ne_bytes())
    }

    /// If it does not begin a TCP connection: of SYN, ACK and RST it has not SYN alone.
    pub(crate) fn if_not_tcp_beginning(self) -> Self {
        self.if_protocol(6).load_payload(TRANSPORT, 13, 1, REGISTER).mask(&[0x16]).compare(UNEQUAL, &[0x02])
    }

    /// If connection tracking knows what it belongs to.
    pub(crate) fn if_known_connection(mut self) -> Self {
        self.needs = "; it needs connection tracking (CONFIG_NF_CONNTRACK, CONFIG_NFT_CT)";
        self.with("ct", |a| {
            a.number(1, REGISTER).number(2, 0);
        })
        .mask(&KNOWN_CONNECTION.to_ne_bytes())
        .compare(UNEQUAL, &0u32.to_ne_bytes())
    }

    /// If it is for this port of a protocol that has ports.
    pub(crate) fn if_port(self, protocol: u8, port: u16) -> Self {
        self.if_protocol(protocol).load_payload(TRANSPORT, 2, 2, REGISTER).compare(EQUAL, &port.to_be_bytes())
    }

    /// If it comes from a link-local IPv6 address.
    pub(crate) fn if_from_link(self) -> Self {
        self.if_family(false)
            .load_payload(NETWORK, 8, 2, REGISTER)
            .mask(&[0xff, 0xc0])
            .compare(EQUAL, &[0xfe, 0x80])
    }

    /// If its sender is in a set of this family's addresses.
    pub(crate) fn if_from(self, v4: bool, set: &str) -> Self {
        let (offset, length) = sender(v4);
        self.if_family(v4).load_payload(NETWORK, offset, length, REGISTER).look_up(set, None)
    }

    /// What a map says of the port it is for, if anything.
    pub(crate) fn by_port(self, protocol: u8, map: &str) -> Self {
        self.if_protocol(protocol).load_payload(TRANSPORT, 2, 2, REGISTER).look_up(map, Some(VERDICT))
    }

    /// What a map says of its sender, if anything.
    pub(crate) fn by_sender(self, v4: bool, map: &str) -> Self {
        let (offset, length) = sender(v4);
        self.if_family(v4).load_payload(NETWORK, offset, length, REGISTER).look_up(map, Some(VERDICT))
    }

    fn look_up(self, set: &str, to: Option<u32>) -> Self {
        self.with("lookup", |a| {
            a.text(1, set).number(2, REGISTER);
            if let Some(register) = to {
                a.number(3, register);
            }
        })
    }

    /// Notes protocol, port and sender in a set.
    pub(crate) fn note(self, v4: bool, set: &str) -> Self {
        const L4PROTO: u32 = 16;
        let (offset, length) = sender(v4);
        self.if_family(v4)
            .load_meta(L4PROTO, WORDS)
            .load_payload(TRANSPORT, 2, 2, WORDS + 1)
            .load_payload(NETWORK, offset, length, WORDS + 2)
            .with("dynset", |a| {
                a.text(1, set).number(3, 0).number(4, WORDS);
            })
    }

    /// Counts it.
    pub(crate) fn count(self) -> Self {
        self.with("counter", |a| {
            a.long(1, 0).long(2, 0);
        })
    }

    /// The end of it.
    pub(crate) fn then(self, verdict: &Verdict) -> Self {
        self.with("immediate", |a| {
            a.number(1, VERDICT).nested(2, |data| verdict.write(data));
        })
    }

    /// The end of it, and its sender is told: a TCP packet by a reset, every other by a message that it is not allowed.
    pub(crate) fn refuse(mut self, tcp: bool) -> Self {
        self.needs = "; it needs CONFIG_NFT_REJECT_INET, and from kernel 5.9 on";
        self.with("reject", |a| {
            a.number(1, if tcp { RESET } else { UNREACHABLE });
            if !tcp {
                a.bytes(2, &[PROHIBITED]);
            }
        })
    }

    pub(super) fn write(&self, list: &mut Attributes) {
        for (name, attributes) in &self.expressions {
            list.nested(1, |expression| {
                expression.text(1, name);
                expression.bytes(2 | 0x8000, attributes.written());
            });
        }
    }
}

/// Where a packet's sender stands in its header.
const fn sender(v4: bool) -> (u32, u32) {
    if v4 { (12, 4) } else { (8, 16) }
}
