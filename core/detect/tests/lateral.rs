//! Who goes from host to host: each move is told.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_model::{EventKind, FindingKind, LateralMove, LateralReach, Mover, ProcessKey, Severity, Technique};
use scene::{Scene, info};

fn reached(scene: &mut Scene, process: ProcessKey, address: &str, bits: u32) {
    let moved = LateralMove {
        mover: Mover::Service("web.service".to_owned()),
        from: Some("nginx".to_owned()),
        reached: vec![LateralReach {
            service: "SSH".to_owned(),
            technique: Technique::new("T1021.004"),
            addresses: vec![address.parse().unwrap()],
            count: 1,
        }],
        began: scene.now,
        secs: 0,
        millibits: bits * 1000,
        learning: false,
        stopped_by: String::new(),
    };
    scene.event(Some(process), EventKind::Lateral(Box::new(moved)));
    scene.seconds(5);
}

#[test]
fn a_second_move_renews_the_finding_and_is_told_beside_the_first() {
    for (first, second) in [(7, 7), (13, 7)] {
        let mut scene = Scene::new();
        let web = scene::key(500);
        let program = info(web, Some(scene.init()), "nginx", "/usr/sbin/nginx", &["nginx"]);
        scene.event(Some(web), EventKind::Exec(Box::new(program)));
        reached(&mut scene, web, "10.0.3.7", first);
        let before = scene.of_kind(FindingKind::Lateral)[0].clone();
        assert!(before.summary.contains("10.0.3.7"), "{}", before.summary);

        scene.seconds(20 * 60);
        reached(&mut scene, web, "10.0.3.8", second);
        let found = scene.of_kind(FindingKind::Lateral);
        assert_eq!(found.len(), 1, "the finding grows");
        assert!(found[0].summary.contains("10.0.3.8"), "{}", found[0].summary);
        assert!(found[0].time > before.time && found[0].severity == before.severity);
        assert_eq!(before.severity, if first > 10 { Severity::High } else { Severity::Medium });
        let told = |address: &str| {
            let timeline = &scene.incident().timeline;
            timeline.iter().filter(|entry| entry.text.contains(address)).count()
        };
        assert_eq!((told("10.0.3.7"), told("10.0.3.8")), (1, 1));
    }
}
