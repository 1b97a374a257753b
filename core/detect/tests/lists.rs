//! Pool lists: what comes with Davy, and what users load.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_detect::{KnownNames, ListKind, Lists};
use davy_model::{Dialogue, EventKind, FindingKind, FlowReading, NameAnswer};
use proptest::prelude::*;
use scene::Scene;

#[test]
fn the_built_in_lists_have_no_faults() {
    let mut lists = Lists::empty();
    let text = include_str!("../../../content/pools/domains.txt");
    lists.add(ListKind::Domains, "davy", text).unwrap();
    assert!(lists.len() > 60);
    KnownNames::parse(include_str!("../../../content/names.toml")).unwrap();
    assert!(KnownNames::builtin().knows("nginx"));
    assert_eq!(Lists::builtin().len(), lists.len());
}

#[test]
fn domains_stand_for_what_is_below_them() {
    let lists = Lists::builtin();
    for name in ["pool.supportxmr.com", "SUPPORTXMR.com.", "eu.stratum.braiins.com", "xmr-eu1.nanopool.org"] {
        assert!(lists.name(name).is_some(), "{name}");
    }
    for name in ["com", "notsupportxmr.com", "supportxmr.com.example.org", "braiins.com", ""] {
        assert!(lists.name(name).is_none(), "{name}");
    }
}

#[test]
fn hosts_files_and_networks_are_read() {
    let mut lists = Lists::empty();
    let hosts = "# blocked\n127.0.0.1 localhost localhost.localdomain\n0.0.0.0 pool.example www.pool.example\n:: six.example\n";
    lists.add(ListKind::Hosts, "hosts", hosts).unwrap();
    assert!(lists.name("pool.example").is_some());
    assert!(lists.name("deep.pool.example").is_none(), "a hosts line stands for itself alone");
    assert!(lists.name("localhost.localdomain").is_none());
    lists.add(ListKind::Networks, "nets", "192.0.2.0/24\n198.51.100.7\n2001:db8:1::/48 # six\n").unwrap();
    assert_eq!(lists.address("192.0.2.99".parse().unwrap()).unwrap().entry, "192.0.2.0/24");
    assert!(lists.address("::ffff:192.0.2.99".parse().unwrap()).is_some(), "mapped addresses are the same");
    assert!(lists.address("198.51.100.7".parse().unwrap()).is_some());
    assert!(lists.address("198.51.100.8".parse().unwrap()).is_none());
    assert!(lists.address("2001:db8:1::5".parse().unwrap()).is_some());
    assert!(lists.address("2001:db8:2::5".parse().unwrap()).is_none());
}

#[test]
fn faults_are_told_by_line_and_the_rest_is_taken() {
    let mut lists = Lists::empty();
    let faults =
        lists.add(ListKind::Networks, "nets", "10.0.0.0/8\nnonsense\n1.2.3.4/40\n0.0.0.0/0\n").unwrap_err();
    assert_eq!(faults.iter().map(|f| f.line).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(faults[0].to_string().starts_with("line 2: `nonsense` is not a network"));
    assert_eq!(lists.len(), 1);
    assert_eq!(lists.add(ListKind::Domains, "d", "bad_\u{e9}.example\nlocalhost\n").unwrap_err().len(), 2);
}

#[test]
fn a_listed_name_is_known_by_answer_by_tls_and_by_host() {
    for way in 0..4 {
        let mut scene = Scene::new();
        let process = scene.run(scene.init(), "/usr/bin/x", &["x"]);
        let answer = NameAnswer {
            name: "pool.hashvault.pro".to_owned(),
            address: "198.51.100.7".parse().unwrap(),
            ttl_secs: 60,
        };
        if way == 0 {
            scene.event(None, EventKind::Name(answer.clone()));
        }
        let flow = scene.open(process, "198.51.100.7:443");
        match way {
            1 => {
                let name = Some("xmr.kryptex.network".to_owned());
                let reading = FlowReading {
                    flow,
                    tls: true,
                    name,
                    request: None,
                    random_start: false,
                    dialogue: Dialogue::default(),
                };
                scene.event(None, EventKind::FlowRead(Box::new(reading)));
            }
            // The worker is slower than the connection.
            3 => scene.event(None, EventKind::Name(answer)),
            2 => scene.send(flow, b"GET / HTTP/1.1\r\nHost: api.moneroocean.stream:80\r\n\r\n"),
            _ => {}
        }
        scene.second();
        let contact = scene.of_kind(FindingKind::PoolContact);
        assert_eq!(contact.len(), 1, "way {way}");
        assert!(contact[0].summary.contains("stands on list davy"), "{}", contact[0].summary);
        assert!(scene.mining().is_none());
        // Beside computation the same contact is mining.
        scene.threads(process, 2, |t| t.mxcsr = scene::everyday());
        scene.seconds(10);
        assert!(scene.mining().is_some(), "way {way}");
    }
}

proptest! {
    #[test]
    fn any_text_is_taken_as_a_list(text in "(?s).{0,400}", kind in 0..3) {
        let kind = [ListKind::Domains, ListKind::Hosts, ListKind::Networks][kind as usize];
        let mut lists = Lists::empty();
        let _ = lists.add(kind, "x", &text);
        let _ = lists.name(&text);
    }

    #[test]
    fn any_text_is_taken_as_names(text in "(?s).{0,200}") {
        let _ = KnownNames::parse(&text);
    }
}
