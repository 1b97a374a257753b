//! Flows, readings, restarts and forgetting in any order.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Open(u64, u8, bool, bool),
    Grow(u64, bool, u64, u32),
    Read(u64, String, bool),
    Close(u64, u64),
    Settle,
    Restart,
    Forget(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let flow = 0u64..12;
    prop_oneof![
        4 => (flow.clone(), any::<u8>(), any::<bool>(), any::<bool>()).prop_map(|(f, r, u, a)| Act::Open(f, r, u, a)),
        4 => (flow.clone(), any::<bool>(), any::<u64>(), any::<u32>()).prop_map(|(f, d, o, s)| Act::Grow(f, d, o, s)),
        2 => (flow.clone(), "[a-z.:\\[\\]0-9]{0,12}|\\PC{0,300}", any::<bool>()).prop_map(|(f, n, t)| Act::Read(f, n, t)),
        2 => (flow, any::<u64>()).prop_map(|(f, v)| Act::Close(f, v)),
        3 => Just(Act::Settle),
        1 => Just(Act::Restart),
        1 => any::<u8>().prop_map(Act::Forget),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_changes_lead_to_the_rows(acts in proptest::collection::vec(act(), 0..120)) {
        let mut map = Map::new();
        let mut store = std::collections::BTreeMap::new();
        for (step, act) in acts.iter().enumerate() {
            let time = at(step as f64 * 0.4);
            match act {
                Act::Open(flow, remote, udp, accepted) => {
                    let remote = SocketAddr::new([10, 0, 0, *remote % 5].into(), u16::from(*remote));
                    let transport = if *udp { Transport::Udp } else { Transport::Tcp };
                    let open = FlowOpen { remote, transport, accepted: *accepted, ..open(*flow, "10.0.0.1:1") };
                    map.opened(time, &open, None, (*flow % 2 == 0).then(|| talker("/a")), *flow % 5 == 0);
                }
                Act::Grow(flow, sent, offset, size) => {
                    let direction = if *sent { Direction::Sent } else { Direction::Received };
                    map.grew(time, &chunk(*flow, direction, *offset, *size));
                }
                Act::Read(flow, name, tls) => map.read(&reading(*flow, name, *tls, Some(name))),
                Act::Close(flow, bytes) => map.closed(time, FlowKey(*flow), volume(*bytes, *bytes / 2)),
                Act::Settle => map.settle(time, false, |_, address| Known {
                    talker: Some(talker("/b")),
                    name: (address == IpAddr::from([10, 0, 0, 1])).then(|| "one.example".to_owned()),
                }),
                Act::Restart => {}
                Act::Forget(ago) => map.forget_before(time.plus_secs(-f64::from(*ago))),
            }
            let changes = map.take_changes();
            for row in changes.written {
                prop_assert!(row.first <= row.last);
                prop_assert!(row.requests.len() <= 4 && row.requests.iter().all(|r| r.len() <= 128));
                prop_assert!(row.addresses.len() <= 16);
                if let Peer::Name(name) = &row.peer {
                    prop_assert!(!name.is_empty() && name.len() <= 253 && name.parse::<IpAddr>().is_err());
                }
                store.insert(row.id, row);
            }
            for id in changes.gone {
                store.remove(&id);
            }
            let mut rows = map.select(&Filter::default());
            rows.sort_by_key(|row| row.id);
            prop_assert_eq!(&rows, &store.values().cloned().collect::<Vec<_>>(), "after {:?}", act);
            if matches!(act, Act::Restart) {
                map = Map::new();
                map.restore(store.values().cloned().collect());
                store.values_mut().for_each(|row| row.open = 0);
            }
        }
    }
}
