//! Which connections are cut because they lead to a pool: those that mine, and none of everyday traffic.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use std::collections::BTreeSet;

use davy_detect::{ListKind, Lists};
use davy_model::{Action, EventKind, FindingKind, FlowClose, FlowKey, FlowVolume, NameAnswer, ProcessKey};
use scene::Scene;

const LOGIN: &str = r#"{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"48edf","pass":"x","agent":"XMRig/6.21"}}
"#;
const SUBSCRIBE: &str = "{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"cpuminer/2.5\"]}\n";
const NOTIFY: &str = r#"{"id":null,"method":"mining.notify","params":["7","ab","01","02",[],"2","17","65",true]}
"#;
const POOL: &str = "198.51.100.7";

/// The destinations that were proposed to be cut since the scene began.
#[derive(Default)]
struct Cuts(BTreeSet<String>);

impl Cuts {
    fn take(&mut self, scene: &Scene) {
        self.0.extend(scene.last.proposals.iter().filter_map(|p| match p.item.action {
            Action::Cut { destination: d, .. } => Some(format!("{}:{}", d.address, d.port)),
            _ => None,
        }));
    }

    fn seconds(&mut self, scene: &mut Scene, seconds: u32) {
        for _ in 0..seconds {
            scene.second();
            self.take(scene);
        }
    }
}

fn client(scene: &mut Scene) -> ProcessKey {
    scene.run(scene.init(), "/usr/bin/x", &["x"])
}

/// A name server said that the pool's address belongs to a name on the list.
fn listed(scene: &mut Scene) {
    let name = "pool.hashvault.pro".to_owned();
    let answer = NameAnswer { name, address: POOL.parse().unwrap(), ttl_secs: 60 };
    scene.event(None, EventKind::Name(answer));
}

#[test]
fn the_first_line_of_a_miner_is_enough_and_cannot_wait() {
    for first in [
        LOGIN,
        SUBSCRIBE,
        "{\"id\":1,\"method\":\"mining.hello\",\"params\":{}}\n",
        "{\"id\":1,\"method\":\"eth_submitLogin\",\"params\":[\"0xab\"]}\n",
        // One that hides behind a node's calls.
        "{\"id\":1,\"method\":\"mining.subscribe\"}\n{\"id\":2,\"method\":\"getblocktemplate\"}\n",
    ] {
        let mut scene = Scene::new();
        let miner = client(&mut scene);
        let flow = scene.open(miner, "198.51.100.7:3333");
        assert!(!scene.detector.take_urgent());
        scene.send(flow, first.as_bytes());
        assert!(scene.detector.take_urgent() && !scene.detector.take_urgent(), "{first}");
        let mut cuts = Cuts::default();
        scene.conclude();
        cuts.take(&scene);
        assert_eq!(cuts.0, BTreeSet::from(["198.51.100.7:3333".to_owned()]), "{first}");
        assert_eq!(scene.of_kind(FindingKind::PoolContact).len(), 1);
        // Nothing else is proposed about a process that was not seen to compute.
        let others = scene.last.proposals.iter().map(|p| &p.item.action);
        assert!(others.clone().all(|a| matches!(a, Action::Cut { .. } | Action::Alert)));
    }
}

/// To whom pools are closed after what was said: `all`, or a cgroup.
fn closed_to(remote: &str, said: &[(bool, &str)]) -> Vec<String> {
    let mut lists = Lists::builtin();
    lists.add(ListKind::Networks, "test", "192.0.2.0/24\n").unwrap();
    let mut scene = Scene::with(lists);
    let process = client(&mut scene);
    let flow = scene.open(process, remote);
    for (sent, words) in said {
        if *sent { scene.send(flow, words.as_bytes()) } else { scene.receive(flow, words.as_bytes()) }
    }
    scene.second();
    let cuts = scene.last.proposals.iter().filter_map(|p| match &p.item.action {
        Action::Cut { cgroup, .. } => Some(cgroup.clone().unwrap_or_else(|| "all".to_owned())),
        _ => None,
    });
    cuts.collect()
}

#[test]
fn who_only_says_that_a_server_is_a_pool_closes_it_to_nobody_else() {
    let own = ["/system.slice/x.service".to_owned()];
    let (sent, got) = (|words| (true, words), |words| (false, words));
    assert_eq!(closed_to("198.51.100.7:5432", &[sent(SUBSCRIBE)]), own);
    assert_eq!(closed_to("198.51.100.7:5432", &[sent(SUBSCRIBE), got("{\"id\":1,\"result\":true}\n")]), own);
    // Its own words come back.
    let echo = [sent(SUBSCRIBE), sent(NOTIFY), got(SUBSCRIBE), got(NOTIFY)];
    assert_eq!(closed_to("198.51.100.7:6379", &echo), own);
    // A database on this host is nobody's pool because somebody says so to it.
    assert!(closed_to("127.0.0.1:5432", &[sent(SUBSCRIBE)]).is_empty());
    assert!(closed_to("[::1]:5432", &[sent(SUBSCRIBE)]).is_empty());
    for proven in [
        closed_to("198.51.100.7:3333", &[sent(SUBSCRIBE), got(NOTIFY)]),
        closed_to("127.0.0.1:3333", &[sent(SUBSCRIBE), got(NOTIFY)]),
        closed_to("192.0.2.9:3333", &[sent(SUBSCRIBE)]),
    ] {
        assert_eq!(proven, ["all"]);
    }
}

#[test]
fn who_dials_in_a_loop_does_not_drive_conclusions() {
    let mut scene = Scene::new();
    let miner = client(&mut scene);
    let mut urgent = 0;
    for n in 0..40 {
        let flow = scene.open(miner, &format!("198.51.100.{n}:3333"));
        scene.send(flow, LOGIN.as_bytes());
        urgent += u32::from(scene.detector.take_urgent());
        scene.wait(0.01);
    }
    assert_eq!(urgent, 4);
    scene.wait(1.0);
    let flow = scene.open(miner, "198.51.100.0:3333");
    scene.send(flow, LOGIN.as_bytes());
    assert!(!scene.detector.take_urgent(), "it is known");
    let flow = scene.open(miner, "198.51.100.99:3333");
    scene.send(flow, LOGIN.as_bytes());
    assert!(scene.detector.take_urgent());
}

#[test]
fn every_further_pool_of_the_same_miner_is_cut_at_once() {
    let mut scene = Scene::new();
    let miner = client(&mut scene);
    let mut cuts = Cuts::default();
    for (n, words) in [LOGIN, SUBSCRIBE, LOGIN, SUBSCRIBE].into_iter().enumerate() {
        let end = format!("198.51.100.{n}:3333");
        let flow = scene.open(miner, &end);
        scene.send(flow, words.as_bytes());
        assert!(scene.detector.take_urgent());
        scene.wait(0.02);
        scene.conclude();
        cuts.take(&scene);
        assert!(cuts.0.contains(&end), "{end}: {:?}", cuts.0);
    }
    assert_eq!(scene.of_kind(FindingKind::PoolContact).len(), 1, "one finding tells all of it");
    // The same pool once more is proposed again, when the finding is renewed: the cut may have ended.
    cuts.seconds(&mut scene, 5);
    let flow = scene.open(miner, "198.51.100.0:3333");
    scene.send(flow, LOGIN.as_bytes());
    let mut again = Cuts::default();
    again.seconds(&mut scene, 3);
    assert!(again.0.contains("198.51.100.0:3333"));
}

#[test]
fn a_listed_pool_is_cut_when_no_web_page_is_asked_for() {
    let ends = |port: u16, act: &dyn Fn(&mut Scene, FlowKey)| {
        let mut scene = Scene::new();
        listed(&mut scene);
        let process = client(&mut scene);
        let flow = scene.open(process, &format!("{POOL}:{port}"));
        act(&mut scene, flow);
        let mut cuts = Cuts::default();
        cuts.seconds(&mut scene, 3);
        assert!(!scene.findings.is_empty(), "it is told in any case");
        !cuts.0.is_empty()
    };
    let page = |scene: &mut Scene, flow| {
        scene.send(flow, b"GET /api/stats HTTP/1.1\r\nHost: pool.hashvault.pro\r\n\r\n");
    };
    let hello = |scene: &mut Scene, flow| {
        scene.send(flow, &[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]);
        scene.receive(flow, &[0x16, 3, 3, 0, 90, 2]);
    };
    let binary = |scene: &mut Scene, flow| scene.send(flow, &[7; 32]);
    let silent = |_: &mut Scene, _| {};
    let brief = |scene: &mut Scene, flow| {
        scene.send(flow, &[7; 32]);
        scene.event(None, EventKind::FlowClose(FlowClose { flow, volume: FlowVolume::default() }));
    };
    assert!(ends(3333, &binary) && ends(3333, &hello) && ends(9000, &brief));
    // A pool's web site and its API, read by a browser or by curl.
    assert!(!ends(80, &page) && !ends(443, &hello) && !ends(8117, &page) && !ends(3333, &silent));
    // A miner that speaks in the clear on a web site's port is one by its words.
    assert!(ends(80, &|scene, flow| scene.send(flow, LOGIN.as_bytes())));
}

#[test]
fn a_pool_inside_tls_is_cut_when_its_shape_and_the_computing_make_it_mining() {
    let mut scene = Scene::new();
    let miner = client(&mut scene);
    scene.threads(miner, 2, |t| t.mxcsr = scene::everyday());
    let flow = scene.open(miner, "203.0.113.9:443");
    scene.send(flow, &[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]);
    let mut cuts = Cuts::default();
    for second in 0..60 {
        if second % 4 == 1 {
            scene.size(flow, davy_model::Direction::Received, 382);
        }
        if scene::chance(second).is_multiple_of(3) {
            scene.size(flow, davy_model::Direction::Sent, 225);
            scene.wait(0.1);
            scene.size(flow, davy_model::Direction::Received, 85);
        }
        cuts.seconds(&mut scene, 1);
        if scene.mining().is_none() {
            assert!(cuts.0.is_empty(), "a shape alone is not enough");
        }
    }
    assert!(scene.mining().is_some());
    assert_eq!(cuts.0, BTreeSet::from(["203.0.113.9:443".to_owned()]));
}

/// What each side says, on port 8332, and whether it is told at all.
const EVERYDAY: &[(&str, &str, &str, bool)] = &[
    (
        "a page about mining",
        "GET /wiki/Stratum HTTP/1.1\r\nHost: wiki.example\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n<pre>{\"id\":1,\"method\":\"mining.subscribe\"} {\"id\":null,\"method\":\"mining.notify\",\"params\":[]}</pre>",
        false,
    ),
    (
        "a question about mining",
        "POST /ask HTTP/1.1\r\nHost: forum.example\r\n\r\n{\"method\":\"mining.subscribe\"} what does it do?",
        "HTTP/1.1 200 OK\r\n\r\n{\"id\":7}",
        true,
    ),
    (
        "bitcoin-cli",
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"getblocktemplate\",\"params\":[{\"rules\":[\"segwit\"]}]}",
        "HTTP/1.1 200 OK\r\n\r\n{\"result\":{\"height\":840000,\"target\":\"00\",\"previousblockhash\":\"ab\"},\"id\":1}",
        true,
    ),
    (
        "a block handed to bitcoind",
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{\"id\":1,\"method\":\"submitblock\",\"params\":[\"00\"]}",
        "HTTP/1.1 200 OK\r\n\r\n{\"result\":null,\"id\":1}",
        true,
    ),
    (
        "bitcoin-cli getblockchaininfo",
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{\"id\":1,\"method\":\"getblockchaininfo\",\"params\":[]}",
        "HTTP/1.1 200 OK\r\n\r\n{\"result\":{\"blocks\":840000},\"id\":1}",
        false,
    ),
    (
        "a wallet of ethereum",
        "POST / HTTP/1.1\r\nHost: node.example\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_sendRawTransaction\",\"params\":[\"0x\"]}",
        "HTTP/1.1 200 OK\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"0xab\"}",
        false,
    ),
    (
        "a node's own miner",
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{\"id\":1,\"method\":\"eth_submitWork\",\"params\":[\"0x\"]}",
        "HTTP/1.1 200 OK\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":true}",
        true,
    ),
    (
        "a wallet of monero",
        "POST /json_rpc HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":\"0\",\"method\":\"get_info\"}",
        "HTTP/1.1 200 OK\r\n\r\n{\"id\":\"0\",\"result\":{\"height\":3000000,\"target\":120,\"status\":\"OK\"}}",
        false,
    ),
    (
        "electrum",
        "{\"id\":0,\"method\":\"server.version\",\"params\":[\"electrum\",\"1.4\"]}\n",
        "{\"id\":0,\"result\":[\"ElectrumX\",\"1.4\"]}\n",
        false,
    ),
];

#[test]
fn everyday_traffic_is_never_cut() {
    for (what, sent, received, told) in EVERYDAY {
        let mut scene = Scene::new();
        let process = client(&mut scene);
        let flow = scene.open(process, "192.0.2.8:8332");
        scene.send(flow, sent.as_bytes());
        scene.receive(flow, received.as_bytes());
        let mut cuts = Cuts::default();
        cuts.seconds(&mut scene, 3);
        assert!(cuts.0.is_empty() && scene.mining().is_none(), "{what}: {:?}", cuts.0);
        assert_eq!(scene.of_kind(FindingKind::PoolContact).len(), usize::from(*told), "{what}");
    }
}

#[test]
fn who_serves_a_page_about_mining_is_no_pool() {
    let page = "HTTP/1.1 200 OK\r\n\r\n{\"method\":\"mining.subscribe\"} {\"method\":\"mining.notify\",\"params\":[]}";
    let mut scene = Scene::new();
    let web = client(&mut scene);
    let flow = scene.flow(web, "192.0.2.9:50000", true);
    scene.receive(flow, b"GET /wiki/Stratum HTTP/1.1\r\nHost: wiki.example\r\n\r\n");
    scene.send(flow, page.as_bytes());
    scene.seconds(2);
    assert!(scene.findings.is_empty(), "{:?}", scene.findings);
    // One that is asked for work and gives it is one.
    let flow = scene.flow(web, "192.0.2.9:50001", true);
    let ask = "POST / HTTP/1.1\r\nHost: pool.example\r\n\r\n{\"id\":1,\"method\":\"mining.subscribe\"}";
    scene.receive(flow, ask.as_bytes());
    scene.send(flow, format!("HTTP/1.1 200 OK\r\n\r\n{NOTIFY}").as_bytes());
    scene.second();
    assert_eq!(scene.of_kind(FindingKind::PoolContact).len(), 1);
}

#[test]
fn who_serves_miners_is_not_cut_off_from_them() {
    let mut scene = Scene::new();
    let pool = client(&mut scene);
    let flow = scene.flow(pool, "192.0.2.9:50000", true);
    scene.receive(flow, LOGIN.as_bytes());
    scene.send(flow, NOTIFY.as_bytes());
    let mut cuts = Cuts::default();
    cuts.seconds(&mut scene, 3);
    assert!(cuts.0.is_empty());
}

#[test]
fn jobs_of_a_connection_older_than_the_agent_are_a_pools() {
    let mut scene = Scene::new();
    let miner = client(&mut scene);
    let flow = scene.open(miner, "198.51.100.7:3333");
    scene.receive(flow, NOTIFY.as_bytes());
    let mut cuts = Cuts::default();
    cuts.seconds(&mut scene, 1);
    assert_eq!(cuts.0.len(), 1);
}
