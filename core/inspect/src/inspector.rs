//! The flows whose beginnings are being read, within bounds.

use std::collections::{HashMap, VecDeque};

use davy_model::{Captured, FlowKey, Said};

use crate::flow_head::FlowHead;
use crate::name_answer::answers;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes kept of each direction of a flow.
    pub head_bytes: usize,
    /// Flows being read at once. When full, the one that began first is given up.
    pub flows: usize,
    /// Bytes kept of all flows together. When full, flows are given up as above.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { head_bytes: 4_096, flows: 16_384, bytes: 32 << 20 }
    }
}

/// Reads captures. See the crate's documentation.
#[derive(Debug)]
pub struct Inspector {
    bounds: Bounds,
    flows: HashMap<FlowKey, FlowHead>,
    /// Oldest first; keys of flows that ended are stepped over.
    order: VecDeque<FlowKey>,
    bytes: usize,
    given_up: u64,
}

impl Inspector {
    /// An inspector that has read nothing yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, flows: HashMap::new(), order: VecDeque::new(), bytes: 0, given_up: 0 }
    }

    /// Reads one capture and gives what it says, which for most is nothing new. Work is bounded by the bounds given.
    pub fn read(&mut self, capture: &Captured) -> Vec<Said> {
        match capture {
            Captured::Flow { flow, direction, offset, bytes } => {
                let limit = self.bounds.head_bytes;
                let head = self.head(*flow);
                let before = head.weight();
                let said = head.read(*direction, *offset, bytes, limit);
                let after = head.weight();
                self.bytes = self.bytes + after - before;
                self.make_room(*flow);
                said.map(Said::Flow).into_iter().collect()
            }
            Captured::FlowEnd { flow } => {
                self.forget(*flow);
                Vec::new()
            }
            Captured::NameAnswer { bytes } => answers(bytes).into_iter().map(Said::Name).collect(),
        }
    }

    /// Flows being read.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Flows that were given up before their end, because a bound was reached.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    fn head(&mut self, flow: FlowKey) -> &mut FlowHead {
        self.flows.entry(flow).or_insert_with(|| {
            self.order.push_back(flow);
            FlowHead::new(flow)
        })
    }

    fn forget(&mut self, flow: FlowKey) -> bool {
        let head = self.flows.remove(&flow);
        self.bytes -= head.as_ref().map_or(0, FlowHead::weight);
        head.is_some()
    }

    fn make_room(&mut self, newest: FlowKey) {
        while (self.flows.len() > self.bounds.flows || self.bytes > self.bounds.bytes) && self.flows.len() > 1
        {
            let Some(oldest) = self.order.pop_front() else { return };
            if oldest == newest {
                self.order.push_back(newest);
            } else if self.forget(oldest) {
                self.given_up += 1;
            }
        }
        if self.order.len() > self.bounds.flows.saturating_mul(2) {
            self.order.retain(|flow| self.flows.contains_key(flow));
        }
    }
}

#[cfg(test)]
mod tests {
    use davy_model::Direction;
    use proptest::prelude::*;

    use super::*;

    fn capture(flow: u64, bytes: &[u8]) -> Captured {
        Captured::Flow { flow: FlowKey(flow), direction: Direction::Sent, offset: 0, bytes: bytes.to_vec() }
    }

    #[test]
    fn the_oldest_flow_is_given_up_when_there_are_too_many() {
        let mut inspector = Inspector::new(Bounds { flows: 2, ..Bounds::default() });
        for flow in 1..=3 {
            inspector.read(&capture(flow, b"{\"id\":1,\"method\":"));
        }
        assert_eq!((inspector.flows(), inspector.given_up()), (2, 1));
        // The first one begins anew, and so its login is not whole; the second's is.
        let rest = b"\"mining.subscribe\"}";
        assert_eq!(inspector.read(&capture(3, rest)).len(), 1);
        assert_eq!(inspector.read(&capture(1, rest)), []);
    }

    #[test]
    fn an_ended_flow_is_forgotten() {
        let mut inspector = Inspector::new(Bounds::default());
        inspector.read(&capture(1, b"{"));
        inspector.read(&Captured::FlowEnd { flow: FlowKey(1) });
        assert_eq!((inspector.flows(), inspector.bytes, inspector.given_up()), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn no_capture_is_fatal_and_bounds_hold(
            pieces in proptest::collection::vec(
                (0u64..40, any::<bool>(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..400), 0u8..12), 0..120)
        ) {
            let mut inspector = Inspector::new(Bounds { head_bytes: 256, flows: 16, bytes: 4096 });
            for (flow, sent, offset, bytes, what) in pieces {
                let direction = if sent { Direction::Sent } else { Direction::Received };
                let capture = match what {
                    0 => Captured::FlowEnd { flow: FlowKey(flow) },
                    1 => Captured::NameAnswer { bytes },
                    2..=6 => Captured::Flow { flow: FlowKey(flow), direction, offset: offset % 300, bytes },
                    _ => Captured::Flow { flow: FlowKey(flow), direction, offset, bytes },
                };
                prop_assert!(inspector.read(&capture).len() <= 32);
                prop_assert!(inspector.flows() <= 16);
                prop_assert!(inspector.order.len() <= 33);
                let sum: usize = inspector.flows.values().map(FlowHead::weight).sum();
                prop_assert_eq!(sum, inspector.bytes);
                prop_assert!(inspector.bytes <= 4096 || inspector.flows() == 1);
            }
        }
    }
}
