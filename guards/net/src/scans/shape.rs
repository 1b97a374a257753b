//! What a probe's headers look like: which tool makes such, and whether two probes look alike. Whoever sends them chooses them, so
//! all of this is a hint and never proof.

use std::fmt;

use davy_model::{PacketShape, PortProbeKind};

/// The TCP option that says the largest segment.
const MSS: u8 = 2;

/// A tool whose packets look like these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// Raw packets of nmap: no more than one option, a window of 1024, may be fragmented.
    Nmap,
    /// masscan: no options, the largest time to live, a window of 1024.
    Masscan,
    /// zmap, as it was until 2024: it wrote 54321 into each packet.
    Zmap,
}

impl Tool {
    const ALL: [Self; 3] = [Self::Nmap, Self::Masscan, Self::Zmap];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nmap => "nmap",
            Self::Masscan => "masscan",
            Self::Zmap => "zmap",
        }
    }

    fn of(kind: PortProbeKind, shape: &PacketShape) -> Option<Self> {
        let syn = kind == PortProbeKind::Syn;
        let flags = matches!(
            kind,
            PortProbeKind::Fin
                | PortProbeKind::Null
                | PortProbeKind::Xmas
                | PortProbeKind::Ack
                | PortProbeKind::Maimon
        );
        let bare = shape.header_words == 5 && shape.window == 1024;
        if syn && shape.ip_id == 54_321 && shape.window == u16::MAX {
            Some(Self::Zmap)
        } else if syn && bare && shape.ttl > 200 {
            Some(Self::Masscan)
        } else if (syn && shape.window == 1024 && shape.header_words == 6 && shape.first_option == MSS)
            || (flags && bare)
        {
            (!shape.dont_fragment).then_some(Self::Nmap)
        } else {
            None
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What stays the same in the packets of one sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Look {
    window: u16,
    header_words: u8,
    first_option: u8,
    ttl: u8,
}

impl Look {
    pub(super) fn of(shape: &PacketShape) -> Self {
        Self {
            window: shape.window,
            header_words: shape.header_words,
            first_option: shape.first_option,
            ttl: shape.ttl,
        }
    }

    /// Whether it is known at all: a handshake may be seen whose beginning was not told.
    pub(super) fn is_known(&self) -> bool {
        self.header_words != 0
    }

    /// The same, however far it came.
    pub(super) const fn without_distance(self) -> Self {
        Self { ttl: 0, ..self }
    }
}

/// Which tools the probes of one source look like, and whether they bear one port and number all along.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    tools: [u16; Tool::ALL.len()],
    all: u16,
    mark: (u16, u32),
    marked: u16,
}

/// Probes of which a tool must have made three fifths before it is named.
const LEAST: u16 = 3;

impl Tally {
    pub(super) fn take(&mut self, kind: PortProbeKind, shape: &PacketShape) {
        // Old counts make room for new ones.
        if self.all == u16::MAX {
            self.all /= 2;
            self.marked /= 2;
            self.tools.iter_mut().for_each(|n| *n /= 2);
        }
        self.all += 1;
        if let Some(tool) = Tool::of(kind, shape) {
            self.tools[tool as usize] += 1;
        }
        let mark = (shape.source_port, shape.sequence);
        if mark == self.mark {
            self.marked += 1;
        } else if self.marked == 0 {
            (self.mark, self.marked) = (mark, 1);
        } else {
            self.marked -= 1;
        }
    }

    /// The tool that most of them look like.
    pub(super) fn tool(&self) -> Option<Tool> {
        let most = |tool: &Tool| {
            let n = self.tools[*tool as usize];
            n >= LEAST && u32::from(n) * 5 >= u32::from(self.all) * 3
        };
        Tool::ALL.into_iter().find(most)
    }

    /// The sender's port and sequence number, if most bear the same.
    pub(super) fn mark(&self) -> Option<(u16, u32)> {
        (self.marked >= LEAST && self.mark != (0, 0)).then_some(self.mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NMAP: PacketShape = PacketShape {
        sequence: 7,
        source_port: 41_000,
        window: 1024,
        ip_id: 3,
        ttl: 52,
        header_words: 6,
        first_option: MSS,
        dont_fragment: false,
    };

    #[test]
    fn tools_are_told_by_most_of_their_packets() {
        let masscan = PacketShape { header_words: 5, first_option: 0, ttl: 255, ..NMAP };
        let zmap = PacketShape { ip_id: 54_321, window: 65_535, header_words: 5, ..NMAP };
        let linux = PacketShape { window: 64_240, header_words: 10, dont_fragment: true, ttl: 64, ..NMAP };
        for (shape, tool) in [
            (NMAP, Some(Tool::Nmap)),
            (masscan, Some(Tool::Masscan)),
            (zmap, Some(Tool::Zmap)),
            (linux, None),
        ] {
            let mut tally = Tally::default();
            for _ in 0..10 {
                tally.take(PortProbeKind::Syn, &shape);
            }
            assert_eq!(tally.tool(), tool, "{shape:?}");
            assert_eq!(tally.mark(), Some((41_000, 7)));
        }
    }

    #[test]
    fn a_few_packets_name_no_tool_and_bear_no_mark() {
        let mut tally = Tally::default();
        for n in 0..40u16 {
            let ordinary = PacketShape { window: 64_240, header_words: 10, ..NMAP };
            let shape = if n < 2 { NMAP } else { PacketShape { sequence: u32::from(n), ..ordinary } };
            tally.take(PortProbeKind::Syn, &shape);
        }
        assert_eq!((tally.tool(), tally.mark()), (None, None));
    }
}
