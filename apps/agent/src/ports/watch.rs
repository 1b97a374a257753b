//! What is seen at ports: counted, and told where the policy would refuse it.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use davy_firewall::Refused;
use davy_model::{Event, EventKind, FlowAggregate, FlowKey, FlowOpen, InboundRefusal, Place, Timestamp};
use davy_net::inbound::{Plan, PortKey, Told, Usage, Verdict};
use davy_net::place_of;

/// The connections of which it is remembered that they were counted; the oldest go. What is told twice is told by the sensors and by
/// the first look at what was there before them, so within seconds.
const MAX_COUNTED: usize = 8192;

/// What was seen, and what is told of it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) usage: Usage,
    pub(super) told: Told,
    /// By what connections are judged that the kernel lets in; nothing while the kernel judges them itself.
    pub(super) judging: Option<Arc<Plan>>,
    /// The addresses of this network, in order.
    pub(super) own: Vec<IpAddr>,
    /// Who is let in everywhere.
    pub(super) spared: Vec<IpAddr>,
    counted: Counted,
}

/// The latest connections that were counted.
#[derive(Debug, Default)]
struct Counted {
    known: HashSet<FlowKey>,
    order: VecDeque<FlowKey>,
}

impl Counted {
    /// Whether it was not counted yet.
    fn is_new(&mut self, flow: FlowKey) -> bool {
        if !self.known.insert(flow) {
            return false;
        }
        self.order.push_back(flow);
        if self.order.len() > MAX_COUNTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

impl Watch {
    /// Whether it is an address of this network and of no other; loopback is everybody's.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        !address.is_loopback() && self.own.binary_search(&address).is_ok()
    }

    /// Whether it is an address of this network, as far as is known yet.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.own.is_empty() || self.own.binary_search(&address.to_canonical()).is_ok()
    }

    /// A connection was accepted in this network, which is the agent's own or is not. Gives what is to be told.
    pub(super) fn accepted(
        &mut self,
        time: Timestamp,
        open: &FlowOpen,
        network: u64,
        apart: bool,
    ) -> Option<InboundRefusal> {
        if !self.counted.is_new(open.flow) {
            return None;
        }
        let (transport, port) = (open.transport, open.local.port());
        let from = open.remote.ip().to_canonical();
        let place = place_of(from, Some(open.local.ip()));
        let judged =
            self.judging.as_ref().filter(|_| !apart && place != Place::Host && !self.spared.contains(&from));
        let would = judged.is_some_and(|plan| plan.decide(transport, port, from, time) == Verdict::Refused);
        self.usage.count(time, PortKey { network, transport, port }, from, place, would);
        let refusal = InboundRefusal { transport, port, from, refused: false };
        (would && self.told.is_news(time, &refusal)).then_some(refusal)
    }

    /// Connections were accepted of which only the number is known.
    pub(super) fn counted(&mut self, time: Timestamp, flows: &FlowAggregate, network: u64) {
        let key = PortKey { network, transport: flows.transport, port: flows.local.port() };
        self.usage.count_unnamed(time, key, flows.flows);
    }

    /// Those that the kernel refused and that are to be told.
    pub(super) fn refused(&mut self, time: Timestamp, all: &[Refused]) -> Vec<Event> {
        let refusal = |one: &Refused| InboundRefusal {
            transport: one.transport,
            port: one.port,
            from: one.from,
            refused: true,
        };
        let news = all.iter().map(refusal).filter(|refusal| self.told.is_news(time, refusal));
        let event = |refusal| Event { time, process: None, kind: EventKind::Inbound(refusal) };
        news.map(event).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use davy_model::{FlowKey, Transport};
    use davy_policy::Policy;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

    fn open(flow: u64, port: u16, from: &str) -> FlowOpen {
        FlowOpen {
            flow: FlowKey(flow),
            transport: Transport::Tcp,
            local: std::net::SocketAddr::new("192.0.2.1".parse().unwrap(), port),
            remote: std::net::SocketAddr::new(from.parse().unwrap(), 40_000),
            accepted: true,
        }
    }

    #[test]
    fn what_would_be_refused_is_told_once_and_counted_each_time() {
        let text = "[[inbound.allow]]\nport = 22\nfrom = [\"203.0.113.0/24\"]\nreason = \"office\"\n";
        let policy = Policy::parse("p", text).unwrap();
        let plan = Plan::make(&policy.inbound, &policy.origin, |_| Err(String::new())).unwrap();
        let mut watch = Watch {
            judging: Some(Arc::new(plan)),
            spared: vec!["198.51.100.99".parse().unwrap()],
            ..Watch::default()
        };
        let mut flow = 0;
        let mut see = |port, from, apart| {
            flow += 1;
            watch.accepted(NOW, &open(flow, port, from), 7, apart).is_some()
        };
        assert!(!see(22, "203.0.113.9", false), "the policy opens it to the office");
        assert!(see(22, "198.51.100.7", false) && !see(22, "::ffff:198.51.100.7", false), "told once");
        assert!(!see(22, "198.51.100.99", false), "an administrator's own");
        assert!(!see(22, "127.0.0.1", false) && !see(22, "192.0.2.1", false), "from this host");
        assert!(!see(22, "198.51.100.8", true), "a container's network");
        let used = watch.usage.of(PortKey { network: 7, transport: Transport::Tcp, port: 22 }).unwrap();
        assert_eq!((used.connections, used.refused), (7, 2));
        let refused = Refused { transport: Transport::Tcp, port: 23, from: "198.51.100.7".parse().unwrap() };
        assert_eq!(watch.refused(NOW, &[refused, refused]).len(), 1);
    }

    #[test]
    fn a_connection_that_is_told_twice_is_one() {
        let mut watch = Watch::default();
        let key = PortKey { network: 7, transport: Transport::Tcp, port: 22 };
        for flow in (1..=3).chain(1..=4) {
            watch.accepted(NOW, &open(flow, 22, "198.51.100.7"), 7, false);
        }
        assert_eq!(watch.usage.of(key).unwrap().connections, 4);
        for flow in 0..20_000 {
            watch.accepted(NOW, &open(flow, 22, "198.51.100.7"), 7, false);
        }
        assert!(watch.counted.known.len() == MAX_COUNTED && watch.counted.order.len() == MAX_COUNTED);
    }
}
